# SPDX-License-Identifier: Apache-2.0
"""One poll for many triggers: it starts with the first, ends with the last, and tells everyone what is wrong."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.triggers import shared_poll
from airflow_provider_oscar.triggers.shared_poll import MAX_FAILURES, JobView, subscribed

TICK = 0.002


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(shared_poll, "MIN_PAUSE", TICK)
    monkeypatch.setattr(shared_poll, "MAX_PAUSE", TICK)


class Source:
    def __init__(self):
        self.opened = self.closed = self.looks = 0
        self.errors = []
        self.jobs = {"a": JobView(JobPhase.RUNNING)}

    def open(self):
        @asynccontextmanager
        async def opened():
            self.opened += 1
            try:
                yield self
            finally:
                self.closed += 1

        return opened

    async def snapshot(self):
        self.looks += 1
        if self.errors:
            raise self.errors.pop(0)
        return dict(self.jobs)

    async def read_log(self, job):
        return f"log of {job}"


async def test_a_hundred_subscribers_share_one_poll():
    source = Source()
    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(subscribed("k", source.open(), TICK)) for _ in range(100)]
        seen = await asyncio.gather(*(place.next() for place in places))
        looks = source.looks
        assert await places[0].read_log("a") == "log of a"
    assert all(each["a"].phase is JobPhase.RUNNING for each in seen)
    assert source.opened == source.closed == 1
    assert looks < 10


async def test_poll_ends_with_its_last_subscriber_and_starts_anew():
    source = Source()
    for _ in range(2):
        async with subscribed("k", source.open(), TICK) as place:
            await place.next()
        assert not shared_poll._POLLS
    assert source.opened == source.closed == 2


async def test_different_keys_have_different_polls():
    one, two = Source(), Source()
    async with subscribed("k1", one.open(), TICK) as first, subscribed("k2", two.open(), TICK) as second:
        await first.next()
        await second.next()
    assert (one.opened, two.opened) == (1, 1)


async def test_newcomer_is_given_a_snapshot_taken_after_it_came():
    source = Source()
    async with subscribed("k", source.open(), 3600) as first:
        await first.next()
        source.jobs["b"] = JobView(JobPhase.PENDING)
        async with subscribed("k", source.open(), 3600) as second:
            assert "b" in await asyncio.wait_for(second.next(), 5)


async def test_short_outage_is_waited_out():
    source = Source()
    source.errors = [TransientError("away", delay=1e-4)] * (MAX_FAILURES - 1)
    async with subscribed("k", source.open(), TICK) as place:
        assert await asyncio.wait_for(place.next(), 5)
    assert source.looks >= MAX_FAILURES


async def test_long_outage_is_told_to_every_subscriber_and_ends_the_poll():
    source = Source()
    source.errors = [TransientError("away")] * MAX_FAILURES
    async with subscribed("k", source.open(), TICK) as one, subscribed("k", source.open(), TICK) as two:
        for place in (one, two):
            with pytest.raises(TransientError, match="away"):
                await asyncio.wait_for(place.next(), 5)
        fresh = Source()
        async with subscribed("k", fresh.open(), TICK) as three:
            assert await asyncio.wait_for(three.next(), 5)
    assert not shared_poll._POLLS


async def test_what_cannot_get_better_is_told_at_once():
    source = Source()
    source.errors = [DefinitionError("wrong password")]
    async with subscribed("k", source.open(), TICK) as place:
        with pytest.raises(DefinitionError):
            await asyncio.wait_for(place.next(), 5)
    assert source.looks == 1


async def test_a_fault_of_the_programmer_reaches_the_subscriber_too():
    source = Source()
    source.errors = [ZeroDivisionError()]
    async with subscribed("k", source.open(), TICK) as place:
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(place.next(), 5)


async def test_slow_reader_gets_the_newest_snapshot():
    source = Source()
    async with subscribed("k", source.open(), TICK) as place:
        await place.next()
        source.jobs = {}
        looks = source.looks
        for _ in range(1000):
            await asyncio.sleep(TICK)
            if source.looks >= looks + 3:
                break
        assert await place.next() == {}
