# SPDX-License-Identifier: Apache-2.0
"""SLURM's signal to the batch script reaches the supervisor and nothing else, and the script's exit code stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.core.slurm_signals import check_signal, passing_on

#: Says what reaches it and ends with 7; like the supervisor, it has the argument.
_SUPERVISOR = """
import os, signal, sys, time
def heard(number, frame):
    print("heard", number, flush=True)
    sys.exit(7)
signal.signal(signal.SIGUSR1, heard)
print("ready", flush=True)
if not os.fork():
    time.sleep(300)  # a copy, for an object of a batch: it would say so as well
time.sleep(300)
"""


@pytest.mark.parametrize("flag", ["--signal=B:USR1@60", "--signal=B:10@60", "--signal=B:SIGUSR1"])
def test_the_supervisor_alone_hears_the_signal_and_the_exit_code_is_the_scripts(tmp_path, flag):
    program, script, out = tmp_path / "supervisor.py", tmp_path / "job.slurm", tmp_path / "out"
    program.write_text(_SUPERVISOR)
    script.write_text(
        f"#!/bin/bash\n{passing_on([flag])}echo once\n"
        f"sh -c '{sys.executable} {program} --job x & wait $!; exit $?'\nexit $?\n"
    )
    with out.open("w") as log:
        batch = subprocess.Popen(["bash", str(script)], stdout=log, stderr=log, start_new_session=True)
    end = time.monotonic() + 120
    while "ready" not in out.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(batch.pid, signal.SIGUSR1)
    assert batch.wait(60) == 7
    assert out.read_text().split("\n") == ["once", "ready", f"heard {int(signal.SIGUSR1)}", ""]


def test_a_signal_that_comes_before_the_supervisor_is_ready_is_kept_for_it(tmp_path):
    program, script, out = tmp_path / "supervisor.py", tmp_path / "job.slurm", tmp_path / "out"
    gate = tmp_path / "gate"
    # It has its arguments long before it is ready; so does an interpreter that starts from a busy file system.
    late = f"import os, time\nprint('begun', flush=True)\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)\n"
    program.write_text(late + _SUPERVISOR)
    script.write_text(
        f"#!/bin/bash\n{passing_on(['--signal=B:USR1@60'])}"
        f"echo pulling; while [ ! -e {gate}.image ]; do sleep 0.05; done\n"
        f"sh -c '{sys.executable} {program} --job x & wait $!; exit $?'\nexit $?\n"
    )
    with out.open("w") as log:
        batch = subprocess.Popen(["bash", str(script)], stdout=log, stderr=log, start_new_session=True)

    def until(word):
        end = time.monotonic() + 120
        while word not in out.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)

    until("pulling")
    os.kill(batch.pid, signal.SIGUSR1)
    (tmp_path / "gate.image").touch()
    until("begun")
    gate.touch()
    assert batch.wait(60) == 7
    assert out.read_text().split("\n") == ["pulling", "begun", "ready", f"heard {int(signal.SIGUSR1)}", ""]


def test_without_a_signal_nothing_is_added():
    assert passing_on(["--exclusive", "--signal=USR1@60"]) == ""
    assert (
        "OSCAR_SIGNALS" in SlurmOptions(extra_flags=("--signal=B:USR1@9",)).to_annotations()["slurm-job.vk.io/pre-exec"]
    )


@pytest.mark.parametrize(
    ("flag", "steps", "words"),
    [
        ("--signal=USR1@60", False, "write --signal=B:USR1@60"),
        ("--signal=R:USR1@60", False, "write --signal=B:USR1@60"),
        ("--signal=B:KILL@60", False, "signals that reach the command"),
        ("--signal=B:23", True, "signals that reach the command"),
        ("--signal=B:", True, "signals that reach the command"),
        ("--signal=usr1", True, "signals that reach the command"),
    ],
)
def test_a_signal_that_nobody_would_get_is_refused(flag, steps, words):
    with pytest.raises(DefinitionError, match=words):
        check_signal(["--exclusive", flag], steps=steps)


@pytest.mark.parametrize(("flag", "steps"), [("--signal=B:TERM@60", False), ("--signal=USR2", True), ("--hold", False)])
def test_a_signal_that_arrives_is_accepted(flag, steps):
    check_signal([flag], steps=steps)
