# SPDX-License-Identifier: Apache-2.0
"""A system that is away costs a task with retries no try, for as long as outages are tolerated."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import AccessError, OscarProviderError, TransientError
from airflow_provider_oscar.operators import outages
from airflow_provider_oscar.operators.outages import LONGEST, Outage
from airflow_provider_oscar.triggers.jobs import JobTrigger
from airflow_provider_oscar.triggers.outages import OutageTrigger
from tests.support.fakes import Store, context
from tests.support.operators import oscar_operator

pytestmark = pytest.mark.usefixtures("supervisor")


def operator(**arguments):
    return oscar_operator(**{"retries": 3} | arguments)


def deferred(run):
    with pytest.raises(TaskDeferred) as raised:
        run()
    return raised.value


def again(pause, seen):
    """What Airflow does after the pause: a new process, a new operator."""
    assert pause.method_name == "execute_again"
    event = json.loads(json.dumps(pause.trigger.outage))
    return operator().execute_again(seen, event=event)


@pytest.mark.parametrize("status", [500, 503, 429, 401, 403])
def test_a_place_that_is_away_is_waited_for_in_the_triggerer(oscar, status):
    seen = context(Store())
    oscar.refuse["POST", "/job"] = status
    pause = deferred(lambda: operator().execute(seen))
    assert isinstance(pause.trigger, OutageTrigger)
    second = deferred(lambda: again(pause, seen))
    assert second.trigger.until > pause.trigger.until
    assert (second.trigger.outage["since"], second.trigger.outage["pauses"]) == (pause.trigger.outage["since"], 2)
    oscar.refuse.clear()
    assert isinstance(deferred(lambda: again(second, seen)).trigger, JobTrigger)
    assert len(oscar.jobs) == 1


async def test_a_job_of_the_try_before_is_cancelled_with_a_task_that_waits_for_its_place_to_be_back(oscar):
    store = Store()
    seen = context(store)
    deferred(lambda: operator().execute(seen))
    oscar.refuse["GET", "/system/logs"] = 503
    pause = await asyncio.to_thread(deferred, lambda: operator().execute(seen))
    assert isinstance(pause.trigger, OutageTrigger)
    oscar.refuse.clear()
    made = OutageTrigger(**json.loads(json.dumps(pause.trigger.serialize()[1])))
    await made.on_kill()
    assert oscar.jobs == {}


def test_an_outage_longer_than_is_tolerated_ends_the_try(oscar, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OSCAR__OUTAGE_TOLERANCE", "60")
    oscar.refuse["POST", "/job"] = 503
    seen = context(Store())
    old = Outage(time.time() - 61, 3)
    with pytest.raises(TransientError, match="503"):
        operator().execute_again(seen, event=old.to_dict())


@pytest.mark.parametrize("changes", [{"retries": 0}, {"elsewhere": "place"}], ids=["no retries", "placed elsewhere"])
def test_a_task_that_has_no_retries_or_another_place_does_not_wait(oscar, changes):
    oscar.refuse["POST", "/job"] = 503
    task = operator(retries=changes.get("retries", 3))
    task.elsewhere = changes.get("elsewhere", "")
    with pytest.raises(TransientError):
        task.execute(context(Store()))


def test_what_is_wrong_for_good_is_said_at_once(oscar):
    oscar.refuse["POST", "/job"] = 400
    with pytest.raises((AirflowFailException, OscarProviderError)):
        operator().execute(context(Store()))


def test_a_task_that_waits_on_its_worker_waits_there(oscar, monkeypatch):
    oscar.refuse["POST", "/job"] = 503
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        oscar.refuse.clear()
        raise KeyboardInterrupt

    monkeypatch.setattr("airflow_provider_oscar.operators.outages.time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        operator(deferrable=False).execute(context(Store()))
    assert 0 < pauses[0] <= outages.SHORTEST


@given(
    st.integers(0, 10**6),
    st.lists(st.one_of(st.none(), st.floats(0, 1e9)), max_size=40),
    st.floats(0, 10**5),
)
def test_pauses_are_bounded_and_end_with_the_tolerance(since, delays, tolerance):
    known: Outage | None = Outage(float(since))
    now = float(since)
    for delay in delays:
        error = AccessError("401") if delay is None else TransientError("503", delay=delay)
        later = known.next(error, now, tolerance)
        if later is None:
            assert now >= since + tolerance
            return
        assert now < later.until <= min(now + LONGEST, since + tolerance) + 1e-6
        known, now = later, later.until
        assert Outage.from_dict(json.loads(json.dumps(known.to_dict()))) == known


@pytest.mark.parametrize("fields", [None, {}, "x", {"since": 1}])
def test_an_event_that_is_none_of_an_outage_is_passed_over(fields):
    assert Outage.from_dict(fields) is None
