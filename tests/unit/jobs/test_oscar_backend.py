# SPDX-License-Identifier: Apache-2.0
"""Waiting for an OSCAR job in the triggerer."""

from __future__ import annotations

import asyncio
import time

import pytest

from airflow_provider_oscar.core.errors import AccessError, DefinitionError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs import poller
from airflow_provider_oscar.jobs.oscar import OscarBackend, OscarWork
from airflow_provider_oscar.jobs.poller import PollTiming
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.waiting import Wait, wait_for_job
from airflow_provider_oscar.triggers.jobs import SAFE_AFTER, JobTrigger
from tests.support.fakes import FakeOscar

PLACE = {"conn_id": "oscar_default", "service": "infer"}
HURRIED = PollTiming(min_pause=0.001, max_pause=0.001, absence_grace=0.01, log_interval=0.0, log_spacing=0.0)


@pytest.fixture
def oscar(monkeypatch):
    return FakeOscar().install(monkeypatch)


class Waiter:
    """One wait, and the lines it showed."""

    def __init__(self, pace=HURRIED, **wait):
        self.lines = []
        self.pace = pace
        self.wait = Wait(**{"job_id": "j", "poll_interval": 0.001} | wait)

    async def event(self):
        say = lambda text, *values: self.lines.append(text % values)  # noqa: E731
        found = await asyncio.wait_for(wait_for_job(OscarBackend(**PLACE), self.wait, say=say, pace=self.pace), 20)
        return found


async def only_event(waiter):
    found = await waiter.event()
    assert not poller._POLLS, "a poll was left behind"
    return found


def trigger(**arguments):
    made = JobTrigger(
        **{"backend": "oscar", "backend_arguments": PLACE, "job_id": "j", "poll_interval": 0.001} | arguments
    )
    made.pauses = []

    async def sleep(seconds):
        made.pauses.append(seconds)

    made.sleep = sleep
    return made


async def test_end_of_the_job_is_the_one_event(oscar):
    oscar.jobs["j"] = "Running"
    oscar.after_list = [lambda: None, lambda: oscar.jobs.update(j="Succeeded")]
    event = await only_event(Waiter())
    assert (event["status"], event["phase"]) == ("ended", "succeeded")


async def test_log_is_shown_while_the_job_runs_and_escaped(oscar):
    oscar.jobs["j"] = "Running"
    oscar.logs["j"] = "epoch 1\nevil \x1b[2J\n"
    steps = [lambda: None] * 3
    oscar.after_list = [*steps, lambda: oscar.logs.update(j="epoch 1\nevil \x1b[2J\nepoch 2\n"), *steps]
    oscar.after_list += [lambda: oscar.jobs.update(j="Failed")]
    made = Waiter()
    assert (await only_event(made))["phase"] == "failed"
    assert [line for line in made.lines if "epoch" in line] == ["epoch 1", "epoch 2"]
    assert any(line.startswith("evil") for line in made.lines)
    assert "\x1b" not in "".join(made.lines)


async def test_deadline_ends_the_wait(oscar):
    oscar.jobs["j"] = "Running"
    assert (await only_event(Waiter(deadline=time.time() + 0.05)))["status"] == "timeout"
    assert "j" in oscar.jobs, "the operator cancels, with its own hook"


async def test_unknown_word_keeps_waiting(oscar):
    oscar.jobs["j"] = "Hibernating"
    made = Waiter(deadline=time.time() + 0.1)
    assert (await only_event(made))["status"] == "timeout"
    assert sum("Hibernating" in line for line in made.lines) == 1


async def test_job_that_stays_away_is_absent(oscar):
    assert (await only_event(Waiter()))["phase"] == "absent"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
async def test_an_answer_that_contradicts_what_worked_before_does_not_end_the_wait(oscar, status):
    oscar.jobs["j"] = "Running"
    oscar.after_list = [lambda: oscar.refuse.update({("GET", "/system/logs"): status})]
    waiter = Waiter(follow_log=False)
    waiting = asyncio.create_task(only_event(waiter))
    while ("GET", "/system/logs") not in oscar.refuse:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    calls = len(oscar.calls)
    while len(oscar.calls) < calls + 5:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    oscar.jobs["j"] = "Succeeded"
    oscar.refuse.clear()
    assert (await waiting)["phase"] == "succeeded"


async def test_what_never_works_is_an_error_that_names_the_connection(oscar):
    oscar.refuse["GET", "/system/logs"] = 401
    seconds = iter(range(0, 10**6, 60))
    impatient = PollTiming(min_pause=0.001, max_pause=0.001, clock=lambda: float(next(seconds)))
    event = await only_event(Waiter(pace=impatient))
    assert event["status"] == "error"
    assert "connection 'oscar_default'" in event["message"]


async def test_a_job_that_does_not_start_ends_the_wait_with_its_reason(oscar):
    oscar.jobs["j"] = "Pending"
    event = await only_event(Waiter(queue_deadline=time.time() - 1))
    assert event["status"] == "queue_timeout"


