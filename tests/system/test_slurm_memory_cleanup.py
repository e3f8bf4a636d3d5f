# SPDX-License-Identifier: Apache-2.0
"""Nothing of a SLURM that enforces memory stays on the machine, whoever killed its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from oscar_testbed.fakes.slurm.real import missing_programs
from oscar_testbed.real import slurm_memory
from oscar_testbed.real.base import cache_directory
from oscar_testbed.real.stack import clean_up, only_one
from oscar_testbed.real.undo_log import stray_jobs

_HOLDER = """
import sys, time
from pathlib import Path
from oscar_testbed.real.undo_log import UndoLog
from oscar_testbed.real.slurm_memory import MemoryBoundSlurm
directory = Path(sys.argv[1])
slurm = MemoryBoundSlurm(directory / "slurm", UndoLog(directory))
slurm.start()
script = directory / "job.sh"
script.write_text("#!/bin/bash\\n#SBATCH --mem=50 --output=/dev/null\\nsleep 600\\n")
job = slurm.submit(script)
while slurm.jobs()[job].state != "R":
    time.sleep(0.1)
print("runs", flush=True)
time.sleep(600)
"""


def test_control_groups_and_jobs_of_a_killed_session_are_cleaned_up():
    if lack := slurm_memory.missing() or ", ".join(missing_programs()):
        pytest.skip(f"no such SLURM: {lack}")
    directory = cache_directory() / "slurm-memory"
    with only_one(directory):
        clean_up(directory)
        _crash(directory)
        assert slurm_memory.groups(), "there is something to clean up"
        assert stray_jobs(directory / "slurm"), "the job outlives its cluster"
        assert clean_up(directory) == []
        assert slurm_memory.groups() == []
        assert stray_jobs(directory / "slurm") == set()


def _crash(directory: Path) -> None:
    """Kill a process that has such a cluster, with a job in it."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(directory)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"runs\n"
        finally:
            os.kill(process.pid, signal.SIGKILL)
