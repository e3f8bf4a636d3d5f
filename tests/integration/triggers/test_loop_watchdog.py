# SPDX-License-Identifier: Apache-2.0
"""The watchdog of event loops sees each way in which one is kept, and no other."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.support.loop_watchdog import _COMPUTING, _WAITING, Standstill, calibration, watched_loop


def _values(times: float) -> str:
    """JSON that takes about so many calibrations to read."""
    return json.dumps([{"name": "a", "value": [1, 2, 3]}] * int(25_000 * times))


async def _seen(work: Callable[[], Awaitable[object]]) -> Standstill:
    """Return what is seen of a work, which fails."""
    found: list[Standstill] = []

    async def watched() -> None:
        async with watched_loop() as seen:
            found.append(seen)
            await asyncio.sleep(0.05)
            await work()
            await asyncio.sleep(0.05)

    with pytest.raises(AssertionError, match="the event loop stood still"):
        await watched()
    return found[0]


async def test_computing_on_the_loop_is_seen_with_its_place():
    # In pieces: between two of them the thread that looks gets its turn, however busy the machine is.
    text, pieces = _values(1), int(2 * _COMPUTING)

    async def compute() -> None:
        for _ in range(pieces):
            json.loads(text)

    seen = await _seen(compute)
    assert seen.computing > _COMPUTING * calibration()
    assert "json.loads" in seen.stack


async def test_a_thread_that_gives_way_to_nobody_is_seen():
    text = _values(2 * _COMPUTING)
    seen = await _seen(lambda: asyncio.to_thread(json.loads, text))
    assert seen.computing > _COMPUTING * calibration()


async def test_waiting_on_the_loop_is_seen():
    never = threading.Event()

    async def wait() -> None:
        never.wait(2 * _WAITING * calibration())

    seen = await _seen(wait)
    assert seen.waiting > _WAITING * calibration()


async def test_threads_that_wait_or_give_way_are_nothing():
    over = threading.Event()

    def compute() -> None:
        end = time.thread_time() + 2 * _COMPUTING * calibration()
        while time.thread_time() < end:
            sum(range(100))

    async with watched_loop() as seen:
        waiting = asyncio.create_task(asyncio.to_thread(over.wait, 30))
        await asyncio.to_thread(compute)
        over.set()
        await waiting
    assert seen.computing <= _COMPUTING * calibration()
