# SPDX-License-Identifier: Apache-2.0
"""OSCAR's FaaS Supervisor itself, as the package index has it, over what this provider gives to it.

Every scenario also runs over the embedded platform's stand-in, so that the two cannot come to differ unnoticed.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from oscar_testbed import LocalPlatform
from oscar_testbed.fakes.oscar import faas
from oscar_testbed.fakes.s3 import LocalS3
from oscar_testbed.real import environments

from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.builder import JobBuilder
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.options import RunOptions
from airflow_provider_oscar.jobs.outcome import OutcomeState, evaluate
from airflow_provider_oscar.jobs.result_store import ResultStore
from airflow_provider_oscar.jobs.sealing import seal, with_key
from airflow_provider_oscar.jobs.signing import configured_signer
from airflow_provider_oscar.jobs.start_script import service_script
from airflow_provider_oscar.jobs.wrapping import wrapped
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from tests.support import nasty
from tests.support.http_store import running_store
from tests.support.supervised import SUBMISSION, job
from tests.system import backends, scenarios
from tests.system.scenarios import COPY

RESULTS = "s3://outgoing/results"
FAIL = ["python3", "-c", "import sys; print('no theta in file'); sys.exit(3)"]
HOSTILE_KEYS = [
    "in/a.h5",
    scenarios.HOSTILE_KEY,
    "in/sp  ace+%20%2F.h5",
    "in/'\"<>`$(touch x)\\n.h5",
    "in/日本😀\t\x01.h5",
    "in/*[a-z]?.h5",
    "in/-rf",
]


@dataclass(frozen=True)
class Ended:
    """What a run of a supervisor left."""

    code: int
    out: bytes
    err: bytes


@dataclass(frozen=True)
class Supervisor:
    """A supervisor program."""

    command: tuple[str, ...]
    directory: Path

    def run(
        self, event: str, script: str = "true", *, definition: str = "{}", decode: bool = False, **secrets: str
    ) -> Ended:
        """Start it as OSCAR does: the event unquoted through ``echo``, in base64 on a virtual node.

        :param definition: the service, as YAML.
        :param decode: as on a virtual node.
        :param secrets: variables from the service's Secret.
        """
        with self.start(event, script, definition=definition, decode=decode, **secrets) as process:
            out, err = process.communicate(timeout=120)
            return Ended(process.returncode, out, err)

    def start(
        self, event: str, script: str, *, definition: str = "{}", decode: bool = False, **secrets: str
    ) -> subprocess.Popen[bytes]:
        """The same without waiting for its end."""
        pipe = "echo $EVENT | base64 -d |" if decode else "echo $EVENT |"
        return subprocess.Popen(
            ["/bin/sh", "-c", f"{pipe} {shlex.join(self.command)}"],
            cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "EVENT": event,
                "SCRIPT": base64.b64encode(script.encode()).decode(),
                "FUNCTION_CONFIG": base64.b64encode(definition.encode()).decode(),
                # Neither may look for credentials on the machine.
                "HOME": str(self.directory), "AWS_EC2_METADATA_DISABLED": "true", **secrets,
            },
        )  # fmt: skip


@pytest.fixture(scope="module")
def upstream() -> Path:
    """Interpreter that has the real one."""
    return environments.faas_supervisor()


@pytest.fixture(params=["real", "embedded"])
def running(request: pytest.FixtureRequest) -> str:
    """Which supervisor runs."""
    return str(request.param)


@pytest.fixture
def supervisor(running: str, request: pytest.FixtureRequest, tmp_path: Path) -> Supervisor:
    if running == "embedded":
        return Supervisor((sys.executable, "-I", faas.__file__), tmp_path)
    python: Path = request.getfixturevalue("upstream")
    return Supervisor((str(python), "-m", "faassupervisor.supervisor"), tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    store = LocalS3(tmp_path_factory.mktemp("s3"), mode="seaweedfs")
    store.start()
    for bucket in ("incoming", "outgoing"):
        store.create_bucket(bucket)
    yield store
    store.stop()


@pytest.fixture
def s3(store: LocalS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[OscarS3Hook]:
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_S3_DEFAULT", json.dumps(store.connection()))
    hook = OscarS3Hook()
    yield hook
    hook.close()


@pytest.fixture
def run_job(supervisor: Supervisor, s3: OscarS3Hook) -> Callable[..., tuple[Ended, Manifest | None]]:
    """Runs a command on an object the way a job operator has it done; returns what ended, and the manifest."""
    hook = JobBuilder()

    def run(
        command: list[str], key: str = "in/a.h5", *, mode: str = "inline", environment: Mapping[str, str] | None = None
    ) -> tuple[Ended, Manifest | None]:
        s3.put_bytes("incoming", key, key.encode())
        name = f"job-{datetime.now(UTC).timestamp():.6f}".replace(".", "-")
        job = hook.build(
            submission_id=name,
            event=s3.head("incoming", key),
            command=command,
            output_conn_id="oscar_s3_default",
            output_uri=RESULTS,
            options=RunOptions(mode=mode),
            environment=environment,
        )
        if mode == "faas-supervisor":
            secret = job.secret
            definition = secret["function_config.yaml"]
            ended = supervisor.run(job.env["EVENT"], secret["script.sh"], definition=definition, decode=True)
        else:
            body = job.body(lambda document: seal(document, bytes(32), "ABCDEF01")).decode()
            ended = supervisor.run(body, service_script(), OSCAR_SUPERVISOR_KEY_ABCDEF01=bytes(32).hex())
        return ended, ResultStore().read_manifest("oscar_s3_default", RESULTS, name)

    return run


@pytest.mark.parametrize("mode", ["inline", "faas-supervisor"])
@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_object_is_staged_in_and_out_and_the_manifest_written(run_job, s3, key, mode):
    ended, manifest = run_job(COPY, key, mode=mode)
    assert (ended.code, manifest is not None) == (0, True), ended.err.decode()
    assert (manifest.succeeded, manifest.input.uri) == (True, s3.head("incoming", key).uri)
    found = [
        event.key for page in s3.list_pages("outgoing", f"results/{manifest.submission_id}/") for event in page.events
    ]
    (output,) = [name for name in found if not name.endswith("/manifest.json")]
    assert s3.read_bytes(f"s3://outgoing/{quote(output)}", 1000) == key.encode()
    assert Manifest.from_marker(ended.out.decode(), manifest.submission_id) is not None


@pytest.mark.parametrize("mode", ["inline", "faas-supervisor"])
def test_every_value_arrives_byte_for_byte(run_job, s3, mode):
    ended, manifest = run_job(nasty.COMMAND, mode=mode, environment=nasty.ENVIRONMENT)
    assert manifest.succeeded, ended.err.decode()
    assert s3.read_bytes(f"{RESULTS}/{manifest.submission_id}/got", 100_000) == nasty.EXPECTED


@pytest.mark.parametrize("mode", ["inline", "faas-supervisor"])
def test_supervisor_calls_a_failed_command_a_success_and_the_manifest_does_not(run_job, mode):
    ended, manifest = run_job(FAIL, mode=mode)
    assert ended.code == 0
    assert (manifest.succeeded, manifest.exit_code) == (False, 3)
    minute = timedelta(minutes=1)
    decided = evaluate(manifest.submission_id, manifest, JobPhase.SUCCEEDED, age=minute, grace=minute)
    assert (decided.state, "exit code 3" in decided.reason) == (OutcomeState.FAILED, True)


def test_lines_of_a_job_appear_while_it_runs(supervisor, tmp_path):
    with running_store() as store:
        wait = f'echo first; while [ ! -e "{tmp_path}/go-on" ]; do sleep 0.05; done; echo last'
        spec = job(store, ["/bin/sh", "-c", wait])
        with supervisor.start(
            base64.b64encode(json.dumps(spec).encode()).decode(), service_script(), JOB_UUID=SUBMISSION
        ) as process:
            assert process.stdout.readline() == b"first\n"
            assert process.poll() is None
            (tmp_path / "go-on").touch()
            rest, _ = process.communicate(timeout=60)
    assert Manifest.from_marker(rest.decode(), SUBMISSION).succeeded
    assert (b"first" in rest, rest.count(b"last")) == (False, 1)


@pytest.mark.parametrize("code", [0, 3])
def test_exit_code_of_a_wrapped_script_is_told(supervisor, code):
    script = f'echo out; cat "$INPUT_FILE_PATH"; printf hello > "$TMP_OUTPUT_DIR/a"; exit {code}\n'
    service = wrapped(ServiceDefinition(name="svc", image="i", script=script))
    ended = supervisor.run(base64.b64encode(b"in").decode(), service.script, JOB_UUID=SUBMISSION)
    assert (ended.code, ended.out.startswith(b"out\nin")) == (0, True)
    found = Manifest.from_marker(ended.out.decode(), SUBMISSION)
    assert (found.exit_code, [each.key for each in found.outputs]) == (code, ["a"])


def test_exit_code_of_a_script_is_lost(supervisor):
    ended = supervisor.run("{}", "echo out; exit 3")
    assert (ended.code, ended.out.strip()) == (0, b"out")


def test_base64_body_becomes_the_input_file(supervisor):
    body = b'{"job": "\xc3\xa4 $(id) `x` \\n"}'
    ended = supervisor.run(base64.b64encode(body).decode(), 'cat "$INPUT_FILE_PATH"')
    assert (ended.code, ended.out.rstrip(b"\n")) == (0, body)


def test_text_that_is_neither_json_nor_base64_fails(supervisor):
    assert supervisor.run("hello, world!").code == 1


def test_missing_credentials_hand_over_the_event_itself(supervisor):
    record = {
        "eventSource": "minio:s3",
        "eventTime": "2026-01-02T03:04:05Z",
        "s3": {"bucket": {"name": "in", "arn": "arn:aws:s3:::in"}, "object": {"key": "a.txt"}},
    }
    event = {"Key": "in/a.txt", "Records": [record]}
    definition = yaml.safe_dump({"output": [{"storage_provider": "minio.default", "path": "out"}]})
    script = 'cat "$INPUT_FILE_PATH"; touch "$TMP_OUTPUT_DIR/x"'
    ended = supervisor.run(json.dumps(event, separators=(",", ":")), script, definition=definition)
    assert (ended.code, json.loads(ended.out)) == (0, event)
    assert b"Found 'LOCAL' input provider" in ended.err


def test_answer_to_an_unknown_event_is_the_output_in_base64(supervisor):
    one = supervisor.run("{}", 'printf 1 > "$TMP_OUTPUT_DIR/a"')
    assert base64.b64decode(one.out) == b"1"
    two = supervisor.run("{}", 'cd "$TMP_OUTPUT_DIR"; printf 1 > a; mkdir d; printf 2 > d/b')
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(two.out))) as archive:
        assert sorted(archive.namelist()) == ["a", "d/b"]


_WRAPPER = """#!/bin/sh
# In a process container /oscar is elsewhere, where the program would not look; it takes both files as variables.
FUNCTION_CONFIG="$(base64 -w0 "$CONTAINER_SANDBOX_MOUNT_POINT/oscar/config/function_config.yaml")"
SCRIPT="$(base64 -w0 "$CONTAINER_SANDBOX_MOUNT_POINT/oscar/config/script.sh")"
export FUNCTION_CONFIG SCRIPT
exec {program} -m faassupervisor.supervisor
"""


@pytest.fixture(scope="module")
def oscar_with_upstream(upstream: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    """The embedded OSCAR, whose jobs run the real supervisor."""
    with LocalPlatform(tmp_path_factory.mktemp("platform"), images=backends.images()) as platform:
        platform.oscar.registry.supervisor.write_text(_WRAPPER.format(program=shlex.quote(str(upstream))))
        platform.s3.create_bucket("outgoing")
        yield platform


@pytest.fixture
def service(oscar_with_upstream: LocalPlatform, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in oscar_with_upstream.environment().items():
        monkeypatch.setenv(name, value)
    script = service_script()
    hook = OscarHook()
    definition = ServiceDefinition(name="words", image=backends.IMAGE, script=script)
    hook.run(hook.apply_service(with_key(definition, configured_signer())))
    return "words"


def task(service: str, command: list[str]) -> OscarJobOperator:
    return OscarJobOperator(
        task_id="run", service=service, command=command, output_uri=RESULTS,
        timeout=120, poll_interval=0.5, deferrable=False,
    )  # fmt: skip


def test_task_succeeds_through_the_real_supervisor(request, service):
    found = task(service, ["true"]).execute(scenarios.make_context(request))
    assert found["exit_code"] == 0


def test_task_fails_although_oscar_calls_the_job_succeeded(request, service):
    state = scenarios.make_context(request)
    failing = task(service, FAIL)
    failure = scenarios.raised_failure(failing, state)
    scenarios.says(failure, "exit code 3", "no theta in file")
    assert failing.backend.status(state["ti"].xcoms["job_id"]).phase is JobPhase.SUCCEEDED
