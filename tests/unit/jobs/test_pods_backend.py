# SPDX-License-Identifier: Apache-2.0
"""Waiting for a pod behind interLink in the triggerer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.podstatus import PodStatus
from airflow_provider_oscar.core.slurm_queue import SlurmQueue
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.jobs import poller
from airflow_provider_oscar.jobs.interlink import InterLinkBackend
from airflow_provider_oscar.jobs.kubernetes import KubernetesBackend
from airflow_provider_oscar.jobs.pods import pod_job_status
from airflow_provider_oscar.jobs.poller import PollTiming
from airflow_provider_oscar.jobs.waiting import Wait, wait_for_job
from airflow_provider_oscar.triggers.jobs import JobTrigger
from tests.support.fakes import FakeCluster

PLACE = {"conn_id": "interlink_default", "namespace": "n", "node": "hpc"}
HURRIED = PollTiming(min_pause=0.001, max_pause=0.001, absence_grace=0.01, log_interval=0.0, log_spacing=0.0)


@pytest.fixture
def cluster(monkeypatch):
    return FakeCluster().install(monkeypatch)


async def waited(lines):
    say = lambda text, *values: lines.append(text % values)  # noqa: E731
    wait = Wait(job_id="j", poll_interval=0.001)
    event = await asyncio.wait_for(wait_for_job(InterLinkBackend(**PLACE), wait, say=say, pace=HURRIED), 20)
    assert not poller._POLLS
    return event


async def test_slurm_job_node_and_exit_code_are_told(cluster):
    cluster.put("j", JobPhase.PENDING)
    steps = iter(
        [
            lambda: cluster.put("j", JobPhase.RUNNING, slurm_job_id="17", node="hpc"),
            lambda: cluster.put("j", JobPhase.FAILED, slurm_job_id="17", node="hpc", exit_code=3, reason="Error: 3"),
        ]
    )
    lines = []
    listed = cluster.list_pods

    def list_pods(**query):
        found = listed(**query)
        next(steps, lambda: None)()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterLinkHook, "list_pods", lambda self, **query: list_pods(**query))
        event = await waited(lines)
    assert {name: event[name] for name in ("phase", "slurm_job_id", "node", "exit_code", "reason")} == {
        "phase": "failed",
        "slurm_job_id": "17",
        "node": "hpc",
        "exit_code": 3,
        "reason": "Error: 3",
    }
    assert "Job j is running SLURM job '17' on 'hpc'" in lines


async def test_log_that_cannot_be_read_does_not_end_the_wait(cluster, monkeypatch):
    cluster.put("j", JobPhase.RUNNING)

    def read_log(self, name):
        cluster.put("j", JobPhase.SUCCEEDED)
        raise TransientError("kubelet away")

    monkeypatch.setattr(InterLinkHook, "read_log", read_log)
    lines = []
    assert (await waited(lines))["phase"] == "succeeded"
    assert any("kubelet away" in line for line in lines)


async def test_kill_by_the_user_deletes_the_pod(cluster):
    cluster.put("j", JobPhase.RUNNING)
    await JobTrigger(backend="interlink", backend_arguments=PLACE, job_id="j").on_kill()
    assert cluster.deleted == ["j"]


def test_pod_that_is_being_removed_counts_as_absent():
    assert pod_job_status(PodStatus("j", JobPhase.RUNNING, deleting=True)).phase is JobPhase.ABSENT
    assert pod_job_status(PodStatus("j", JobPhase.FAILED, deleting=True)).phase is JobPhase.FAILED
    assert pod_job_status(None).phase is JobPhase.ABSENT


def test_the_virtual_node_is_observed_with_its_pods(cluster, monkeypatch):
    trouble = [""]
    monkeypatch.setattr(InterLinkHook, "node_status", lambda self, node: trouble[0])
    cluster.put("a", JobPhase.RUNNING)
    cluster.put("b", JobPhase.FAILED)
    seen = InterLinkBackend(**PLACE).observe()
    assert (seen.up, seen.active, seen.reason) == (True, 1, "")
    trouble[0] = "the node is not ready: no ping"
    assert InterLinkBackend(**PLACE).observe().reason == "the node is not ready: no ping"


def test_what_waits_at_the_node_is_observed_and_the_queue_where_slurm_is_known(cluster, monkeypatch):
    monkeypatch.setattr(InterLinkHook, "node_status", lambda self, node: "")
    cluster.put("a", JobPhase.RUNNING)
    cluster.put("b", JobPhase.PENDING, created_at=datetime.now(UTC) - timedelta(minutes=5), owner="x")
    cluster.put("c", JobPhase.PENDING, created_at=datetime.now(UTC) - timedelta(hours=5))
    seen = InterLinkBackend(**PLACE).observe()
    assert (seen.active, seen.pending, seen.queue_length, seen.start_in) == (3, 2, None, None)
    assert 300 <= seen.oldest_pending < 3600, "of ours alone"

    class Slurm:
        def queue(self, partition):
            assert partition == "gpu"
            return SlurmQueue(waiting=4, running=2, start_in=90.0)

    monkeypatch.setattr(InterLinkHook, "slurm", Slurm())
    seen = InterLinkBackend(**PLACE, partition="gpu").observe()
    assert (seen.queue_length, seen.start_in) == (4, 90.0)

    class Away:
        def queue(self, partition):
            raise TransientError("slurmrestd is away")

    monkeypatch.setattr(InterLinkHook, "slurm", Away())
    seen = InterLinkBackend(**PLACE, partition="gpu").observe()
    assert (seen.up, seen.pending, seen.queue_length) == (True, 2, None)


def test_ordinary_nodes_are_observed_without_asking_for_one(cluster):
    cluster.put("a", JobPhase.PENDING)
    seen = KubernetesBackend(conn_id="interlink_default").observe()
    assert (seen.up, seen.active) == (True, 1)


def test_a_cluster_that_is_away_is_down_with_the_reason(cluster, monkeypatch):
    def away(self, **_):
        raise TransientError("connection 'interlink_default': cannot reach Kubernetes")

    monkeypatch.setattr(InterLinkHook, "list_pods", away)
    seen = KubernetesBackend(conn_id="interlink_default").observe()
    assert (seen.up, "cannot reach" in seen.reason) == (False, True)


@pytest.mark.parametrize(("reason", "hopeless"), [("(Resources)", False), ("(BadConstraints)", True)])
async def test_a_job_that_can_never_start_is_not_shown_as_if_it_waited(cluster, monkeypatch, reason, hopeless):
    cluster.put("j", JobPhase.PENDING, reason=reason)
    listed = cluster.list_pods
    looks = []

    def list_pods(self, **query):
        looks.append(query)
        if len(looks) == 3:
            cluster.put("j", JobPhase.SUCCEEDED)
        return listed(**query)

    monkeypatch.setattr(InterLinkHook, "list_pods", list_pods)
    lines = []
    await waited(lines)
    assert any("can never start" in line for line in lines) is hopeless