async def test_a_job_that_has_started_may_take_longer_than_the_queue_was_allowed_to(oscar):
    oscar.jobs["j"] = "Running"
    oscar.after_list = [lambda: None] * 3 + [lambda: oscar.jobs.update(j="Succeeded")]
    assert (await only_event(Waiter(queue_deadline=time.time() - 1)))["status"] == "ended"


async def test_fifty_jobs_of_one_service_are_watched_by_one_list_at_a_time(oscar):
    names = [f"j{number}" for number in range(50)]
    oscar.jobs = dict.fromkeys(names, "Running")
    oscar.after_list = [lambda: None] * 3 + [lambda: oscar.jobs.update(dict.fromkeys(names, "Succeeded"))]
    found = await asyncio.wait_for(
        asyncio.gather(*(Waiter(job_id=name, follow_log=False).event() for name in names)), 20
    )
    assert [each["phase"] for each in found] == ["succeeded"] * 50
    assert len(oscar.calls) < 15


async def test_an_event_that_came_too_early_comes_again_without_a_request(oscar):
    pending = {"status": "ended", "phase": "succeeded"}
    found = [event.payload async for event in trigger(pending_event=pending).run()]
    assert found == [pending]
    assert oscar.calls == []


async def test_the_trigger_yields_the_event_of_the_wait(oscar):
    oscar.jobs["j"] = "Succeeded"
    (event,) = [event.payload async for event in trigger().run()]
    assert (event["status"], event["phase"]) == ("ended", "succeeded")


@pytest.mark.parametrize(("took", "pause"), [(0.0, SAFE_AFTER), (1.0, SAFE_AFTER - 1.0), (60.0, 0.0)])
async def test_the_trigger_of_a_quick_job_does_not_fire_before_airflow_has_noted_the_deferral(oscar, took, pause):
    oscar.jobs["j"] = "Succeeded"
    made = trigger()
    times = iter([100.0, 100.0 + took])
    made.clock = lambda: next(times)
    assert [event async for event in made.run()]
    assert made.pauses[-1] == pause


async def test_kill_by_the_user_cancels_the_job_and_may_come_twice(oscar):
    oscar.jobs["j"] = "Running"
    made = trigger()
    await made.on_kill()
    await made.on_kill()
    assert oscar.jobs == {}


async def test_end_of_the_triggerer_leaves_the_job_alone(oscar):
    oscar.jobs["j"] = "Running"
    made = trigger()
    task = asyncio.create_task(anext(made.run()))
    while not oscar.calls:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await made.cleanup()
    assert oscar.jobs == {"j": "Running"}
    assert not poller._POLLS


async def test_sensor_does_not_cancel_a_job_it_did_not_start(oscar):
    oscar.jobs["j"] = "Running"
    await trigger(cancel_on_kill=False).on_kill()
    assert oscar.jobs == {"j": "Running"}


def test_poll_interval_must_be_positive():
    with pytest.raises(DefinitionError, match="poll_interval"):
        trigger(poll_interval=0)


def test_a_deleted_job_is_waited_for_until_it_is_gone(oscar):
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            oscar.jobs.clear()

    oscar.refuse["DELETE", "/system/logs"] = 404
    oscar.jobs["j"] = "Failed"
    OscarBackend(**PLACE, sleep=sleep).delete_ended("j")
    assert len(pauses) == 3


def test_a_job_that_may_not_be_deleted_is_an_error_with_route_and_remedy(oscar):
    oscar.refuse["DELETE", "/system/logs"] = 403
    oscar.jobs["j"] = "Failed"
    with pytest.raises(AccessError, match="for DELETE '/system/logs/infer/j' the account .* allowed_users"):
        OscarBackend(**PLACE, sleep=lambda _: None).delete_ended("j")


def test_a_running_job_that_may_not_be_deleted_is_not_said_to_be_gone(oscar):
    oscar.refuse["DELETE", "/system/logs"] = 403
    oscar.jobs["j"] = "Running"
    with pytest.raises(AccessError, match="'oscar_default'.*job 'j' is listed and was not deleted"):
        OscarBackend(**PLACE).cancel("j")
    assert not OscarBackend(**PLACE).cancel("another").found


def test_a_submitted_job_is_remembered_with_the_time_of_its_specification(oscar):
    made = OscarBackend(**PLACE).submit(RunningJob(submission_id="x", job_id="x"), OscarWork(b"body", "2026-01-01"))
    assert (made.job_id, made.submitted_at, oscar.bodies) == ("x", "2026-01-01", {"x": b"body"})


def test_the_service_is_observed_with_the_jobs_it_has(oscar):
    oscar.jobs = {"a": "Running", "b": "Succeeded", "c": "Pending"}
    seen = OscarBackend(**PLACE).observe()
    assert (seen.up, seen.active) == (True, 2)
    oscar.refuse["GET", "/system/services"] = 503
    assert OscarBackend(**PLACE).observe().up is False
    assert JobPhase("Pending").active
