# SPDX-License-Identifier: Apache-2.0
"""What a job of an OSCAR service prints appears as it prints it, though OSCAR's supervisor keeps it to the end."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time

import pytest
from oscar_testbed.fakes.oscar import faas

from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.start_script import service_script
from tests.support.http_store import running_store
from tests.support.supervised import SUBMISSION, job

WAIT = 'echo first; while [ ! -e "$GO_ON" ]; do sleep 0.05; done; echo last'


@pytest.fixture
def store():
    with running_store() as server:
        yield server


def start(store, folder, stdout, spec=None):
    """Start OSCAR's supervisor with a job of ours, by default one whose command waits for a file."""
    spec = spec or job(store, ["/bin/sh", "-c", WAIT], environment={"GO_ON": str(folder / "go-on")})
    return subprocess.Popen(
        ["/bin/sh", "-c", f"echo $EVENT | {sys.executable} -I {faas.__file__}"],
        env={
            "PATH": os.environ["PATH"],
            "EVENT": base64.b64encode(json.dumps(spec).encode()).decode(),
            "SCRIPT": base64.b64encode(service_script().encode()).decode(),
            "JOB_UUID": SUBMISSION,
        },
        stdout=stdout,
        stderr=subprocess.DEVNULL,
    )


def go_on(folder):
    (folder / "go-on").touch()


def test_lines_appear_in_a_pipe_while_the_command_runs(store, tmp_path):
    with start(store, tmp_path, subprocess.PIPE) as process:
        assert process.stdout.readline() == b"first\n"
        assert process.poll() is None
        go_on(tmp_path)
        rest = process.stdout.read().decode()
    assert process.returncode == 0
    assert Manifest.from_marker(rest, SUBMISSION).succeeded
    assert rest.count("last") == 1
    assert "first" not in rest, "no line is shown twice"


def test_what_the_command_leaves_behind_does_not_keep_the_job_alive(store, tmp_path):
    spec = job(store, ["/bin/sh", "-c", f"setsid sh -c 'sleep 300; touch {tmp_path}/late' & echo first"])
    with start(store, tmp_path, subprocess.PIPE, spec=spec) as process:
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert not (tmp_path / "late").exists()


def test_lines_appear_in_a_log_file_that_is_appended_to(store, tmp_path):
    path = tmp_path / "job.log"
    with path.open("ab") as log:
        process = start(store, tmp_path, log.fileno())
    deadline = time.monotonic() + 120
    while b"first" not in path.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, "it was shown before the command could end"
    go_on(tmp_path)
    assert process.wait(120) == 0
    assert Manifest.from_marker(path.read_text(), SUBMISSION).succeeded
    assert path.read_text().count("first") == 1


def test_a_file_that_would_be_written_over_is_left_alone_and_nothing_is_lost(store, tmp_path):
    path = tmp_path / "job.log"
    go_on(tmp_path)
    with path.open("wb") as log:
        process = start(store, tmp_path, log.fileno())
    assert process.wait(60) == 0
    text = path.read_text()
    assert Manifest.from_marker(text, SUBMISSION).succeeded
    assert [line for line in text.splitlines() if line in ("first", "last")] == ["first", "last"]
