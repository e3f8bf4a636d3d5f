# SPDX-License-Identifier: Apache-2.0
"""A quick job is done in the process of its task that submitted it; others are deferred, those in a queue earlier."""

from __future__ import annotations

import pytest

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.jobs.status import JobStatus
from airflow_provider_oscar.operators.brief_wait import BriefWait
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from tests.support.fakes import Store, context, manifest
from tests.unit.operators.test_interlink import deferred, operator


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def waited(clock, status, proven=lambda: False):
    return BriefWait(seconds=10.0, status=status, proven=proven, clock=clock, sleep=clock.sleep).event()


@pytest.mark.parametrize(("phase", "seconds"), [(JobPhase.PENDING, 5.0), (JobPhase.RUNNING, 10.0)])
def test_a_job_in_its_queue_is_left_to_the_trigger_earlier_than_one_that_runs(clock, phase, seconds):
    assert waited(clock, lambda: JobStatus(phase)) is None
    assert clock.now == pytest.approx(seconds, abs=0.6)


def test_a_manifest_is_the_end_whatever_the_place_says(clock):
    event = waited(clock, lambda: JobStatus(JobPhase.RUNNING), proven=lambda: clock.now >= 2)
    assert (event["status"], event["proven"], clock.now) == ("ended", True, 2.0)


def test_a_job_that_failed_is_told_at_once(clock):
    event = waited(clock, lambda: JobStatus(JobPhase.FAILED, exit_code=3))
    assert (event["phase"], event["exit_code"], clock.now) == ("failed", 3, 0.0)


def test_where_a_look_is_dear_the_manifest_alone_is_asked_for(clock):
    assert waited(clock, None) is None
    assert clock.now == pytest.approx(10.0, abs=0.6)


def test_what_cannot_be_looked_at_is_left_to_the_trigger(clock):
    def away():
        raise TransientError("the cluster is away")

    assert waited(clock, away) is None
    assert clock.now == 0.0


@pytest.mark.usefixtures("supervisor")
class TestOperator:
    """The same in the operator."""

    @pytest.fixture(autouse=True)
    def brief(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW__OSCAR__DEFER_AFTER", "0.1")

    def test_a_quick_job_takes_one_task_process(self, cluster, supervisor, monkeypatch):
        real = InterLinkPodOperator.prepare

        def prepare(task, job, seen):
            work = real(task, job, seen)
            supervisor.manifests[job.submission_id] = manifest(job.submission_id)
            return work

        monkeypatch.setattr(InterLinkPodOperator, "prepare", prepare)
        found = operator().execute(context())
        assert found["exit_code"] == 0
        assert cluster.deleted == [found["submission_id"]]

    def test_a_longer_one_is_deferred(self, cluster):
        assert deferred(operator(), context(Store())).trigger.job_id in cluster.pods

    def test_a_job_that_ended_without_a_manifest_waits_for_it_in_the_trigger(self, cluster, monkeypatch):
        def create(self, pod, secret=None):
            cluster.create_or_adopt_pod(pod, secret)
            cluster.put(pod["metadata"]["name"], JobPhase.SUCCEEDED, slurm_job_id="7")
            return True

        monkeypatch.setattr(InterLinkHook, "create_or_adopt_pod", create)
        pause = deferred(operator(), context(Store()))
        assert pause.trigger.pending_event["phase"] == "succeeded"
