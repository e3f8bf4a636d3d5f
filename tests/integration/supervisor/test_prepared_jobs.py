# SPDX-License-Identifier: Apache-2.0
"""What the builder makes is run: the pod's command, the service's script, the FaaS Supervisor's script."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_oscar.jobs.builder import WORK_PATH, JobBuilder
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.options import RunOptions
from airflow_provider_oscar.jobs.sealing import seal
from airflow_provider_oscar.jobs.start_script import PROGRAM_FILE, service_script
from tests.support import nasty
from tests.support.built_jobs import CONNECTIONS, JOB, FakeStore, build
from tests.support.http_store import running_store


@pytest.fixture
def server():
    with running_store() as store:
        yield store


@pytest.fixture
def hook(server):
    return JobBuilder(stores=lambda target, conn_id="": FakeStore(server))


@pytest.fixture
def connections(monkeypatch):
    for name, fields in CONNECTIONS.items():
        monkeypatch.setenv(name, fields)


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
