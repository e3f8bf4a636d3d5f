# SPDX-License-Identifier: Apache-2.0
"""Time, processor time, peak memory and the longest stall of an event loop; standard library only.

Each contender runs in a process of its own and prints one line of JSON, so that none inherits another's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Figures:
    """What one contender needed.

    :param peak: most resident memory in MB, interpreter and libraries included.
    :param growth: how much of it came during the measurement.
    :param stall: longest time in ms the event loop did not come round, or None if there is no loop.
    :param idle_stall: the same for an idle loop just before, which tells how busy the machine is.
    :param held: longest processor time in ms that the loop's thread used without coming round: its own part of the
        stall, whatever else the machine does.
    :param collection: longest garbage collection in ms; grows with all that Airflow keeps in memory.
    """

    wall: float = 0.0
    cpu: float = 0.0
    peak: float = 0.0
    growth: float = 0.0
    stall: float | None = None
    idle_stall: float | None = None
    held: float | None = None
    collection: float = 0.0
    count: int = 0
    requests: int = 0

    def tell(self) -> None:
        """Print the line that the parent reads."""
        print(json.dumps(asdict(self)), flush=True)


def _memory(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def settle() -> None:
    """Collect what was left before, which is no part of the measurement."""
    gc.collect()


@contextlib.contextmanager
def measured() -> Iterator[Figures]:
    """Measure the block; set ``count`` of what is yielded in it. Call :func:`settle` before."""
    figures = Figures()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before, cpu, wall = _memory("VmRSS"), time.process_time(), time.perf_counter()
    began = 0.0

    def collected(phase: str, _: object) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        else:
            figures.collection = max(figures.collection, (time.perf_counter() - began) * 1000)

    gc.callbacks.append(collected)
    yield figures
    gc.callbacks.remove(collected)
    figures.wall, figures.cpu = time.perf_counter() - wall, time.process_time() - cpu
    figures.peak = _memory("VmHWM")
    figures.growth = figures.peak - before


@contextlib.asynccontextmanager
async def loop_watched(*, idle: float = 2.0) -> AsyncIterator[Figures]:
    """Measure the block and how long the running loop was kept from a task that wants to run each millisecond."""
    longest = held = 0.0

    async def tick() -> None:
        nonlocal longest, held
        last, used = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now, busy = time.perf_counter(), time.thread_time()
            longest, last = max(longest, now - last - 0.001), now
            held, used = max(held, busy - used), busy

    settle()
    ticker = asyncio.create_task(tick())
    await asyncio.sleep(idle)
    idle_stall = longest
    try:
        with measured() as figures:
            longest = held = 0.0
            yield figures
    finally:
        ticker.cancel()
    figures.stall, figures.idle_stall, figures.held = longest * 1000, idle_stall * 1000, held * 1000
