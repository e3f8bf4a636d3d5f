# SPDX-License-Identifier: Apache-2.0
"""Whether an event loop stands still: a triggerer's serves all of its triggers, so no code may keep it.

How long a loop may stand still is measured against the machine's own noise: a thread that sleeps as the loop does is as
late as the machine is busy.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

#: Seconds between two looks.
_TICK = 0.01


@dataclass
class Standstill:
    """How late the loop and the machine were.

    :param loop: seconds the loop stood still at most.
    :param machine: seconds by which a thread of its own was late at most.
    :param stack: what the loop was at when it stood still longest.
    """

    loop: float = 0.0
    machine: float = 0.0
    stack: str = ""
    _beat: float = field(default_factory=time.monotonic)

    def require_below(self, seconds: float) -> None:
        """Fail if the loop stood still longer than ``seconds`` and five times the machine's own noise."""
        bound = seconds + 5 * self.machine
        assert self.loop <= bound, (
            f"the event loop stood still for {self.loop:.2f} s, more than {bound:.2f} s; it was at\n{self.stack}"
        )


@asynccontextmanager
async def watched_loop(seconds: float = 0.25) -> AsyncIterator[Standstill]:
    """Fail if the event loop stands still within the block.

    :param seconds: it may, beyond the machine's own noise.
    """
    seen, over = Standstill(), threading.Event()
    thread_of_loop = threading.get_ident()

    async def beat() -> None:
        while True:
            await asyncio.sleep(_TICK)
            seen._beat = time.monotonic()

    def watch() -> None:
        before = time.monotonic()
        while not over.wait(_TICK):
            now = time.monotonic()
            seen.machine, before = max(seen.machine, now - before - _TICK), now
            if (still := now - seen._beat - _TICK) > seen.loop:
                frame = sys._current_frames().get(thread_of_loop)
                seen.loop, seen.stack = still, "".join(traceback.format_stack(frame)[-6:])

    beating = asyncio.create_task(beat())
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield seen
    finally:
        over.set()
        watching.join()
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
    seen.require_below(seconds)
