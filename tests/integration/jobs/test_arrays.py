# SPDX-License-Identifier: Apache-2.0
"""Why ``--array`` is refused: what interLink's SLURM plugin would see of a job array, on real SLURM."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from oscar_testbed.fakes.slurm.real import RealSlurm, missing_programs

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason="SLURM is not installed")

#: As a job script of the plugin: one status file for each container, at a place that the pod's id decides.
SCRIPT = """#!/bin/bash
#SBATCH --array=0-2
#SBATCH --mem=64
#SBATCH --output={folder}/job.out
echo "$SLURM_ARRAY_TASK_ID" >> {folder}/ran
if [ "$SLURM_ARRAY_TASK_ID" = 1 ]; then code=3; else code=0; fi
echo $code > {folder}/run-c.status
exit $code
"""
#: How the plugin asks for one job, and what it looks for in all that comes back.
ASK = ("squeue", "--noheader", "-a", "--states=all", "-O", "exit_code,StateCompact", "-j")
STATE = re.compile(r"(CD|CG|F|OOM|PD|PR|R|ST|S|TO)")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSlurm]:
    """A SLURM of its own."""
    cluster = RealSlurm(tmp_path_factory.mktemp("c"))
    cluster.start()
    yield cluster
    cluster.stop()


def asked(slurm: RealSlurm, job: str) -> list[str]:
    done = subprocess.run(
        [*ASK, job], env={**os.environ, **slurm.environment()}, capture_output=True, text=True, check=True
    )
    return done.stdout.split("\n")[:-1]


def test_elements_run_the_whole_command_each_and_the_plugin_reads_the_state_of_one(slurm: RealSlurm, tmp_path: Path):
    script = tmp_path / "job.slurm"
    script.write_text(SCRIPT.format(folder=tmp_path))
    job = slurm.submit(script)
    assert job.isdigit(), "the plugin is given one id, as for a job of its own"
    end = time.monotonic() + 120
    while (lines := asked(slurm, job)) and not all(STATE.findall(line) in (["CD"], ["F"]) for line in lines):
        assert time.monotonic() < end, lines
        time.sleep(0.2)
    assert sorted((tmp_path / "ran").read_text().split()) == ["0", "1", "2"], "the same command, three times"
    states = [STATE.findall(line)[0] for line in lines]
    assert sorted(states) == ["CD", "CD", "F"]
    found = STATE.search("\n".join(lines))
    assert found is not None
    assert states.count(found[1]) < 3, "whichever it is, it is not the state of the others"
    assert (tmp_path / "run-c.status").read_text().strip() in ("0", "3"), "one code, of whichever ended last"
