# SPDX-License-Identifier: Apache-2.0
"""What the hook builds is run for real: the pod's command, the service's script, the FaaS Supervisor's script."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import yaml

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.pods import PodRequest, build_pod
from airflow_provider_oscar.core.staging import StageIn, StageOutS3Post
from airflow_provider_oscar.jobs.builder import JOB_FILE, WORK_PATH, JobBuilder
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.options import Attachments, Binding, ObjectWork, RunOptions
from airflow_provider_oscar.jobs.prepared import JOB_BODY_LIMIT
from airflow_provider_oscar.jobs.result_store import ResultStore
from airflow_provider_oscar.jobs.sealing import seal
from airflow_provider_oscar.jobs.spec import JobSpec
from airflow_provider_oscar.jobs.start_script import PROGRAM_FILE, encoded_program, service_script
from tests.support import nasty
from tests.support.fakes import EVENT
from tests.support.http_store import Store, running_store

JOB = "t-0123456789abcdef"
CASES = Path(__file__).parents[1] / "manifest_cases"
GOOD = (CASES / "success.json").read_text()
MOMENT = datetime(2026, 11, 22, 9, tzinfo=UTC)


class FakeStore:
    """A store that hands out URLs of the HTTP server and remembers what it was asked."""

    def __init__(self, server: Store | None = None) -> None:
        self.server = server
        self.asked: list[tuple] = []
        self.files: dict[str, bytes] = {}

    def stage_in(self, event, *, lifetime):
        self.asked.append(("stage_in", event.uri, lifetime))
        self.server.objects["/in/x"] = b"data"
        return StageIn(
            uri=event.uri, name="x.h5", size=4, etag="", checksum=None, url=f"{self.server.url}/in/x?sig=secret"
        )

    def stage_out(self, uri, *, submission_id, lifetime, max_bytes=None):
        self.asked.append(("stage_out", uri, submission_id, lifetime, max_bytes))
        url = f"{self.server.url}/out" if self.server else "http://store/out"
        prefix = f"p/{submission_id}/"
        return StageOutS3Post(uri=f"{uri.rstrip('/')}/{submission_id}/", url=url, fields={"k": "secret"}, prefix=prefix)

    def reading(self, container, key, *, lifetime):
        return f"{self.server.url if self.server else 'http://store'}/{container}/{key}?sig=secret", {}

    def put_bytes(self, container, key, data):
        self.files[f"s3://{container}/{key}"] = data

    def delete(self, container, key):
        self.files.pop(f"s3://{container}/{key}", None)

    def read_bytes(self, uri, limit):
        self.asked.append(("read_bytes", uri, limit))
        return self.files.get(uri)


@pytest.fixture
def server():
    with running_store() as store:
        yield store


@pytest.fixture
def store(server):
    return FakeStore(server)


@pytest.fixture
def hook(store):
    return JobBuilder(stores=lambda target, conn_id="": store)


def event(source=StoreType.S3, conn_id="in", container="inbox", key="a b.h5"):
    return ObjectEvent(source, conn_id, container, key, 4, "e", "", MOMENT)


def build(hook, command=("/bin/sh", "-c", 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/copy"; exit 0'), **changes):
    known = {
        "submission_id": JOB,
        "event": event(),
        "command": list(command),
        "output_conn_id": "out",
        "output_uri": "s3://out/p",
    }
    mode = changes.pop("mode", None)
    if mode is not None:
        changes["options"] = RunOptions(mode=mode)
    return hook.build(**{**known, **changes})


def run(command, tmp_path, **env):
    (tmp_path / "tmp").mkdir(exist_ok=True)
    variables = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "tmp"), **env}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)


def test_pod_pieces_run_the_job(hook, server, tmp_path):
    """The embedded platform's way: mounts appear below CONTAINER_SANDBOX_MOUNT_POINT."""
    job = build(hook)
    mount = tmp_path / job.secret_mount_path.lstrip("/")
    mount.mkdir(parents=True)
    for name, content in job.secret.items():
        (mount / name).write_text(content)
    (tmp_path / WORK_PATH.lstrip("/")).mkdir()
    done = run([*job.command, *job.args], tmp_path, **job.env, CONTAINER_SANDBOX_MOUNT_POINT=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert server.objects[f"/out/p/{JOB}/copy"] == b"data"
    assert Manifest.from_marker(done.stdout, JOB).succeeded


def test_pod_holds_no_secret_outside_its_secret(hook):
    job = build(hook, environment={"TOKEN": "hush"})
    request = PodRequest(
        name=JOB, namespace="default", image="docker://x", node="vk", secret_name=JOB,
        **{name: getattr(job, name) for name in ("command", "args", "env", "empty_dirs", "secret_mount_path")},
        init_containers=job.init_containers,
    )  # fmt: skip
    text = json.dumps(build_pod(request))
    assert len(text) < 4_000, "each list of pods carries it"
    assert "secret" not in text.replace('"secret": {"secretName"', "").replace("/var/run/secrets", "")
    assert "hush" not in text + repr(job)
    assert "hush" in job.secret[JOB_FILE]


def test_specification_says_what_was_asked_for(hook, store):
    before = datetime.now(UTC)
    job = build(
        hook, placement="hpc-gpu", timeout=timedelta(minutes=2), lifetime=timedelta(hours=3),
        options=RunOptions(max_output_bytes=5),
        environment={"A": "b"},
    )  # fmt: skip
    spec = msgspec.convert(json.loads(job.secret[JOB_FILE]), JobSpec)
    assert spec == job.spec
    assert (spec.placement, spec.timeout, spec.max_output_bytes, spec.environment) == (
        "hpc-gpu",
        120,
        5,
        {"A": "b"},
    )
    assert before <= spec.submitted_at <= datetime.now(UTC)
    assert job.output_uri == f"s3://out/p/{JOB}/"
    assert store.asked == [
        ("stage_in", "s3://inbox/a%20b.h5", timedelta(hours=3)),
        ("stage_out", "s3://out/p", JOB, timedelta(hours=3), 5),
    ]


def test_job_without_an_object_stages_nothing_in(hook):
    assert build(hook, event=None).spec.input is None


def test_program_fits_one_variable():
    assert len("OSCAR_SUPERVISOR=") + len(encoded_program()) < 128 * 1024


def test_image_without_python_is_told_so(hook, tmp_path):
    job = build(hook)
    # This machine may have one at a well-known place; an image without Python has not.
    launcher = job.args[0].replace("/bin/python3", "/no/such/python3")
    done = subprocess.run([*job.command, launcher], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 127
    assert "no python3 (3.8 or later) in the image" in done.stderr


def test_pod_of_an_image_without_python_brings_one_along(hook, server, tmp_path):
    job = build(hook, options=RunOptions(supervisor_image="site/python-standalone:3.12"))
    # What the other image has: an interpreter that tells that it was used.
    brought = tmp_path / "other image" / "bin" / "python3"
    brought.parent.mkdir(parents=True)
    brought.write_text(f'#!/bin/sh\ntouch "{tmp_path}/used"\nexec "{sys.executable}" "$@"\n')
    brought.chmod(0o755)
    for path in job.empty_dirs.values():
        (tmp_path / path.lstrip("/")).mkdir()
    [init] = job.init_containers
    assert init.image == "site/python-standalone:3.12"
    root = {"CONTAINER_SANDBOX_MOUNT_POINT": str(tmp_path)}
    done = run([*init.command, *init.args], tmp_path, **root, AIRFLOW_OSCAR_PYTHON=str(brought.parents[1]))
    assert done.returncode == 0, done.stderr
    mount = tmp_path / job.secret_mount_path.lstrip("/")
    mount.mkdir(parents=True)
    for name, content in job.secret.items():
        (mount / name).write_text(content)
    # This machine may have a Python at a well-known place; an image without one has not.
    args = [each.replace(" /usr/", " /no/such/").replace("python3 python ", "no-python ") for each in job.args]
    done = run([*job.command, *args], tmp_path, **job.env, **root)
    assert done.returncode == 0, done.stderr
    assert server.objects[f"/out/p/{JOB}/copy"] == b"data"
    assert (tmp_path / "used").exists()


def test_launcher_passes_over_an_interpreter_that_is_too_old(hook, tmp_path):
    old = tmp_path / "bin" / "python3"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    (old.parent / "python").symlink_to(Path(os.path.realpath("/proc/self/exe")))
    job = build(hook)
    mount = tmp_path / job.secret_mount_path.lstrip("/")
    mount.mkdir(parents=True)
    (mount / PROGRAM_FILE).write_text(job.secret[PROGRAM_FILE])
    environment = {**job.env, "PATH": str(old.parent), "CONTAINER_SANDBOX_MOUNT_POINT": str(tmp_path)}
    done = subprocess.run([*job.command, *job.args], env=environment, capture_output=True, text=True)
    assert done.returncode == 78
    assert "job.json' cannot be read" in done.stderr


def test_service_script_runs_the_body_oscar_decoded(hook, server, tmp_path):
    """OSCAR's supervisor writes the decoded body into INPUT_FILE_PATH and runs /bin/sh script.sh."""
    job = build(hook)
    script, body = tmp_path / "script.sh", tmp_path / "event-file-1"
    script.write_text(service_script())
    key = bytes(range(32))
    data = job.body(lambda document: seal(document, key, "0123ABCD"))
    body.write_bytes(base64.b64decode(data))
    outer = tmp_path / "outer output"
    outer.mkdir()
    done = run(
        ["/bin/sh", str(script)],
        tmp_path,
        INPUT_FILE_PATH=str(body),
        TMP_OUTPUT_DIR=str(outer),
        EVENT=data.decode(),
        OSCAR_SUPERVISOR_KEY_0123ABCD=key.hex(),
    )
    assert done.returncode == 0, done.stderr
    assert server.objects[f"/out/p/{JOB}/copy"] == b"data"
    assert list(outer.iterdir()) == []
    assert Manifest.from_marker(done.stdout + done.stderr, JOB).succeeded


def test_body_that_fits_no_event_is_refused(hook):
    job = build(hook, environment={"A": "x" * JOB_BODY_LIMIT})
    with pytest.raises(DefinitionError, match=f"OSCAR can pass {JOB_BODY_LIMIT}"):
        job.body(None)


def test_specification_that_fits_no_secret_is_refused(hook):
    with pytest.raises(DefinitionError, match="a Secret has room for"):
        build(hook, environment={f"A{number}": "x" * 100_000 for number in range(10)})


def test_unknown_mode_is_refused(hook):
    with pytest.raises(DefinitionError, match="mode is 'sidecar'; expected one of 'inline', 'faas-supervisor'"):
        build(hook, mode="sidecar")


@pytest.fixture
def results(store):
    return ResultStore(stores=lambda target, conn_id="": store)


def test_manifest_is_read_from_below_the_output_prefix(results, store):
    uri = f"s3://out/p/{JOB}/manifest.json"
    assert results.read_manifest("out", "s3://out/p/", JOB) is None
    store.files[uri] = json.dumps(json.loads(GOOD)["manifest"]).encode()
    assert results.read_manifest("out", "s3://out/p/", JOB).succeeded
    assert {asked[1] for asked in store.asked} == {uri}


@pytest.mark.parametrize(
    "data",
    [b"", b'{"version": "1.0", "subm', json.dumps({**json.loads(GOOD)["manifest"], "submission_id": "other"}).encode()],
    ids=["empty", "half written", "another job's"],
)
def test_what_is_no_manifest_of_the_job_counts_as_none(results, store, data, caplog):
    store.files[f"s3://out/p/{JOB}/manifest.json"] = data
    assert results.read_manifest("out", "s3://out/p", JOB) is None
    assert "passed over" in caplog.text


@pytest.mark.parametrize("data", [b"<html>sign in</html>", b'\n<?xml version="1.0"?>\n<!DOCTYPE html><html/>'])
def test_a_page_in_place_of_the_manifest_means_that_the_store_is_away(results, store, data):
    store.files[f"s3://out/p/{JOB}/manifest.json"] = data
    with pytest.raises(TransientError, match="web page answered in place of"):
        results.read_manifest("out", "s3://out/p", JOB)


def test_manifest_of_a_newer_major_version_is_refused(results, store):
    store.files[f"s3://out/p/{JOB}/manifest.json"] = b'{"version": "2.0"}'
    with pytest.raises(PermanentError, match="upgrade airflow-provider-oscar"):
        results.read_manifest("out", "s3://out/p", JOB)


@pytest.fixture
def connections(monkeypatch):
    s3 = {"conn_type": "oscar_s3", "login": "AK", "password": "hush", "extra": {"endpoint_url": "http://minio:9000"}}
    dcache = {"conn_type": "dcache", "host": "https://door:2880", "login": "u", "password": "hush"}
    for name, fields in {"IN": s3, "OUT": s3, "DOOR": dcache, "PLAIN": {**dcache, "host": "http://door"}}.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(fields))


def test_faas_supervisor_has_the_shape_oscar_gives_it(hook, connections):
    job = build(hook, mode="faas-supervisor")
    [init] = job.init_containers
    assert asdict(init) == {
        "name": "supervisor-container",
        "image": "ghcr.io/grycap/faas-supervisor-kit:1.6.2",
        "command": ("/bin/sh", "-c"),
        "args": ("cp -r /supervisor/* /data",),
    }
    assert (job.command, job.args) == (("/bin/sh", "-c"), ("echo $EVENT | base64 -d | /data/supervisor",))
    assert (job.empty_dirs, job.secret_mount_path) == ({"supervisor-share-data": "/data"}, "/oscar/config")


def test_faas_supervisor_keeps_credentials_in_the_secret(hook, connections):
    job = build(hook, mode="faas-supervisor")
    assert "hush" not in repr(job) + json.dumps(dict(job.env)) + job.spec.to_json()
    definition = yaml.safe_load(job.secret["function_config.yaml"])
    assert definition["storage_providers"]["minio"]["input"]["secret_key"] == "hush"
    assert definition["output"] == [{"storage_provider": "minio.output", "path": f"out/p/{JOB}"}]


def test_faas_supervisor_names_its_provider_by_the_bare_id(hook, connections):
    message = json.loads(base64.b64decode(build(hook, mode="faas-supervisor").env["EVENT"]))
    assert message["storage_provider"] == "input"
    assert json.loads(message["event"])["Records"][0]["s3"]["object"]["key"] == "a+b.h5"


def test_faas_supervisor_for_dcache_uses_the_one_provider_id_upstream_knows(hook, connections):
    found = event(StoreType.DCACHE, "door", "/data/in", "x.h5")
    job = build(hook, mode="faas-supervisor", event=found, output_conn_id="door", output_uri="dcache://door/data/out")
    definition = yaml.safe_load(job.secret["function_config.yaml"])
    assert definition["input"] == [{"storage_provider": "webdav.dcache", "path": "/data/in"}]
    assert definition["storage_providers"]["webdav"]["dcache"]["hostname"] == "door:2880"
    assert definition["output"] == [{"storage_provider": "webdav.output", "path": f"/data/out/{JOB}"}]
    assert json.loads(base64.b64decode(job.env["EVENT"]))["event"]["name"] == "x.h5"


def test_faas_supervisor_refuses_a_door_upstream_cannot_reach(hook, connections):
    with pytest.raises(
        DefinitionError, match="connection 'plain' cannot serve mode='faas-supervisor'.* use mode='inline'"
    ):
        build(hook, mode="faas-supervisor", event=None, output_conn_id="plain", output_uri="dcache://plain/data/out")


@pytest.mark.parametrize("code", [0, 3])
def test_faas_supervisor_script_tells_the_exit_code_upstream_drops(hook, connections, tmp_path, code):
    job = build(
        hook, ["/bin/sh", "-c", f'printf "%s" "$A" > "$TMP_OUTPUT_DIR/a"; exit {code}'], mode="faas-supervisor",
        environment={"A": "it's 100% \\n"}, placement="caf\u00e9 %s",
    )  # fmt: skip
    script, output = tmp_path / "script.sh", tmp_path / "output"
    script.write_text(job.secret["script.sh"])
    output.mkdir()
    done = run(["/bin/sh", str(script)], tmp_path, TMP_OUTPUT_DIR=str(output))
    assert done.returncode == code, done.stderr
    assert (output / "a").read_text() == "it's 100% \\n"
    manifest = Manifest.from_marker(done.stdout, JOB)
    assert manifest == Manifest.from_json((output / "manifest.json").read_text())
    assert (manifest.exit_code, manifest.placement) == (code, "caf\u00e9 %s")
    assert manifest.submitted_at == job.spec.submitted_at
    assert manifest.phases["run"].duration >= timedelta(0)


@pytest.mark.parametrize("mode", ["inline", "faas-supervisor", "service"])
def test_every_value_arrives_byte_for_byte(hook, connections, server, tmp_path, mode):
    chosen = mode if mode == "faas-supervisor" else None
    job = build(hook, nasty.COMMAND, environment=nasty.ENVIRONMENT, mode=chosen)
    output = tmp_path / "output"
    output.mkdir()
    if mode == "faas-supervisor":
        script = job.secret["script.sh"]
        assert script.isascii()
        (tmp_path / "script.sh").write_text(script)
        done = run(["/bin/sh", str(tmp_path / "script.sh")], tmp_path, TMP_OUTPUT_DIR=str(output))
        assert (output / "got").read_bytes() == nasty.EXPECTED, done.stderr
        return
    if mode == "service":
        (tmp_path / "script.sh").write_text(service_script())
        (tmp_path / "event").write_bytes(base64.b64decode(job.body(None)))
        done = run(["/bin/sh", str(tmp_path / "script.sh")], tmp_path, INPUT_FILE_PATH=str(tmp_path / "event"))
    else:
        mount = tmp_path / job.secret_mount_path.lstrip("/")
        mount.mkdir(parents=True)
        for name, content in job.secret.items():
            assert content.isascii()
            (mount / name).write_text(content)
        done = run([*job.command, *job.args], tmp_path, **job.env, CONTAINER_SANDBOX_MOUNT_POINT=str(tmp_path))
    assert server.objects[f"/out/p/{JOB}/got"] == nasty.EXPECTED, done.stderr


def test_faas_supervisor_refuses_a_variable_no_shell_exports(hook, connections):
    with pytest.raises(DefinitionError, match="cannot export the variable 'A-B'"):
        build(hook, mode="faas-supervisor", environment={"A-B": "x"})


def test_the_client_of_a_store_is_made_once_for_a_whole_batch():
    made = []

    class Store:
        def stage_in(self, event, *, lifetime):
            return StageIn(event.uri, "n", 1, "e", None, "https://s3/x", {}, {})

        def stage_out(self, uri, *, submission_id, lifetime, max_bytes=None):
            prefix = f"{submission_id}/"
            return StageOutS3Post(uri=f"{uri}/{prefix}", url="https://s3", fields={}, prefix=prefix)

    def stores(*about):
        made.append(about)
        return Store()

    events = [ObjectEvent.from_dict({**EVENT, "key": str(number)}) for number in range(50)]
    works = [ObjectWork(event=event, submission_id=f"o-{event.key}", binding=Binding()) for event in events]
    job = JobBuilder(stores=stores).build(
        submission_id="batch",
        event=None,
        command=["true"],
        output_conn_id="c",
        output_uri="s3://out/results",
        attachments=Attachments(objects=works, parallel=4),
    )
    spec = msgspec.to_builtins(job.spec)
    assert (len(spec["objects"]), spec["parallel"]) == (50, 4)
    assert len({each["output"]["prefix"] for each in spec["objects"]}) == 50
    assert len(made) <= 3
