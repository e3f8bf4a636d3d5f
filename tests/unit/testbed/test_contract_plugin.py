# SPDX-License-Identifier: Apache-2.0
"""What of a plugin's answers is compared: not in which order a cancelled job's processes end."""

from __future__ import annotations

import copy

import pytest
from oscar_testbed.contract import samples
from oscar_testbed.contract.plugin import CASES, steady

FOLDER = samples.newest("interlink-slurm-plugin")
CANCELLED = next(case for case in CASES if case.name == "cancelled while running")
FAILED = next(case for case in CASES if case.name == "exit code 7")


def ended(exit_code: int, wait_status: int, *more_files: str) -> dict:
    found = copy.deepcopy(samples.read(FOLDER, CANCELLED.name))
    found["end"][0]["state"]["terminated"]["exitCode"] = exit_code
    found["job"]["wait_status"] = wait_status
    found["files"] = sorted([*found["files"], *more_files])
    return found


@pytest.mark.parametrize(
    "found", [ended(15, 15), ended(8, 36608), ended(143, 36608, "run-job.status 644")], ids=["15", "8", "143"]
)
def test_cancelled_job_may_end_by_signal_or_with_the_shell_s_code_for_it(found):
    recorded = samples.read(FOLDER, CANCELLED.name)
    assert samples.compare(CANCELLED.name, steady(CANCELLED, recorded), steady(CANCELLED, found)) == []


@pytest.mark.parametrize("found", [ended(0, 15), ended(15, 0), ended(1, 256)], ids=["no code", "no status", "failure"])
def test_cancelled_job_that_ends_otherwise_differs(found):
    recorded = samples.read(FOLDER, CANCELLED.name)
    assert samples.compare(CANCELLED.name, steady(CANCELLED, recorded), steady(CANCELLED, found)) != []


def test_cancelled_job_of_which_the_plugin_writes_no_code_down_is_as_recorded():
    recorded = samples.read(FOLDER, CANCELLED.name)
    found = ended(143, 36608, "run-job.status 644")
    found["files"].remove("init-job.status 644")
    assert samples.compare(CANCELLED.name, steady(CANCELLED, recorded), steady(CANCELLED, found)) == []


def test_other_cases_are_compared_to_the_last_code():
    recorded = samples.read(FOLDER, FAILED.name)
    found = copy.deepcopy(recorded)
    found["job"]["wait_status"] = 15
    assert samples.compare(FAILED.name, steady(FAILED, recorded), steady(FAILED, found)) != []
