# SPDX-License-Identifier: Apache-2.0
"""One poll for many triggers: it starts with the first, ends with the last, and tells everyone what is wrong."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs import poller
from airflow_provider_oscar.jobs.poller import LOG_BURST, PollTiming, subscribed
from airflow_provider_oscar.jobs.status import JobStatus

TICK = 0.002


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds
        await asyncio.sleep(0)


def pace():
    clock = Clock()
    return PollTiming(min_pause=TICK, clock=clock, sleep=clock.sleep)


class Source:
    def __init__(self):
        self.opened = self.closed = self.looks = 0
        self.errors = []
        self.jobs = {"a": JobStatus(JobPhase.RUNNING)}

    @property
    def key(self):
        return id(self)

    @asynccontextmanager
    async def open(self):
        self.opened += 1
        try:
            yield self
        finally:
            self.closed += 1

    async def statuses(self):
        self.looks += 1
        if self.errors:
            raise self.errors.pop(0)
        return dict(self.jobs)

    async def log(self, job):
        return f"log of {job}"


async def test_a_hundred_subscribers_share_one_poll():
    source = Source()
    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(subscribed(source, TICK, pace())) for _ in range(100)]
        seen = await asyncio.gather(*(place.next() for place in places))
        looks = source.looks
        assert await places[0].log("a") == "log of a"
    assert all(each["a"].phase is JobPhase.RUNNING for each in seen)
    assert source.opened == source.closed == 1
    assert looks < 10


async def test_poll_ends_with_its_last_subscriber_and_starts_anew():
    source = Source()
    for _ in range(2):
        async with subscribed(source, TICK, pace()) as place:
            await place.next()
        assert not poller._POLLS
    assert source.opened == source.closed == 2


async def test_different_keys_have_different_polls():
    one, two = Source(), Source()
    async with subscribed(one, TICK, pace()) as first, subscribed(two, TICK, pace()) as second:
        await first.next()
        await second.next()
    assert (one.opened, two.opened) == (1, 1)


async def test_newcomer_is_given_a_list_taken_after_it_came():
    source = Source()
    async with subscribed(source, 3600, pace()) as first:
        await first.next()
        source.jobs["b"] = JobStatus(JobPhase.PENDING)
        async with subscribed(source, 3600, pace()) as second:
            assert "b" in await asyncio.wait_for(second.next(), 5)


@pytest.mark.parametrize("error", [TransientError("503"), DefinitionError("401")], ids=["503", "401"])
async def test_a_short_outage_of_any_kind_is_waited_out_with_a_client_made_anew(error):
    source = Source()
    source.errors = [error] * 5
    async with subscribed(source, TICK, pace()) as place:
        assert await asyncio.wait_for(place.next(), 5)
    assert source.opened == source.closed == 6


async def test_an_error_that_lasts_is_passed_to_every_subscriber_and_ends_the_poll():
    source = Source()
    source.errors = [DefinitionError("wrong password")] * 10_000
    same = pace()
    async with subscribed(source, 10, same) as one, subscribed(source, 10, same) as two:
        for place in (one, two):
            with pytest.raises(TransientError, match="wrong password.*answers in a row"):
                await asyncio.wait_for(place.next(), 5)
        assert same.clock.now >= same.tolerance.total_seconds()
        source.errors = []
        async with subscribed(source, TICK, pace()) as three:
            assert await asyncio.wait_for(three.next(), 5)
    assert not poller._POLLS


async def test_one_good_answer_forgives_what_was_before():
    source = Source()
    same = pace()
    async with subscribed(source, 0.01, same) as place:
        for _ in range(20):
            source.errors = [TransientError("away", delay=50.0)] * 2
            while source.errors:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert await asyncio.wait_for(place.next(), 5)
    assert same.clock.now > 2 * same.tolerance.total_seconds()


async def test_the_server_says_when_to_come_back():
    source = Source()
    source.errors = [TransientError("busy", delay=42.0)]
    same = pace()
    async with subscribed(source, TICK, same) as place:
        await asyncio.wait_for(place.next(), 5)
    assert same.clock.now == pytest.approx(42.0, abs=1)


async def test_the_more_wait_the_rarer_each_log_is_read():
    source = Source()
    same = pace()
    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(subscribed(source, TICK, same)) for _ in range(300)]
        assert places[0].log_pause == 600.0


async def test_a_fault_of_the_programmer_reaches_the_subscriber_too():
    source = Source()
    source.errors = [ZeroDivisionError()]
    async with subscribed(source, TICK, pace()) as place:
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(place.next(), 5)


async def test_slow_reader_gets_the_newest_snapshot():
    source = Source()
    async with subscribed(source, TICK, pace()) as place:
        await place.next()
        source.jobs = {}
        looks = source.looks
        for _ in range(1000):
            await asyncio.sleep(TICK)
            if source.looks >= looks + 3:
                break
        assert await place.next() == {}


async def test_a_thousand_who_begin_to_wait_at_once_read_a_few_logs_and_then_one_at_a_time():
    source = Source()
    same = pace()
    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(subscribed(source, TICK, same)) for _ in range(1000)]
        assert sum(place.may_read_log() for place in places) == LOG_BURST
        begun = same.clock.now
        same.clock.now = begun + 3 * same.log_spacing
        assert sum(place.may_read_log() for place in places) == 3
