# SPDX-License-Identifier: Apache-2.0
"""What counts as left behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.orphans import (
    REMOVED,
    PodTask,
    RetentionLimits,
    SecretInfo,
    SlurmJob,
    find_orphans,
    find_slurm_orphans,
    slurm_owner,
    why_left,
)
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.pods import label_value
from airflow_provider_oscar.core.podstatus import PodStatus
from airflow_provider_oscar.jobs.signing import deployment_name

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LIMITS = RetentionLimits(older_than=HOUR, keep_for=100 * HOUR)


def pod(name="j", phase=JobPhase.SUCCEEDED, hours=2.0, **fields):
    fields.setdefault("owner", "mine.x.0")
    return PodStatus(name=name, phase=phase, created_at=NOW - hours * HOUR, **fields)


def orphans(*pods, secrets=()):
    found = [SecretInfo(name, NOW - hours * HOUR, "mine.x.0") for name, hours in secrets]
    return [(each.kind, each.name) for each in find_orphans(pods, found, deployment_id="mine", now=NOW, limits=LIMITS)]


@pytest.mark.parametrize("owner", ["", "other.x.0", "mine2.x.0", ".mine", "min", "Mine.x.0"])
@pytest.mark.parametrize("deployment_id", ["mine", ""])
@pytest.mark.parametrize("why", [None, "its task is failed"])
def test_what_another_airflow_made_or_nobody_knows_who_is_none(owner, deployment_id, why):
    pods = [pod(phase.value, phase, hours=9999, owner=owner) for phase in JobPhase]
    secrets = [SecretInfo("no-pod", NOW - 9999 * HOUR, owner), SecretInfo("no-age", None, owner)]
    limits = RetentionLimits(older_than=timedelta(0), keep_for=timedelta(0))
    found = find_orphans(pods, secrets, deployment_id=deployment_id, now=NOW, limits=limits, orphaned=lambda pod: why)
    assert found == []


@given(st.text(), st.text())
def test_no_two_names_of_deployments_become_one_label(one, other):
    names = [deployment_name(each) for each in (one, other)]
    assert (names[0] == names[1]) == (one == other)
    label = label_value(f"{names[0]}.{'d' * 32}.{10**3}")
    assert label.partition(".")[0] == names[0], "whole, and without a full stop of its own"


def test_a_plain_name_of_a_deployment_stays_as_it_is():
    assert [deployment_name(each) for each in ("prod", "a1-b2", "0" * 24)] == ["prod", "a1-b2", "0" * 24]
    assert deployment_name("airflow.example.org").startswith("airflow-example-")


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
        pods,
        (),
        deployment_id="mine",
        now=NOW,
        limits=LIMITS,
        orphaned=lambda pod: None if pod.name == "b" else "its task is failed",
    )
    assert [(each.name, each.active, each.why) for each in found] == [("a", True, "its task is failed")]


@pytest.mark.parametrize(("answer", "left"), [("", False), (None, True), ("its task is failed", True)])
def test_an_ended_pod_is_left_alone_while_a_task_waits_for_it(answer, left):
    found = find_orphans([pod()], (), deployment_id="mine", now=NOW, limits=LIMITS, orphaned=lambda pod: answer)
    assert bool(found) is left


def made_for(**changes):
    return json.dumps({"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, **changes})


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("failed", "its task d.t is failed"),
        ("upstream_failed", "its task d.t is upstream_failed"),
        (REMOVED, "task t of run r of DAG d is not there any more"),
        (None, ""),
        ("deferred", ""),
        ("awaiting_input", ""),
        ("a state of a later Airflow", ""),
    ],
)
def test_only_states_that_are_known_to_be_an_end_leave_a_pod(state, why):
    assert why_left(pod(owner="mine.x.0", task=made_for()), "mine", lambda task: state) == why


@pytest.mark.parametrize(
    "task", ["", "{", "[]", "null", made_for(map_index=True), made_for(map_index="0"), made_for(run_id=None)]
)
def test_a_pod_that_names_no_task_is_not_asked_for(task):
    assert PodTask.of(pod(task=task)) is None
    assert why_left(pod(owner="mine.x.0", task=task), "mine", lambda task: 1 / 0) is None


@pytest.mark.parametrize("owner", ["", "other.x.0", "mine2.x.0", ".mine"])
def test_the_pod_of_another_airflow_is_not_asked_for(owner):
    assert why_left(pod(owner=owner, task=made_for()), "mine", lambda task: 1 / 0) is None


def test_no_deployment_is_no_name_that_pods_without_an_owner_share():
    assert why_left(pod(task=made_for()), "", lambda task: 1 / 0) is None


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_any_annotation_can_be_read(text):
    assert PodTask.of(pod(task=text)) is None


@given(st.text(), st.text(), st.text(), st.integers(-1, 9))
def test_a_task_is_read_as_it_was_written(dag_id, run_id, task_id, index):
    text = made_for(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=index)
    assert PodTask.of(pod(task=text)) == PodTask(dag_id, run_id, task_id, index)


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
