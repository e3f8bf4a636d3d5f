# SPDX-License-Identifier: Apache-2.0
"""Jobs of tasks that a person marked: cancelled whether or not a triggerer ever ran their trigger."""

from __future__ import annotations

import threading
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import BaseHook

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.backend import JobSystem, open_backend
from airflow_provider_oscar.jobs.interlink import InterLinkBackend
from airflow_provider_oscar.jobs.oscar import OscarBackend
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.plugins import marked
from airflow_provider_oscar.plugins.marked import GRACE, PAUSES, Canceller
from airflow_provider_oscar.plugins.ui import systems
from airflow_provider_oscar.plugins.ui.systems import cancel_at_work, job_system
from tests.support.fakes import FakeCluster, FakeOscar

OSCAR = OscarBackend(conn_id="oscar_default", service="words", elsewhere="[]")
PODS = InterLinkBackend(conn_id="interlink_default", namespace="jobs")
JOB = RunningJob(submission_id="t-1", job_id="t-1", backend="oscar", address=OSCAR.address())


class FakeSystem:
    """Cancels when it is asked often enough; says when it was."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.asked: list[tuple[JobSystem, str]] = []
        self.done = threading.Event()

    def cancel(self, place: JobSystem, job_id: str) -> str:
        self.asked.append((place, job_id))
        if len(self.asked) <= self.refusals:
            raise TransientError("the system is away")
        self.done.set()
        return "was cancelled"


@pytest.fixture
def store() -> Any:
    """What reads Airflow's database; importing it imports Airflow's API server, whose test client warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow_provider_oscar.plugins.ui import store

    return store


@pytest.fixture
def system(store: Any, monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    fake = FakeSystem()
    monkeypatch.setattr(marked, "_canceller", Canceller(fake.cancel, grace=0))
    monkeypatch.setattr(store, "remembered", lambda _: JOB)
    return fake


@pytest.mark.parametrize(
    "mark",
    [
        lambda ti: marked.on_task_instance_failed(None, ti, "marked"),
        lambda ti: marked.on_task_instance_success(None, ti),
        lambda ti: marked.on_task_instance_skipped(None, ti),
    ],
    ids=["failed", "success", "skipped"],
)
def test_the_job_of_a_task_that_was_marked_by_hand_is_cancelled(system, mark):
    mark(SimpleNamespace())
    assert system.done.wait(20)
    ((place, job_id),) = system.asked
    assert (place.key, job_id) == (OSCAR.key, "t-1")


def test_tasks_that_end_by_themselves_are_left_alone(system):
    for state in ("running", "deferred"):
        marked.on_task_instance_failed(state, SimpleNamespace(), "fault")
        marked.on_task_instance_success(state, SimpleNamespace())
    assert system.asked == []


def test_a_task_that_never_submitted_a_job_costs_nothing(system, store, monkeypatch):
    monkeypatch.setattr(store, "remembered", lambda _: None)
    marked.on_task_instance_failed(None, SimpleNamespace(), "marked")
    assert system.asked == []


def test_a_system_that_is_away_is_asked_again():
    system, pauses = FakeSystem(refusals=2), []
    Canceller(system.cancel, sleep=pauses.append, grace=0).submit(OSCAR, "t-1")
    assert system.done.wait(20)
    assert pauses == [0, *PAUSES[:2]]


@pytest.mark.parametrize(
    ("place", "command"),
    [
        (OSCAR, "airflow oscar jobs cancel words t-1 --conn-id oscar_default"),
        (PODS, "airflow oscar hpc cancel t-1 --conn-id interlink_default --namespace jobs"),
    ],
)
def test_what_cannot_be_cancelled_is_named_with_the_command_that_does(caplog, place, command):
    ended = threading.Event()
    canceller = Canceller(FakeSystem(refusals=99).cancel, sleep=lambda seconds: seconds == PAUSES[-1] and ended.set())
    canceller.submit(place, "t-1")
    assert ended.wait(20)
    canceller._executors[place.conn_id].shutdown()
    assert command in caplog.text


def test_trigger_and_worker_have_their_time_first():
    system, pauses = FakeSystem(), []
    Canceller(system.cancel, sleep=pauses.append).submit(OSCAR, "t-1")
    assert system.done.wait(20)
    assert 30 < pauses[0] <= GRACE


def test_a_hanging_system_delays_no_other():
    free, other = threading.Event(), FakeSystem()

    def cancel(place: JobSystem, job_id: str) -> str:
        return other.cancel(place, job_id) if place is PODS else str(free.wait(60))

    canceller = Canceller(cancel, grace=0)
    for _ in range(5):
        canceller.submit(OSCAR, "t-1")
    canceller.submit(PODS, "t-2")
    assert other.done.wait(20)
    free.set()


@pytest.mark.parametrize(
    ("phase", "expected"), [("running", True), ("pending", True), ("succeeded", False), ("", False)]
)
@pytest.mark.parametrize("kind", ["oscar", "pods"])
def test_only_a_job_at_work_is_cancelled_since_an_ended_one_holds_its_log(monkeypatch, kind, phase, expected):
    monkeypatch.setattr(systems, "server_connection", BaseHook.get_connection)
    fake = (FakeOscar if kind == "oscar" else FakeCluster)().install(monkeypatch)
    place = open_backend("oscar", OSCAR.address()) if kind == "oscar" else open_backend("interlink", PODS.address())
    if phase and kind == "oscar":
        fake.jobs["t-1"] = phase.capitalize()
    elif phase:
        fake.put("t-1", JobPhase(phase))
    assert bool(cancel_at_work(place, "t-1")) is expected
    assert (place.status("t-1").phase is JobPhase.ABSENT) is (expected or not phase)


@pytest.mark.parametrize("place", [OSCAR, PODS], ids=["oscar", "pods"])
def test_where_a_job_runs_is_what_its_task_remembered(place):
    found = job_system(RunningJob(submission_id="t-1", job_id="t-1", backend=place.name, address=place.address()))
    assert found is not None
    assert (found.name, found.key) == (place.name, place.key)
    assert job_system(RunningJob(submission_id="t-1", job_id="t-1")) is None
