# SPDX-License-Identifier: Apache-2.0
"""What people who use OSCAR have today, from a DAG: scripts of their own, files of every form, chains of services,
uploads that start jobs, tokens, and logs of any size; at the embedded platform and at OSCAR itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.errors import DefinitionError, JobFailedError, OscarProviderError, TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.hooks.oscar.hook import OscarHook, encode_body
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.operators.oscar_calls import OscarDeleteServiceOperator, OscarInvokeOperator
from airflow_provider_oscar.operators.oscar_service import OscarServiceOperator
from airflow_provider_oscar.triggers.service_jobs import OscarServiceJobsTrigger
from airflow_provider_oscar.watch import state_store
from tests.support.command_line import parser
from tests.support.fakes import Store
from tests.system.backends import PREFIX, Backend
from tests.system.scenarios import make_context, raised_failure, says, until
from tests.system.test_oscar import backend, hook, running, s3
from tests.unit.watch.conftest import FakeStore

__all__ = ["backend", "hook", "running", "s3"]

COW = f"{PREFIX}cow"
ROOT = Path(__file__).parents[2]
#: OSCAR's own client for Python, in an environment of its own.
CLIENT = ROOT / ".venv-clients" / "bin" / "python"
PROGRAM = ROOT / "tests" / "support" / "oscar_python_calls.py"
SCRIPT = "#!/bin/sh\nprintf 'moo '; cat \"$INPUT_FILE_PATH\"; echo\n"
COPYING = f'{SCRIPT}cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/copy.txt"\n'
LONG = "#!/bin/sh\nhead -c 70000000 /dev/zero | tr '\\0' x | fold -w 999\necho; echo the end\n"
Apply = Callable[..., dict[str, str]]


@pytest.fixture
def apply(backend: Backend, hook: OscarHook, request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Apply]:
    """Applies an FDL with ``OscarServiceOperator``, and deletes its services at the end.

    The words ``IMAGE`` and ``NODE`` of the text become those of the back end.
    """
    names: set[str] = set()

    def apply(text: str, **arguments: Any) -> dict[str, str]:
        image = f"docker://{backend.image}" if backend.node else backend.image
        text = text.replace("IMAGE", image).replace("NODE", f"'{backend.node}'")
        for name, script in (("cow.sh", SCRIPT), ("copy.sh", COPYING), ("long.sh", LONG), ("three.sh", "exit 3\n")):
            (tmp_path / name).write_text(script)
        task = OscarServiceOperator(task_id="apply", fdl=text, script_folder=str(tmp_path), **arguments)
        done = dict(task.execute(make_context(request)))
        names.update(done)
        return done

    yield apply
    for name in names:
        if hook.run(hook.get_service(name)) is not None:
            hook.run(hook.delete_service(name))


def fdl(*services: str) -> str:
    """An FDL of services in YAML's short form."""
    common = "image: IMAGE, cpu: 1.0, interlink_node_name: NODE"
    return "functions:\n  oscar:\n" + "".join(f"  - default-cluster: {{{common}, {each}}}\n" for each in services)


def job(request: pytest.FixtureRequest, **arguments: Any) -> Any:
    """Run a task of ``OscarJobOperator`` to its end."""
    state = arguments.pop("state", None) or make_context(request)
    defaults = {"task_id": "run", "service": COW, "timeout": 300, "poll_interval": 1, "deferrable": False}
    return OscarJobOperator(**defaults | arguments).execute(state)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "rule",
    ["status", {"log": "moo hello"}, {"objects": f"s3://{COW}/out/*"}, lambda ended: "moo" in ended.log],
    ids=["status", "log", "objects", "function"],
)
def test_service_with_a_script_of_its_own_succeeds_by_a_rule_and_is_not_run_again(request, apply, hook, rule):
    script = f"copy.sh, output: [{{storage_provider: minio.default, path: {COW}/out}}]"
    # What a script leaves as a file, OSCAR's supervisor prints in place of what the script printed.
    apply(fdl(f"name: {COW}, script: {script if 'objects' in str(rule) else 'cow.sh'}"))
    state = make_context(request, Store())
    found = job(request, payload="hello", success_when=rule, state=state)
    assert found["proof"] == "observed"
    again = job(request, payload="hello", success_when=rule, state=state)
    assert again["submission_id"] == found["submission_id"]
    assert len(hook.run(hook.list_jobs(COW))) == 1, "a try that found the result ran the job once more"


@pytest.mark.timeout(600)
def test_exit_code_of_a_wrapped_script_counts(request, apply):
    apply(fdl(f"name: {COW}, script: '@wrap three.sh'"))
    task = OscarJobOperator(task_id="run", service=COW, payload="hello", timeout=300, poll_interval=1, deferrable=False)
    error = raised_failure(task, make_context(request))
    assert isinstance(error.__context__, JobFailedError)
    says(error, "exit code 3")


