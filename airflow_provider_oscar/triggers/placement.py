# SPDX-License-Identifier: Apache-2.0
"""Waits for the first of several jobs that do the same work at different targets, or for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_oscar.jobs.status import JsonObject
from airflow_provider_oscar.triggers.jobs import SAFE_AFTER, JobTrigger
from airflow_provider_oscar.triggers.stored import StoredTrigger

#: Status of the event of a wait that came to its time.
WAKE = "wake"


class FirstJobTrigger(StoredTrigger):
    """Yields one event: ``{"status": "job", "index": …, "event": …}`` for the first of the jobs that ends, with the
    event that :class:`~airflow_provider_oscar.triggers.jobs.JobTrigger` would have yielded, or ``{"status": "wake"}``.

    When its task is killed, all jobs are cancelled.

    :param jobs: keyword arguments of a ``JobTrigger`` for each job; none to wait for the time alone.
    :param wake_at: seconds since the epoch at which to wake up in any case, or None for never.
    """

    #: For tests.
    clock = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)

    def __init__(self, *, jobs: Sequence[Mapping[str, Any]] = (), wake_at: float | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.jobs = [dict(each) for each in jobs]
        self.wake_at = wake_at

    @classmethod
    def of(cls, triggers: Sequence[JobTrigger], wake_at: float | None = None) -> FirstJobTrigger:
        """Return a trigger that does what others do, for the first of them.

        :param triggers: of the jobs.
        :param wake_at: seconds since the epoch at which to wake up in any case, or None for never.
        """
        return cls(jobs=[each.serialize()[1] for each in triggers], wake_at=wake_at)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait."""
        started = self.clock()
        event = await self.first()
        await self.sleep(max(SAFE_AFTER - (self.clock() - started), 0.0))
        yield TriggerEvent(event)

    async def first(self) -> JsonObject:
        """Return the event; also for a task that waits on its worker."""
        triggers = [JobTrigger(**each) for each in self.jobs]
        waits = [asyncio.ensure_future(each.event()) for each in triggers]
        if self.wake_at is not None:
            waits.append(asyncio.ensure_future(self._wake()))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            index = next(position for position, each in enumerate(waits) if each in done)
            event = waits[index].result()
            return event if index == len(triggers) else {"status": "job", "index": index, "event": event}
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _wake(self) -> JsonObject:
        await self.sleep(max((self.wake_at or 0.0) - time.time(), 0.0))
        return {"status": WAKE}

    async def on_kill(self) -> None:
        """Save the log of each job and cancel it."""
        triggers = [JobTrigger(**each) for each in self.jobs]
        ended = await asyncio.gather(*(each.on_kill() for each in triggers), return_exceptions=True)
        for each, error in zip(triggers, ended, strict=True):
            if isinstance(error, BaseException):
                self.log.warning("Whether job %s was cancelled is not known: %s", each.job_id, error or "no answer")
