# SPDX-License-Identifier: Apache-2.0
"""The command runs as the user wrote it: arguments, variables, signals, exit code."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.support.supervised import SUBMISSION, Run, job, source, start

PRINT_ENV = ["/bin/sh", "-c", 'env > "$TMP_OUTPUT_DIR/env"; ls -d "$TMP_INPUT_DIR" "$TMP_OUTPUT_DIR" >/dev/null']


def output(store, spec, name):
    return store.objects[f"/out/{spec['output']['prefix']}{name}"]


def variables(store, spec):
    return dict(line.split("=", 1) for line in output(store, spec, "env").decode().splitlines() if "=" in line)


def test_command_sees_the_variables_scripts_for_oscar_expect(store, supervise):
    spec = job(store, PRINT_ENV, input=source(store), environment={"OWN": "a,b $HOME"})
    assert supervise(spec).code == 0
    seen = variables(store, spec)
    assert seen["INPUT_FILE_PATH"] == seen["TMP_INPUT_DIR"] + "/a_b.h5"
    assert seen["STORAGE_OBJECT_KEY"] == "a b.h5"
    assert seen["EVENT_TIME"] == "2026-11-22T08:59:59.000Z"
    assert json.loads(seen["EVENT"]) == spec["input"]["event"]
    assert (seen["JOB_UUID"], seen["OWN"]) == (SUBMISSION, "a,b $HOME")
    assert not seen["SUPERVISOR_METRICS_FILE"].startswith(seen["TMP_OUTPUT_DIR"])


def test_command_sees_no_capability_and_nothing_of_ours(store, supervise):
    spec = job(store, PRINT_ENV, input=source(store, headers={"Authorization": "Bearer secret"}))
    run = supervise(spec, OSCAR_SUPERVISOR="program", OSCARENV_X="eA==", EVENT="the job, secret", KEPT="1")
    assert run.code == 0
    seen = variables(store, spec)
    assert not [name for name in seen if name.startswith(("OSCAR_SUPERVISOR", "OSCARENV_"))]
    assert not [name for name, value in seen.items() if "secret" in value]
    assert seen["KEPT"] == "1"


def test_variables_of_an_outer_supervisor_are_not_taken_for_the_jobs(store, supervise):
    spec = job(store, PRINT_ENV)
    run = supervise(spec, EVENT="outer", INPUT_FILE_PATH="/outer", EVENT_TIME="outer", STORAGE_OBJECT_KEY="outer")
    assert run.code == 0
    assert not {"EVENT", "INPUT_FILE_PATH", "EVENT_TIME", "STORAGE_OBJECT_KEY"} & variables(store, spec).keys()


def test_arguments_and_values_of_any_characters_survive(store, supervise):
    hostile = ["", " a  b ", "$(id)", "`id`", "'\"", "*", "line\nbreak", "\u00e9\u4e2d\U0001f600"]
    script = 'printf "%s\\0" "$@" "$V" > "$TMP_OUTPUT_DIR/out"'
    spec = job(store, ["/bin/sh", "-c", script, "sh", *hostile], environment={"V": "\n".join(hostile)})
    assert supervise(spec, LC_ALL="C").code == 0
    assert output(store, spec, "out").decode().split("\0")[:-1] == [*hostile, "\n".join(hostile)]


@pytest.mark.parametrize("code", [1, 3, 255])
def test_exit_code_is_the_commands_and_outputs_still_go_out(store, supervise, code):
    spec = job(store, ["/bin/sh", "-c", f'echo log > "$TMP_OUTPUT_DIR/log"; exit {code}'])
    run = supervise(spec)
    assert (run.code, run.manifest.exit_code, run.manifest.error) == (code, code, None)
    assert not run.manifest.succeeded
    assert output(store, spec, "log") == b"log\n"


def test_command_killed_by_a_signal_gives_128_and_its_number(store, supervise):
    run = supervise(job(store, ["/bin/sh", "-c", "kill -SEGV $$"]))
    assert run.code == run.manifest.exit_code == 139


def test_command_not_found_is_127_and_names_it(store, supervise):
    run = supervise(job(store, ["no-such-program", "x"]))
    assert (run.code, run.manifest.error.stage) == (127, "run")
    assert "command not found: 'no-such-program'" in run.message


def test_command_that_cannot_be_run_is_126(store, supervise):
    run = supervise(job(store, ["/etc/passwd"]))
    assert run.code == 126
    assert "Permission denied" in run.message


def test_path_of_the_job_decides_where_the_command_is_looked_for(store, supervise, tmp_path):
    program = tmp_path / "bin" / "own-program"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    assert "found" in supervise(job(store, ["own-program"], environment={"PATH": f"{program.parent}:/bin"})).out


def test_marker_line_stands_alone_after_output_without_newline(store, supervise):
    run = supervise(job(store, ["printf", "no newline"]))
    assert run.out.splitlines()[0] == "no newline"
    assert run.out.splitlines()[-1].startswith("##airflow-oscar-manifest {")


def test_timeout_ends_the_command_and_its_children(store, supervise):
    spec = job(
        store, ["/bin/sh", "-c", 'trap "" TERM; sleep 300 & echo $! > "$TMP_OUTPUT_DIR/pid"; wait; wait'], timeout=0.3
    )
    run = supervise(spec)
    assert run.code == 137
    assert "longer than its timeout of 0.3 s" in run.message
    assert not alive(int(output(store, spec, "pid")))


def test_timeout_of_a_command_that_then_reports_success_is_no_success(store, supervise):
    run = supervise(job(store, ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 300 & wait"], timeout=0.3))
    assert (run.code, run.manifest.exit_code) == (124, 124)


def test_background_process_does_not_outlive_the_command(store, supervise):
    spec = job(store, ["/bin/sh", "-c", 'sleep 300 >/dev/null 2>&1 & echo $! > "$TMP_OUTPUT_DIR/pid"'])
    assert supervise(spec).code == 0
    assert not alive(int(output(store, spec, "pid")))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_cancelling_signal_reaches_the_command_and_the_manifest(store, tmp_path, name):
    ready = tmp_path / "ready"
    script = f"trap 'echo bye > $TMP_OUTPUT_DIR/bye; exit 0' {name[3:]}; touch {ready}; while :; do sleep 0.05; done"
    spec = job(store, ["/bin/sh", "-c", script])
    run = signalled(tmp_path, spec, ready, getattr(signal, name))
    assert run.code == 128 + getattr(signal, name)
    assert f"cancelled by {name}" in run.message
    assert output(store, spec, "bye") == b"bye\n"
    assert f"/out/{spec['output']['prefix']}manifest.json" in store.objects


def test_command_that_ignores_sigterm_is_killed_after_the_grace(store, tmp_path):
    ready = tmp_path / "ready"
    spec = job(store, ["/bin/sh", "-c", f"trap '' TERM; touch {ready}; while :; do sleep 0.05; done"])
    run = signalled(tmp_path, spec, ready, signal.SIGTERM)
    assert run.code == 137
    assert "cancelled by SIGTERM" in run.message


def test_user_signal_is_forwarded_and_cancels_nothing(store, tmp_path):
    ready = tmp_path / "ready"
    script = f"trap 'echo checkpoint; exit 0' USR1; touch {ready}; while :; do sleep 0.05; done"
    run = signalled(tmp_path, job(store, ["/bin/sh", "-c", script]), ready, signal.SIGUSR1)
    assert (run.code, run.manifest.succeeded) == (0, True)
    assert "checkpoint" in run.out


def test_cancelled_while_staging_in_runs_nothing(store, tmp_path):
    ready, over = tmp_path / "asked", threading.Event()

    def wait(handler):
        ready.touch()
        over.wait(60)
        handler.close_connection = True

    store.faults["GET"].append(wait)
    spec = job(store, ["/bin/sh", "-c", "echo ran"], input=source(store))
    run = signalled(tmp_path, spec, ready, signal.SIGTERM)
    over.set()
    assert (run.code, run.manifest.error.stage) == (143, "stage-in")
    assert "ran" not in run.out.splitlines()
    assert f"/out/{spec['output']['prefix']}manifest.json" in store.objects


def test_metrics_and_device_reach_the_manifest(store, supervise):
    run = supervise(job(store, ["/bin/sh", "-c", 'echo \'{"device":"cuda:0","n":3}\' > "$SUPERVISOR_METRICS_FILE"']))
    assert run.manifest.device == "cuda:0"
    assert run.manifest.metrics == {"device": "cuda:0", "n": 3}


@pytest.mark.parametrize(
    "script",
    [
        'echo "[1]" > $M',
        "echo '{' > $M",
        "mkfifo $M",
        "ln -s /etc/passwd $M",
        "head -c 2000000 /dev/zero > $M",
        "mkdir $M",
    ],
)
def test_unusable_metrics_are_said_to_be_ignored(store, supervise, script):
    run = supervise(job(store, ["/bin/sh", "-c", "M=$SUPERVISOR_METRICS_FILE; " + script]))
    assert (run.code, run.manifest.metrics) == (0, {})
    assert "SUPERVISOR_METRICS_FILE is ignored" in run.err


def test_manifest_names_slurm_job_and_node(store, supervise):
    run = supervise(job(store, ["true"]), SLURM_JOB_ID="4711", SLURMD_NODENAME="cn7")
    assert (run.manifest.slurm_job_id, run.manifest.node) == ("4711", "cn7")


def signalled(tmp_path: Path, spec: dict, ready: Path, number: int) -> Run:
    process = start(tmp_path, spec)
    until = time.monotonic() + 120
    while not ready.exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    return Run(process.returncode, out, err)


def alive(pid: int) -> bool:
    until = time.monotonic() + 60  # the orphan's new parent has yet to collect it
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        time.sleep(0.01)
    return True
