# SPDX-License-Identifier: Apache-2.0
"""The rules of the built-in queue; that jobs run is tested with real SLURM beside it, in tests/integration."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oscar_testbed.errors import RejectedError
from oscar_testbed.fakes.slurm.batch_script import parse_duration, parse_memory, parse_script
from oscar_testbed.fakes.slurm.builtin import BuiltinSlurm
from oscar_testbed.faults import SlurmFaults
from oscar_testbed.process import wait_until


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 300.0),
        ("0:30", 30.0),
        ("02:30:00", 9000.0),
        ("1-0", 86_400.0),
        ("1-02:03:04", 93_784.0),
        ("UNLIMITED", None),
        ("0", None),
    ],
)
def test_time_is_read_as_slurm_reads_it(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "-5", "1h"])
def test_other_times_are_refused(text):
    with pytest.raises(RejectedError, match="--time"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "mib"), [("100", 100), ("2G", 2048), ("512K", 0), ("1T", 1024 * 1024)])
def test_memory_is_in_mebibytes(text, mib):
    assert parse_memory(text) == mib


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("now", 0), ("now+90", 90), ("now+1hour", 3600), ("now+2days", 172_800), ("16:00", 0), ("now+1moon", 0)],
)
def test_job_can_be_put_off(text, seconds):
    assert parse_script(f"#!/bin/sh\n#SBATCH --begin={text}\n").delay == seconds


def test_job_that_was_put_off_waits(tmp_path):
    script = tmp_path / "job"
    script.write_text("#!/bin/sh\n#SBATCH --begin=now+1hour\ntrue\n")
    slurm = BuiltinSlurm(tmp_path)
    slurm.start()
    job_id = slurm.submit(script)
    wait_until(lambda: slurm.jobs()[job_id].reason == "BeginTime", what="the queue says why it waits", timeout=120)
    assert slurm.jobs()[job_id].state == "PD"
    slurm.stop()


def test_directives_end_with_the_first_command():
    request = parse_script("#!/bin/bash\n#SBATCH -p gpu --gres=gpu:fake:2\n\n#SBATCH -c 3\necho\n#SBATCH --mem=1G\n")
    assert (request.partition, request.gpus, request.cpus, request.memory_mib) == ("gpu", 2, 3, 0)


def test_stray_word_in_a_directive_is_refused():
    with pytest.raises(RejectedError, match="Invalid directive"):
        parse_script("#!/bin/bash\n#SBATCH --comment=two words\n")


@given(st.text())
def test_a_script_is_read_or_refused(text):
    with contextlib.suppress(ValueError):
        assert parse_script(text).cpus > 0


@pytest.mark.parametrize(
    ("directive", "message"),
    [
        ("--partition=nope", "Invalid partition name specified"),
        ("--cpus-per-task=5", "Requested node configuration is not available"),
        ("--mem=1T", "Requested node configuration is not available"),
        ("--gres=gpu:1", "Requested node configuration is not available"),
        ("--cpus-per-task=0", "cpus-per-task"),
    ],
)
def test_what_slurm_refuses_is_refused(tmp_path, directive, message):
    script = tmp_path / "job"
    script.write_text(f"#!/bin/bash\n#SBATCH {directive}\ntrue\n")
    with pytest.raises(RejectedError, match=message):
        BuiltinSlurm(tmp_path).submit(script)


def test_a_refusal_can_be_switched_on(tmp_path):
    script = tmp_path / "job"
    script.write_text("#!/bin/bash\n")
    queue = BuiltinSlurm(tmp_path, faults=SlurmFaults(refuse="sbatch: error: maintenance"))
    with pytest.raises(RejectedError, match="maintenance"):
        queue.submit(script)
