# SPDX-License-Identifier: Apache-2.0
"""Whether an event loop stands still: a triggerer's serves all of its triggers, so no code may keep it.

A loop is kept by code that computes, on it or in a thread that gives way to no other, and by code that waits. Both are
told from a machine that is merely busy: time for which the loop's thread was ready and got no processor counts for
neither, computing is the processor time that the process used meanwhile, and waiting is the rest. What computing may
take is stated in processor time of a calibration in the same process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

#: Seconds between two looks.
_TICK = 0.01
#: Times of the calibration that the loop may stand still for computing, and for waiting.
_COMPUTING, _WAITING = 10.0, 25.0
#: Times that a thread which only sleeps may be late before waiting counts.
_NOISE = 5.0


@cache
def calibration() -> float:
    """Return the seconds of processor time that this process takes to read a megabyte of JSON, as small values.

    The least of several tries; about 20 ms on a machine of today.
    """
    text = json.dumps([{"name": "a", "value": [1, 2, 3]}] * 25_000)
    tries = []
    for _ in range(3):
        begun = time.thread_time()
        json.loads(text)
        tries.append(time.thread_time() - begun)
    return min(tries)


def _ready_without_processor() -> float:
    """Return the seconds for which the calling thread was ready and got no processor; 0 where Linux does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    return 0.0


@dataclass
class Standstill:
    """How long the loop stood still at most, and what it was at.

    :param computing: seconds of processor time of the process.
    :param waiting: seconds.
    :param noise: seconds by which a thread that sleeps was late at most.
    :param stack: of the loop's thread, as it was seen most often while it stood still longest.
    """

    computing: float = 0.0
    waiting: float = 0.0
    noise: float = 0.0
    stack: str = ""

    def require_none(self) -> None:
        """Fail if the loop was kept."""
        unit = calibration()
        most = {"computing": _COMPUTING * unit, "waiting": _WAITING * unit + _NOISE * self.noise}
        for what, bound in most.items():
            found = getattr(self, what)
            assert found <= bound, (
                f"the event loop stood still for {found:.3f} s {what}, more than {bound:.3f} s, while reading a "
                f"megabyte of JSON takes {unit:.3f} s; it was at\n{self.stack}"
            )


async def require_free_loop(run: Callable[[], Awaitable[None]], tries: int = 3) -> None:
    """Fail if the event loop stands still at each of several tries: code keeps it again, a busy machine does not.

    :param run: what is watched.
    :param tries: at most.
    """
    for left in reversed(range(tries)):
        try:
            async with watched_loop():
                await run()
        except AssertionError:
            if not left:
                raise
        else:
            return


@asynccontextmanager
async def watched_loop() -> AsyncIterator[Standstill]:
    """Fail if the event loop stands still within the block."""
    calibration()
    # To go through all that a test process holds takes a quarter of a second, and says nothing of the code. Besides,
    # Hypothesis hears of every collection of garbage, and while it does, C code that allocates gives way to threads.
    collecting = gc.isenabled()
    gc.disable()
    seen, over = Standstill(), threading.Event()
    thread_of_loop = threading.get_ident()
    last = time.monotonic()

    async def beat() -> None:
        nonlocal last
        used, starved = time.process_time(), _ready_without_processor()
        while True:
            await asyncio.sleep(_TICK)
            # First of all, so that what is measured here is not taken for what kept the loop.
            begun, last = last, time.monotonic()
            used_now, starved_now = time.process_time(), _ready_without_processor()
            late = max(last - begun - _TICK - (starved_now - starved), 0.0)
            computed = min(used_now - used, late)
            seen.computing = max(seen.computing, computed)
            seen.waiting = max(seen.waiting, late - computed)
            used, starved = used_now, starved_now

    def watch() -> None:
        before, longest, of = time.monotonic(), 0.0, 0.0
        stacks: Counter[str] = Counter()
        while not over.wait(_TICK):
            now, beat_at = time.monotonic(), last
            seen.noise, before = max(seen.noise, now - before - _TICK), now
            if (late := now - beat_at) <= 5 * _TICK:
                continue
            if beat_at != of:
                of = beat_at
                stacks.clear()
            frame = sys._current_frames().get(thread_of_loop)
            stacks["".join(traceback.format_stack(frame)[-6:])] += 1
            if late > longest:
                longest = late
                seen.stack = stacks.most_common(1)[0][0]

    beating = asyncio.create_task(beat())
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield seen
    finally:
        if collecting:
            gc.enable()
        over.set()
        watching.join()
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
    seen.require_none()
