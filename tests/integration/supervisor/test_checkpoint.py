# SPDX-License-Identifier: Apache-2.0
"""Signals that announce the end reach the command, and what it saves is there for the next try."""

from __future__ import annotations

import json
import signal
import threading
import time

import pytest

from tests.integration.supervisor.test_command import signalled
from tests.support.supervised import SUBMISSION, job, source, start

BASE = f"/out/results/{SUBMISSION}/"


def saving(ready, exit_code, name="USR1"):
    return [
        "/bin/sh",
        "-c",
        f"trap 'echo state > \"$CHECKPOINT_DIR/state\"; exit {exit_code}' {name}; touch {ready}; "
        "while :; do sleep 0.05; done",
    ]


def test_command_that_saves_its_state_and_ends_is_interrupted_not_failed(store, tmp_path):
    ready = tmp_path / "ready"
    run = signalled(tmp_path, job(store, saving(ready, 75)), ready, signal.SIGUSR1)
    manifest = json.loads(store.objects[BASE + "manifest.json"])
    assert run.code == manifest["exit_code"] == 75
    assert manifest["interrupted"] == "SIGUSR1"
    assert (manifest["error"]["reason"], manifest["error"]["permanent"]) == ("interrupted", False)
    assert [each["key"] for each in manifest["checkpoint"]] == ["checkpoint/state"]
    assert store.objects[BASE + "checkpoint/state"] == b"state\n"


def test_command_that_did_not_expect_the_signal_is_interrupted_too(store, tmp_path):
    ready = tmp_path / "ready"
    spec = job(store, ["/bin/sh", "-c", f'printf x > "$TMP_OUTPUT_DIR/x"; touch {ready}; exec sleep 300'])
    run = signalled(tmp_path, spec, ready, signal.SIGUSR1)
    assert (run.code, run.error["reason"]) == (128 + signal.SIGUSR1, "interrupted")
    assert store.objects[BASE + "x"] == b"x"


def test_command_that_finishes_in_spite_of_the_signal_has_succeeded(store, tmp_path):
    ready = tmp_path / "ready"
    run = signalled(tmp_path, job(store, saving(ready, 0)), ready, signal.SIGUSR1)
    assert (run.code, run.raw["error"]) == (0, None)
    assert "interrupted" not in run.raw
    assert "checkpoint" not in run.raw


def test_next_try_finds_the_state_of_the_one_before(store, supervise):
    store.objects["/in/state"] = b"state of before"
    state = {
        **source(store),
        "uri": "s3://out/state",
        "name": "deep/state",
        "size": None,
        "url": f"{store.url}/in/state",
    }
    spec = job(store, ["/bin/sh", "-c", 'cat "$CHECKPOINT_DIR/deep/state"'], resume_from=[state])
    run = supervise(spec)
    assert run.code == 0, run.err
    assert run.out.startswith("state of before")


@pytest.mark.parametrize("name", ["step 1.pt", "deep/.hidden", "-x", "ü/a b", "a\nb", "x" * 255])
def test_files_of_a_checkpoint_keep_their_names(store, supervise, name):
    store.objects["/in/state"] = b"saved"
    state = {**source(store), "uri": "s3://out/state", "name": name, "size": None, "url": f"{store.url}/in/state"}
    run = supervise(job(store, ["/bin/sh", "-c", 'cat "$CHECKPOINT_DIR/$0"', name], resume_from=[state]))
    assert (run.code, run.out.startswith("saved")) == (0, True), run.err


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", "a/./b", "", "a/", "a\0b"])
def test_a_file_of_a_checkpoint_that_would_leave_its_directory_is_refused(store, supervise, name):
    state = {**source(store), "uri": "s3://out/state", "name": name, "size": None}
    assert supervise(job(store, ["true"], resume_from=[state])).code == 78


def test_state_is_kept_when_the_command_fails_or_is_cancelled(store, tmp_path):
    ready = tmp_path / "ready"
    run = signalled(tmp_path, job(store, saving(ready, 0, "TERM")), ready, signal.SIGTERM)
    assert (run.code, run.error["reason"], run.raw["interrupted"]) == (143, "cancelled", "SIGTERM")
    assert store.objects[BASE + "checkpoint/state"] == b"state\n"


def test_grace_period_of_the_job_is_kept(store, tmp_path):
    ready = tmp_path / "ready"
    script = f"trap 'sleep 0.8; echo saved; exit 0' TERM; touch {ready}; while :; do sleep 0.05; done"
    spec = job(store, ["/bin/sh", "-c", script], grace_period=20)
    run = signalled(tmp_path, spec, ready, signal.SIGTERM)  # the pod's setting is 0.3 s
    assert run.code == 143
    assert "saved" in run.out


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGHUP"])
def test_signal_reaches_the_whole_process_group(store, tmp_path, name):
    ready = tmp_path / "ready"
    child = f"trap 'echo child got it; exit 75' {name[3:]}; touch {ready}; while :; do sleep 0.05; done"
    spec = job(store, ["/bin/sh", "-c", f'trap : {name[3:]}; sh -c "{child}" & wait; wait; exit 75'])
    process = start(tmp_path, spec)
    while not ready.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    out, _ = process.communicate(timeout=120)
    assert "child got it" in out


def test_a_signal_that_comes_while_the_input_is_staged_in_is_the_commands(store, tmp_path):
    asked, gate = threading.Event(), threading.Event()

    def late(handler):
        asked.set()
        gate.wait(60)
        handler.answer(200, store.objects["/in/a b.h5"])

    store.faults["GET"].append(late)
    spec = job(store, saving(tmp_path / "ready", 75), input=source(store))
    process = start(tmp_path, spec, OSCAR_SUPERVISOR_HTTP_TIMEOUT="60", OSCAR_SUPERVISOR_STARTUP="60")
    assert asked.wait(120)
    process.send_signal(signal.SIGUSR1)
    gate.set()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert store.objects[BASE + "checkpoint/state"] == b"state\n"


def test_a_signal_waits_for_a_command_that_is_still_starting(store, tmp_path):
    ready, gate = tmp_path / "ready", tmp_path / "gate"
    program, *words = saving(tmp_path / "set-up", 75)
    words[-1] = f"touch {ready}; until [ -e {gate} ]; do sleep 0.05; done; {words[-1]}"
    process = start(tmp_path, job(store, [program, *words]), OSCAR_SUPERVISOR_STARTUP="60")
    while not ready.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    # Longer than a look takes; a signal that is passed on at once ends the shell.
    time.sleep(0.5)
    gate.touch()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert store.objects[BASE + "checkpoint/state"] == b"state\n"
