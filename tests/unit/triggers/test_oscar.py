# SPDX-License-Identifier: Apache-2.0
"""Waiting for an OSCAR job in the triggerer."""

from __future__ import annotations

import asyncio
import time

import pytest

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.triggers import shared_poll
from airflow_provider_oscar.triggers.oscar import OscarJobTrigger
from tests.support.fakes import FakeOscar

pytestmark = pytest.mark.usefixtures("hurried")


@pytest.fixture
def oscar(monkeypatch):
    return FakeOscar().install(monkeypatch)


def trigger(**arguments):
    made = OscarJobTrigger(
        **{"conn_id": "oscar_default", "service": "infer", "job_id": "j", "poll_interval": 0.001} | arguments
    )
    made.lines = []
    made.log.info = lambda text, *values: made.lines.append(text % values)
    return made


async def events(made):
    return [event.payload async for event in made.run()]


async def only_event(made):
    found = await asyncio.wait_for(events(made), 10)
    assert len(found) == 1
    assert not shared_poll._POLLS, "a poll was left behind"
    return found[0]


async def test_end_of_the_job_is_the_one_event(oscar):
    oscar.jobs["j"] = "Running"
    oscar.after_list = [lambda: None, lambda: oscar.jobs.update(j="Succeeded")]
    event = await only_event(trigger())
    assert (event["status"], event["phase"]) == ("ended", "succeeded")


async def test_log_is_shown_while_the_job_runs_and_escaped(oscar):
    oscar.jobs["j"] = "Running"
    oscar.logs["j"] = "epoch 1\nevil \x1b[2J\n"
    steps = [lambda: None] * 3
    oscar.after_list = [*steps, lambda: oscar.logs.update(j="epoch 1\nevil \x1b[2J\nepoch 2\n"), *steps]
    oscar.after_list += [lambda: oscar.jobs.update(j="Failed")]
    made = trigger()
    assert (await only_event(made))["phase"] == "failed"
    assert [line for line in made.lines if "epoch" in line] == ["epoch 1", "epoch 2"]
    assert "evil \\x1b[2J" in made.lines


async def test_deadline_ends_the_wait(oscar):
    oscar.jobs["j"] = "Running"
    assert await only_event(trigger(deadline=time.time() + 0.05)) == {"status": "timeout"}
    assert "j" in oscar.jobs, "the operator cancels, with its own hook"


async def test_unknown_word_keeps_waiting(oscar):
    oscar.jobs["j"] = "Hibernating"
    made = trigger(deadline=time.time() + 0.1)
    assert (await only_event(made))["status"] == "timeout"
    assert sum("Hibernating" in line for line in made.lines) == 1


async def test_job_that_stays_away_is_absent(oscar):
    assert (await only_event(trigger()))["phase"] == "absent"


async def test_wrong_credentials_are_a_permanent_error(oscar):
    oscar.refuse["GET", "/system/logs"] = 401
    event = await only_event(trigger())
    assert (event["status"], event["permanent"]) == ("error", True)
    assert "connection 'oscar_default'" in event["message"]


async def test_long_outage_is_an_error_that_may_pass(oscar):
    oscar.refuse["GET", "/system/logs"] = 503
    event = await only_event(trigger())
    assert (event["status"], event["permanent"]) == ("error", False)


async def test_fifty_jobs_of_one_service_are_watched_by_one_list_at_a_time(oscar):
    names = [f"j{number}" for number in range(50)]
    oscar.jobs = dict.fromkeys(names, "Running")
    oscar.after_list = [lambda: None] * 3 + [lambda: oscar.jobs.update(dict.fromkeys(names, "Succeeded"))]
    found = await asyncio.wait_for(
        asyncio.gather(*(events(trigger(job_id=name, follow_log=False)) for name in names)), 20
    )
    assert [each[0]["phase"] for each in found] == ["succeeded"] * 50
    assert len(oscar.calls) < 15


async def test_settled_job_is_told_again_without_a_request(oscar):
    settled = {"status": "ended", "phase": "succeeded"}
    assert await only_event(trigger(settled=settled)) == settled
    assert oscar.calls == []


async def test_kill_by_the_user_cancels_the_job_and_may_come_twice(oscar):
    oscar.jobs["j"] = "Running"
    made = trigger()
    await made.on_kill()
    await made.on_kill()
    assert oscar.jobs == {}


async def test_end_of_the_triggerer_leaves_the_job_alone(oscar):
    oscar.jobs["j"] = "Running"
    made = trigger()
    task = asyncio.create_task(events(made))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await made.cleanup()
    assert oscar.jobs == {"j": "Running"}
    assert not shared_poll._POLLS


async def test_sensor_does_not_cancel_a_job_it_did_not_start(oscar):
    oscar.jobs["j"] = "Running"
    await trigger(cancel_on_kill=False).on_kill()
    assert oscar.jobs == {"j": "Running"}


def test_poll_interval_must_be_positive():
    with pytest.raises(DefinitionError, match="poll_interval"):
        trigger(poll_interval=0)
