# SPDX-License-Identifier: Apache-2.0
"""Waiting for a pod behind interLink in the triggerer."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.podstatus import PodStatus
from airflow_provider_oscar.triggers import shared_poll
from airflow_provider_oscar.triggers.interlink import InterLinkPodTrigger, pod_view
from tests.support.fakes import FakeCluster

pytestmark = pytest.mark.usefixtures("hurried")


@pytest.fixture
def cluster(monkeypatch):
    return FakeCluster().install(monkeypatch)


def trigger(**arguments):
    made = InterLinkPodTrigger(
        **{"conn_id": "interlink_default", "namespace": "n", "job_id": "j", "poll_interval": 0.001} | arguments
    )
    made.lines = []
    made.log.info = lambda text, *values: made.lines.append(text % values)
    return made


async def only_event(made):
    async with asyncio.timeout(10):
        found = [event.payload async for event in made.run()]
    assert len(found) == 1
    assert not shared_poll._POLLS
    return found[0]


async def test_slurm_job_node_and_exit_code_are_told(cluster):
    cluster.put("j", JobPhase.PENDING)
    steps = iter(
        [
            lambda: cluster.put("j", JobPhase.RUNNING, slurm_job_id="17", node="hpc"),
            lambda: cluster.put("j", JobPhase.FAILED, slurm_job_id="17", node="hpc", exit_code=3, reason="Error: 3"),
        ]
    )
    made = trigger()
    listed = cluster.list_pods

    def list_pods(**query):
        found = listed(**query)
        next(steps, lambda: None)()
        return found

    from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterLinkHook, "list_pods", lambda self, **query: list_pods(**query))
        event = await only_event(made)
    assert {name: event[name] for name in ("phase", "slurm_job_id", "node", "exit_code", "note")} == {
        "phase": "failed",
        "slurm_job_id": "17",
        "node": "hpc",
        "exit_code": 3,
        "note": "Error: 3",
    }
    assert "Job j is running SLURM job '17' on 'hpc'" in made.lines


async def test_log_that_cannot_be_read_does_not_end_the_wait(cluster, monkeypatch):
    from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

    cluster.put("j", JobPhase.RUNNING)

    def read_log(self, name):
        cluster.put("j", JobPhase.SUCCEEDED)
        raise TransientError("kubelet away")

    monkeypatch.setattr(InterLinkHook, "read_log", read_log)
    made = trigger()
    assert (await only_event(made))["phase"] == "succeeded"
    assert any("kubelet away" in line for line in made.lines)


async def test_kill_by_the_user_deletes_the_pod(cluster):
    cluster.put("j", JobPhase.RUNNING)
    await trigger().on_kill()
    assert cluster.deleted == ["j"]


def test_pod_that_is_being_removed_counts_as_absent():
    assert pod_view(PodStatus("j", JobPhase.RUNNING, deleting=True)).phase is JobPhase.ABSENT
    assert pod_view(PodStatus("j", JobPhase.FAILED, deleting=True)).phase is JobPhase.FAILED
    assert pod_view(None).phase is JobPhase.ABSENT