@pytest.mark.timeout(600)
async def test_upload_starts_a_job_by_itself_which_a_watcher_hears_of(request, apply, hook, s3, monkeypatch):
    monkeypatch.setattr(state_store, "AssetStateStoreAccessor", FakeStore().accessor)
    done = apply(fdl(f"name: {COW}, script: cow.sh, input: [{{storage_provider: minio.default, path: {COW}/in}}]"))
    assert done == {COW: "created"}
    trigger = OscarServiceJobsTrigger(asset_name="done", service=COW, start="all")
    watcher = trigger.watcher()
    s3.put_bytes(COW, "in/a b+ü.txt", b"hello")
    until(
        lambda: {each.phase for each in dict(hook.run(hook.list_jobs(COW))).values()} == {JobPhase.SUCCEEDED},
        240,
        "the job of the upload has ended",
    )
    heard = [
        event.key async for page in trigger.arguments.source().full_listing() for event in await watcher.process(page)
    ]
    assert heard == list(dict(hook.run(hook.list_jobs(COW))))
    assert "moo hello" in str(hook.run(hook.job_log(COW, heard[0])))


#: What ``oscar-cli`` takes: tabs after values, values that YAML 1.1 takes for something else, and old names.
FORMS = f"""functions:
  oscar:
  - name: {COW}
    image: IMAGE\t
    cpu: 1.0
    memory: 256e6\t\t
    log_level: debug
    interLink: NODE
    annotations: {{job.vk.io/flags: --comment=asked}}
    image_rules: [x]
    script: |
      #!/bin/sh
      echo inline
    environment:
      Variables:
        YES: yes
        OFF: off
        TIME: 12:30:45
        DAY: 2024-01-02
        NUMBER: 1.10
        NOTHING:
    output:
    - {{storage_provider: minio, path: {COW}/out, suffix: .txt}}
"""
SENT = {"YES": "yes", "OFF": "off", "TIME": "12:30:45", "DAY": "2024-01-02", "NUMBER": "1.1", "NOTHING": ""}


@pytest.mark.timeout(600)
def test_file_of_every_form_is_created_read_back_and_left_alone(apply, hook):
    assert apply(FORMS) == {COW: "created"}
    found = hook.run(hook.get_service(COW))
    assert found["environment"]["variables"] == SENT
    assert (found["log_level"], found["memory"], found["script"]) == ("DEBUG", "256e6", "#!/bin/sh\necho inline\n")
    assert found["annotations"]["slurm-job.vk.io/flags"] == "--comment=asked"
    assert found["output"][0]["suffix"] == [".txt"]
    assert apply(FORMS) == {COW: "unchanged"}


@pytest.mark.timeout(600)
def test_chain_of_services_is_made_in_an_order_that_works_and_passes_objects_on(apply, hook, s3):
    first, second = f"{PREFIX}first", f"{PREFIX}second"
    store = "storage_provider: minio.default, path:"
    text = fdl(
        f"name: {first}, script: copy.sh, input: [{{{store} {first}/in}}], output: [{{{store} {second}/in}}]",
        f"name: {second}, script: copy.sh, input: [{{{store} {second}/in}}], output: [{{{store} {second}/out}}]",
    )
    assert apply(text) == {first: "created", second: "created"}
    assert apply(text) == {first: "unchanged", second: "unchanged"}
    s3.put_bytes(first, "in/a.txt", b"hello")
    until(lambda: s3.exists(second, "out/copy.txt"), 300, "the second service has copied what the first one wrote")
    assert s3.read_bytes(f"s3://{second}/out/copy.txt", 100) == b"hello"


@pytest.mark.timeout(600)
def test_what_no_repetition_mends_is_final_with_its_remedy(apply, s3, hook):
    """OSCAR says 500 to most of these."""
    taken = f"{PREFIX}taken"
    s3.client.create_bucket(Bucket=taken)
    store = "storage_provider: minio.default, path:"
    for fields, words in (
        (f"input: [{{{store} {taken}/in}}]", ("already exists", "choose another path")),
        ("memory: 12Qq", ("memory",)),
        ("input: [{storage_provider: minio.elsewhere, path: abc/in}]", ("minio.elsewhere",)),
    ):
        with pytest.raises(AirflowFailException) as raised:
            apply(fdl(f"name: {COW}, script: cow.sh, {fields}"))
        says(raised.value, *words)
        assert hook.run(hook.get_service(COW)) is None


@pytest.mark.timeout(600)
def test_field_of_another_type_is_refused_before_it_is_sent_as_the_server_refuses_it(backend, apply, hook):
    with pytest.raises(AirflowFailException) as raised:
        apply(fdl(f"name: {COW}, script: cow.sh, synchronous: {{min_scale: '1'}}"))
    says(raised.value, "line 3", "synchronous.min_scale")
    body = {"name": COW, "image": backend.image, "script": SCRIPT, "synchronous": {"min_scale": "1"}}
    with hook.client(repeat=False) as client:
        assert client.post(f"{hook.connection.host}/system/services", json=body).status_code == 400
    assert hook.run(hook.get_service(COW)) is None


