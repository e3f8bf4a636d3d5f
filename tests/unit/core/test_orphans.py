# SPDX-License-Identifier: Apache-2.0
"""What counts as left behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.orphans import (
    RetentionLimits,
    SecretInfo,
    SlurmJob,
    find_orphans,
    find_slurm_orphans,
    slurm_owner,
)
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.podstatus import PodStatus

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LIMITS = RetentionLimits(older_than=HOUR, keep_for=100 * HOUR)


def pod(name="j", phase=JobPhase.SUCCEEDED, hours=2.0, **fields):
    return PodStatus(name=name, phase=phase, created_at=NOW - hours * HOUR, **fields)


def orphans(*pods, secrets=()):
    found = [SecretInfo(name, NOW - hours * HOUR) for name, hours in secrets]
    return [(each.kind, each.name) for each in find_orphans(pods, found, now=NOW, limits=LIMITS)]


@pytest.mark.parametrize("phase", list(JobPhase))
@pytest.mark.parametrize("hours", [0.5, 2])
def test_of_pods_only_those_that_ended_long_ago_are_orphans(phase, hours):
    assert bool(orphans(pod(phase=phase, hours=hours))) is (phase.ended and hours > 1)


def test_a_pod_that_is_being_removed_is_none():
    assert orphans(pod(deleting=True)) == []


def test_a_secret_without_a_pod_is_one_unless_its_pod_may_still_come():
    assert orphans(pod("a", JobPhase.RUNNING), secrets=[("a", 5), ("b", 5), ("c", 0.1)]) == [("secret", "b")]


def test_the_oldest_come_first_and_what_has_no_age_before_them():
    assert [name for _, name in orphans(pod("young", hours=2), secrets=[("old", 9)])] == ["old", "young"]
    assert SecretInfo.from_api({"metadata": {"name": "x", "creationTimestamp": "soon"}}).created_at is None


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.none(), st.integers())))
def test_any_secret_can_be_read(metadata):
    assert isinstance(SecretInfo.from_api({"metadata": metadata}), SecretInfo)


@pytest.mark.parametrize(
    ("keep", "phase", "hours", "left"),
    [
        ("always", JobPhase.SUCCEEDED, 50, False),
        ("always", JobPhase.FAILED, 101, True),
        ("on_failure", JobPhase.FAILED, 50, False),
        ("on_failure", JobPhase.SUCCEEDED, 2, True),
    ],
)
def test_a_pod_that_was_kept_stays_for_as_long_as_it_was_kept_for(keep, phase, hours, left):
    assert bool(orphans(pod(phase=phase, hours=hours, keep=keep))) is left


def test_an_active_pod_whose_task_is_over_is_an_orphan_and_known_to_be_active():
    pods = [pod("a", JobPhase.RUNNING), pod("b", JobPhase.PENDING), pod("young", JobPhase.RUNNING, hours=0.5)]
    found = find_orphans(
        pods, (), now=NOW, limits=LIMITS, orphaned=lambda pod: "" if pod.name == "b" else "its task is failed"
    )
    assert [(each.name, each.active, each.why) for each in found] == [("a", True, "its task is failed")]


OWNER = slurm_owner("606c3d13", "team-a")


def slurm(number="17", state="RUNNING", comment="airflow:d/t/r/1" + OWNER, hours=2.0):
    return SlurmJob(number, state, comment=comment, submitted_at=None if hours is None else NOW - hours * HOUR)


@pytest.mark.parametrize(
    ("job", "left"),
    [
        (slurm(), True),
        (slurm("18"), False),  # its pod is there
        (slurm(state="COMPLETED"), False),
        (slurm(comment="airflow:d/t/r/1@606c3d13/team-b"), False),
        (slurm(comment="airflow:d/t/r/1@other000/team-a"), False),
        (slurm(comment=""), False),
        (slurm(hours=0.5), False),
        (slurm(hours=None), False),
    ],
)
def test_a_slurm_job_without_a_pod_is_an_orphan_if_it_is_ours_and_goes_on(job, left):
    pods = [pod("p", JobPhase.RUNNING, slurm_job_id="18")]
    assert bool(find_slurm_orphans([job], pods, owner=OWNER, now=NOW, older_than=HOUR)) is left


@pytest.mark.parametrize("value", [1764331200, {"set": True, "infinite": False, "number": 1764331200}])
def test_the_time_of_a_slurm_job_is_read_in_either_form(value):
    assert SlurmJob.from_api({"submit_time": value}).submitted_at == datetime(2025, 11, 28, 12, tzinfo=UTC)
