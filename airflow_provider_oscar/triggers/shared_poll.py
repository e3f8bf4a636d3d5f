# SPDX-License-Identifier: Apache-2.0
"""One poll for all triggers of a process that look at the same place.

A hundred deferred tasks that wait for jobs of one OSCAR service would each list all of its jobs; here one
task of the event loop lists them and hands every snapshot to whoever subscribed. It starts with the first
subscriber and ends with the last. (Airflow's own shared streams serve event triggers only.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from airflow_provider_oscar.core.errors import LostContactError, TransientError
from airflow_provider_oscar.core.phase import JobPhase

#: Refusals in a row after which subscribers are told, so that their tasks are retried elsewhere.
MAX_FAILURES = 10
#: Longest pause between two attempts while the other side is away, in seconds.
MAX_PAUSE = 120.0
#: Shortest pause between two looks, also when subscribers arrive in a row.
MIN_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class JobView:
    """One look at one job.

    :param phase: normalised.
    :param note: the other side's own words, foreign text.
    :param slurm_job_id: where there is one.
    :param node: where it runs.
    :param exit_code: of its container, where known.
    """

    phase: JobPhase
    note: str = ""
    slurm_job_id: str = ""
    node: str = ""
    exit_code: int | None = None


class JobSource(Protocol):
    """Where jobs are looked at."""

    async def snapshot(self) -> Mapping[str, JobView]:
        """Every job there, by name."""

    async def read_log(self, job: str) -> str | None:
        """The whole log so far, or None."""


OpenSource = Callable[[], AbstractAsyncContextManager[JobSource]]


@dataclass(eq=False)
class Subscription:
    """One trigger's place at a poll; holds the newest snapshot that was not taken yet."""

    interval: float
    poll: _Poll
    _box: asyncio.Queue[Mapping[str, JobView] | Exception] = field(default_factory=lambda: asyncio.Queue(1))

    async def next(self) -> Mapping[str, JobView]:
        """Wait for a snapshot taken after the last one.

        :raises OscarProviderError: if the place cannot be looked at, for good or for too long.
        """
        found = await self._box.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def read_log(self, job: str) -> str | None:
        """Read a log through the poll's own client; None if that is not possible now."""
        return await self.poll.read_log(job)

    def put(self, found: Mapping[str, JobView] | Exception) -> None:
        """Replace what was not taken yet."""
        if self._box.full():
            self._box.get_nowait()
        self._box.put_nowait(found)


class _Poll:
    """The task that looks, and who wants to know."""

    def __init__(self, open_source: OpenSource) -> None:
        self.subscriptions: set[Subscription] = set()
        self.ended = False
        self._open = open_source
        self._source: JobSource | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def join(self, interval: float) -> Subscription:
        subscription = Subscription(interval, self)
        self.subscriptions.add(subscription)
        # A newcomer's job may not be in the last snapshot, so look again now.
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return subscription

    async def leave(self, subscription: Subscription) -> bool:
        """Return whether it was the last one."""
        self.subscriptions.discard(subscription)
        if self.subscriptions:
            return False
        self.ended = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        return True

    async def read_log(self, job: str) -> str | None:
        return None if self._source is None else await self._source.read_log(job)

    async def _run(self) -> None:
        try:
            async with self._open() as self._source:
                await self._look_for_ever(self._source)
        except Exception as error:  # noqa: BLE001 - whatever it is, every subscriber gets it
            self.ended = True
            self._broadcast(error)
        finally:
            self._source = None

    async def _look_for_ever(self, source: JobSource) -> None:
        failures = 0
        while True:
            self._wake.clear()
            try:
                found = await source.snapshot()
            except (TransientError, LostContactError) as error:
                failures += 1
                if failures >= MAX_FAILURES:
                    raise
                asked = error.delay if isinstance(error, TransientError) else None
                await asyncio.sleep(min(asked or self._interval * 2**failures, MAX_PAUSE))
                continue
            failures = 0
            self._broadcast(found)
            await asyncio.sleep(min(MIN_PAUSE, self._interval))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(self._interval - MIN_PAUSE, 0.0))

    @property
    def _interval(self) -> float:
        return min((each.interval for each in self.subscriptions), default=1.0)

    def _broadcast(self, found: Mapping[str, JobView] | Exception) -> None:
        for subscription in self.subscriptions:
            subscription.put(found)


_POLLS: dict[tuple[asyncio.AbstractEventLoop, Hashable], _Poll] = {}


@asynccontextmanager
async def subscribed(key: Hashable, open_source: OpenSource, interval: float) -> AsyncIterator[Subscription]:
    """Take part in the poll of ``key``; starts it if nobody did.

    :param key: what is looked at; equal keys share one poll.
    :param open_source: opens it, called once per poll.
    :param interval: most seconds between two looks; the shortest of all subscribers counts.
    """
    place = (asyncio.get_running_loop(), key)
    poll = _POLLS.get(place)
    if poll is None or poll.ended:
        poll = _POLLS[place] = _Poll(open_source)
    subscription = poll.join(interval)
    try:
        yield subscription
    finally:
        if await poll.leave(subscription) and _POLLS.get(place) is poll:
            del _POLLS[place]
