# SPDX-License-Identifier: Apache-2.0
"""Only a manifest proves success; nothing that a compute side says makes the verdict raise."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.outcome import OutcomeState, evaluate

CASES = Path(__file__).parents[2] / "support" / "manifest_cases"
GOOD = Manifest.from_dict(json.loads((CASES / "success.json").read_text())["manifest"])
BAD = Manifest.from_dict(json.loads((CASES / "command_fails.json").read_text())["manifest"])
JOB = GOOD.submission_id
GRACE = timedelta(seconds=60)
YOUNG, OLD = timedelta(seconds=59), timedelta(seconds=61)


@pytest.mark.parametrize("phase", JobPhase)
@pytest.mark.parametrize(
    ("manifest", "state"), [(GOOD, OutcomeState.SUCCEEDED), (BAD, OutcomeState.FAILED)], ids=["good", "bad"]
)
def test_manifest_decides_against_any_phase(manifest, state, phase):
    assert evaluate(JOB, manifest, phase, age=OLD, grace=GRACE).state is state


@pytest.mark.parametrize("phase", JobPhase)
def test_an_exit_code_may_say_that_there_was_nothing_to_do(phase):
    said = replace(BAD, exit_code=99)
    assert evaluate(JOB, said, phase, age=OLD, grace=GRACE, skips=(98, 99)).state is OutcomeState.SKIPPED
    assert evaluate(JOB, said, phase, age=OLD, grace=GRACE, skips=(98,)).state is OutcomeState.FAILED
    assert evaluate(JOB, None, phase, age=OLD, grace=GRACE, skips=(99,)).state is not OutcomeState.SKIPPED


@pytest.mark.parametrize("code", [137, 143])
def test_what_killed_a_command_is_no_word_of_the_commands(code):
    killed = replace(BAD, exit_code=code)
    assert evaluate(JOB, killed, "failed", age=OLD, grace=GRACE, skips=(code,)).state is OutcomeState.FAILED


@pytest.mark.parametrize(
    ("phase", "before", "after"),
    [
        (JobPhase.PENDING, OutcomeState.RUNNING, OutcomeState.RUNNING),
        (JobPhase.RUNNING, OutcomeState.RUNNING, OutcomeState.RUNNING),
        (JobPhase.UNKNOWN, OutcomeState.RUNNING, OutcomeState.RUNNING),
        (JobPhase.SUCCEEDED, OutcomeState.RUNNING, OutcomeState.LOST),
        (JobPhase.ABSENT, OutcomeState.RUNNING, OutcomeState.LOST),
        (JobPhase.FAILED, OutcomeState.RUNNING, OutcomeState.FAILED),
    ],
)
def test_without_a_manifest_the_phase_decides_after_the_grace(phase, before, after):
    assert evaluate(JOB, None, phase, age=YOUNG, grace=GRACE).state is before
    assert evaluate(JOB, None, phase, age=OLD, grace=GRACE).state is after


def test_manifest_of_another_job_is_no_manifest():
    assert evaluate("other", GOOD, JobPhase.SUCCEEDED, age=OLD, grace=GRACE).state is OutcomeState.LOST


def test_manifest_of_an_earlier_attempt_is_no_manifest():
    moment = BAD.submitted_at
    later = moment + timedelta(seconds=1)
    assert evaluate(JOB, BAD, "running", age=OLD, grace=GRACE, submitted_at=later).state is OutcomeState.RUNNING
    assert evaluate(JOB, BAD, "running", age=OLD, grace=GRACE, submitted_at=moment).state is OutcomeState.FAILED


def test_manifest_without_a_queued_phase_is_believed():
    bare = replace(GOOD, phases={})
    assert (
        evaluate(JOB, bare, "running", age=OLD, grace=GRACE, submitted_at=GOOD.submitted_at).state
        is OutcomeState.SUCCEEDED
    )


@given(phase=st.text(), seconds=st.integers(0, 10**6))
def test_nonsense_never_raises_and_never_succeeds(phase, seconds):
    found = evaluate(JOB, None, phase, age=timedelta(seconds=seconds), grace=GRACE)
    assert found.state is not OutcomeState.SUCCEEDED
    assert "\n" not in found.reason
    assert found.final is (found.state is not OutcomeState.RUNNING)


@pytest.mark.parametrize(
    ("word", "phase"),
    [
        ("Succeeded", JobPhase.SUCCEEDED),
        ("Suspended", JobPhase.PENDING),
        (" RUNNING ", JobPhase.RUNNING),
        ("OOMKilled", JobPhase.UNKNOWN),
        ("", JobPhase.UNKNOWN),
        (None, JobPhase.UNKNOWN),
    ],
)
def test_words_of_the_compute_sides_are_normalised(word, phase):
    assert JobPhase(word) is phase


def test_lost_verdict_says_where_to_look():
    reason = evaluate(JOB, None, "succeeded", age=OLD, grace=GRACE).reason
    assert "no manifest came within 0:01:00" in reason
    assert "see its log and its output prefix" in reason