@pytest.mark.timeout(600)
def test_service_token_starts_a_job_of_its_service_and_says_what_it_cannot(apply, hook):
    apply(fdl(f"name: {COW}, script: cow.sh"))
    token = str(hook.run(hook.get_service(COW))["token"])
    fields = {"conn_type": "oscar", "host": str(hook.connection.host), "password": token}
    limited = OscarHook(
        connection=Connection(conn_id="limited", **fields, extra=json.dumps({"auth_type": "service_token"}))
    )
    limited.run(limited.submit_job(COW, encode_body(b"hello"), f"{COW}-token"))
    assert f"{COW}-token" in dict(hook.run(hook.list_jobs(COW)))
    with pytest.raises(OscarProviderError, match="service token|service_token"):
        limited.run(limited.list_services())


@pytest.mark.timeout(900)
def test_log_beyond_any_limit_costs_a_job_nothing(request, apply, hook):
    apply(fdl(f"name: {COW}, script: long.sh"))
    found = job(request, payload="hello", success_when={"log": "^the end$"}, timeout=600)
    assert found["proof"] == "observed"


@pytest.mark.timeout(600)
def test_job_without_a_log_and_job_that_is_not_there_are_told_apart(backend, apply, hook):
    apply(fdl(f"name: {COW}, script: cow.sh"))
    assert hook.run(hook.job_log(COW, "never-there")) is None
    assert not hook.run(hook.delete_job(COW, "never-there"))
    with pytest.raises(DefinitionError, match="nobody"):
        hook.run(hook.list_jobs("nobody"))


@pytest.mark.timeout(600)
def test_synchronous_call_without_a_serverless_backend_says_what_to_do_instead(request, apply):
    apply(fdl(f"name: {COW}, script: cow.sh"))
    task = OscarInvokeOperator(task_id="call", service=COW, payload="hello")
    says(raised_failure(task, make_context(request)), "no serverless backend", "OscarJobOperator")


@pytest.mark.timeout(600)
def test_service_with_a_running_job_is_not_deleted_and_then_its_buckets_are_named(request, apply, hook, s3):
    apply(fdl(f"name: {COW}, script: cow.sh, input: [{{storage_provider: minio.default, path: {COW}/in}}]"))
    hook.run(hook.submit_job(COW, encode_body(b"hello"), f"{COW}-early"))
    done = OscarDeleteServiceOperator(task_id="delete", service=COW, delete_buckets=True)
    if not dict(hook.run(hook.list_jobs(COW)))[f"{COW}-early"].phase.ended:
        with pytest.raises(TransientError, match=f"{COW}-early"):
            done.execute(make_context(request))
    until(lambda: dict(hook.run(hook.list_jobs(COW)))[f"{COW}-early"].phase.ended, 240, "the job has ended")
    assert COW in json.dumps(done.execute(make_context(request)))
    assert COW not in {each["Name"] for each in s3.client.list_buckets()["Buckets"]}


@pytest.mark.timeout(600)
def test_command_line_shows_services_jobs_logs_and_buckets(apply, hook, capsys):
    def airflow(*words: str) -> str:
        options = parser().parse_args(["oscar", *words])
        capsys.readouterr()
        options.func(options)
        return str(capsys.readouterr().out)

    apply(fdl(f"name: {COW}, script: cow.sh, input: [{{storage_provider: minio.default, path: {COW}/in}}]"))
    hook.run(hook.submit_job(COW, encode_body(b"hello"), f"{COW}-cli"))
    assert COW in {each["name"] for each in json.loads(airflow("services", "list", "-o", "json"))}
    until(
        lambda: {each["status"] for each in json.loads(airflow("jobs", "list", COW, "-o", "json"))} == {"Succeeded"},
        240,
        "the job has ended",
    )
    assert "moo hello" in airflow("jobs", "logs", "--latest", COW)
    assert COW in airflow("buckets", "list")
    assert "v1" in airflow("cluster", "info")


#: No success, as 4.1.2 answers its administrator without Knative, volumes and Kueue, and for a service without secrets.
_ABSENT = ("run_service (sync)", "create_volume", "list_volumes", "get_volume", "delete_volume")
_QUOTAS = ("get_own_quota", "get_user_quota", "update_user_quota")
_MEMBERS = ("add_federation_members", "update_federation_members")
REFUSED = {**dict.fromkeys((*_ABSENT, *_QUOTAS), "404"), **dict.fromkeys(_MEMBERS, "500")}
#: Where the cluster has no metrics, and OSCAR is no pod whose log it could read.
REFUSED_OUTSIDE = {"get_cluster_status": "500", "get_system_logs": "404"}


@pytest.mark.timeout(600)
@pytest.mark.skipif(not CLIENT.exists(), reason="oscar-python 2.2.0 is not installed; make clients")
def test_every_method_of_oscar_python_is_answered(backend, hook, tmp_path):
    connection = hook.connection
    words = [CLIENT, PROGRAM, connection.host, connection.login, connection.password, tmp_path]
    words += [f"docker://{backend.image}", backend.node]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "moo hello" in found.pop("log")
    assert json.loads(found.pop("storage")) == ["in/", "in/cow.sh"]
    found.pop("answer")  # of the call that is not there
    refused = {name: status for name, status in found.items() if not status.startswith("2")}
    assert refused == REFUSED | (REFUSED_OUTSIDE if backend.name == "real" else {})
