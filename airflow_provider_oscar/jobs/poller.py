# SPDX-License-Identifier: Apache-2.0
"""One poll for all who wait for jobs of one place.

A hundred deferred tasks that wait for jobs of one OSCAR service would each list all of its jobs; here one task of the
event loop lists them and hands every result to all that subscribed. It starts with the first subscriber and ends with
the last. (Airflow's own shared streams serve event triggers only.)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from airflow_provider_oscar.core.errors import OscarProviderError, TransientError
from airflow_provider_oscar.core.patience import ErrorHistory
from airflow_provider_oscar.jobs.backend import JobClient, JobSystem
from airflow_provider_oscar.jobs.status import JobStatus

#: Logs of one place that may be read one after the other before the spacing counts.
LOG_BURST = 5.0


@dataclass(frozen=True, kw_only=True)
class PollTiming:
    """How fast jobs are looked at; all in seconds.

    :param min_pause: shortest pause between two polls, also when subscribers arrive in a row.
    :param max_pause: longest pause between two attempts while the other side is away.
    :param tolerance: how long errors are tolerated before the waiting tasks are given back to Airflow.
    :param absence_grace: how long a job may be missing from the list before it counts as gone.
    :param submission_grace: how long a virtual node may keep a pod without a job (it waits five minutes for Secrets),
        and a kubelet one whose image or settings it does not get.
    :param log_interval: between two reads of one log, at least.
    :param log_spacing: between two reads of any log at one place, on average: with 300 jobs each log is read every
        300 times as many seconds.
    :param proof_interval: between two requests for the manifest of one job that seems to run, at least.
    :param proof_spacing: between two requests for any manifest at one place, on average.
    :param clock: seconds that never go back.
    :param sleep: waits.
    """

    min_pause: float = 0.5
    max_pause: float = 120.0
    tolerance: timedelta = timedelta(minutes=10)
    absence_grace: float = 60.0
    submission_grace: float = 600.0
    log_interval: float = 5.0
    log_spacing: float = 2.0
    proof_interval: float = 15.0
    proof_spacing: float = 0.5
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(eq=False)
class Subscription:
    """One waiting task's place at a poll; holds the newest result that was not taken yet."""

    interval: float
    poll: _Poll
    _box: asyncio.Queue[Mapping[str, JobStatus] | Exception] = field(default_factory=lambda: asyncio.Queue(1))

    async def next(self) -> Mapping[str, JobStatus]:
        """Wait for a list that was taken after the last one.

        :raises OscarProviderError: if the place could not be looked at for too long.
        """
        found = await self._box.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def log(self, job_id: str) -> str | None:
        """Read a log through the poll's own client; None if that is not possible now."""
        client = self.poll.client
        return None if client is None else await client.log(job_id)

    def may_read_log(self) -> bool:
        """Take one of the reads of any log that the place has left; False if there is none now."""
        return self.poll.take_log_read()

    @property
    def log_pause(self) -> float:
        """Seconds between two reads of this job's log, so that all who wait together keep the bound."""
        pace = self.poll.pace
        return max(pace.log_interval, pace.log_spacing * len(self.poll.subscriptions))

    @property
    def proof_pause(self) -> float:
        """Seconds between two requests for this job's manifest, with the same bound."""
        pace = self.poll.pace
        return max(pace.proof_interval, pace.proof_spacing * len(self.poll.subscriptions))

    def put(self, found: Mapping[str, JobStatus] | Exception) -> None:
        """Replace what was not taken yet."""
        if self._box.full():
            self._box.get_nowait()
        self._box.put_nowait(found)


class _Poll:
    """The task that looks, and who wants to know."""

    def __init__(self, backend: JobSystem, pace: PollTiming) -> None:
        self.subscriptions: set[Subscription] = set()
        self.ended = False
        #: Why the place cannot be looked at now; empty while it can.
        self.trouble = ""
        self.client: JobClient | None = None
        self.pace = pace
        self._backend = backend
        self._errors = ErrorHistory(pace.tolerance)
        self._wake = asyncio.Event()
        self._reads = LOG_BURST
        self._reads_at = pace.clock()
        self._task: asyncio.Task[None] | None = None

    def take_log_read(self) -> bool:
        """Bound the reads of all logs together, also in the moment in which a thousand tasks begin to wait."""
        spacing, now = self.pace.log_spacing, self.pace.clock()
        if spacing <= 0:
            return True
        self._reads = min(self._reads + (now - self._reads_at) / spacing, LOG_BURST)
        self._reads_at = now
        if self._reads < 1:
            return False
        self._reads -= 1
        return True

    def join(self, interval: float) -> Subscription:
        subscription = Subscription(interval, self)
        self.subscriptions.add(subscription)
        # A newcomer's job may not be in the last list, so look again now.
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
            await asyncio.gather(self._task, return_exceptions=True)
        return True

    async def _run(self) -> None:
        try:
            while True:
                try:
                    # Opened again after each error, so that a renewed credential is used.
                    async with self._backend.open() as self.client:
                        await self._look_again_and_again(self.client)
                except OscarProviderError as error:
                    self.client = None
                    self.trouble = str(error)
                    now = self.pace.clock()
                    if self._errors.record(now):
                        raise self._errors.giving_up(error, now) from error
                    asked = error.delay if isinstance(error, TransientError) else None
                    pause = asked or self._interval * 2 ** min(self._errors.count, 10)
                    await self.pace.sleep(min(pause, self.pace.max_pause))
        except Exception as error:  # noqa: BLE001 - whatever it is, every subscriber gets it
            self.ended = True
            self._broadcast(error)
        finally:
            self.client = None

    async def _look_again_and_again(self, client: JobClient) -> None:
        while True:
            self._wake.clear()
            found = await client.statuses()
            self._errors.reset()
            self.trouble = ""
            self._broadcast(found)
            await self.pace.sleep(min(self.pace.min_pause, self._interval))
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self._interval - self.pace.min_pause, 0.0)):
                    await self._wake.wait()

    @property
    def _interval(self) -> float:
        return min((each.interval for each in self.subscriptions), default=1.0)

    def _broadcast(self, found: Mapping[str, JobStatus] | Exception) -> None:
        for subscription in self.subscriptions:
            subscription.put(found)


_POLLS: dict[tuple[asyncio.AbstractEventLoop, Hashable], _Poll] = {}


@asynccontextmanager
async def subscribed(
    backend: JobSystem,
    interval: float,
    pace: PollTiming = PollTiming(),  # noqa: B008 - frozen
) -> AsyncIterator[Subscription]:
    """Take part in the poll of a place; starts it if nobody did.

    :param backend: what is looked at; backends with an equal ``key`` share one poll.
    :param interval: most seconds between two polls; the shortest of all subscribers counts.
    :param pace: of the poll, if it is started here.
    """
    place = (asyncio.get_running_loop(), backend.key)
    poll = _POLLS.get(place)
    if poll is None or poll.ended:
        poll = _POLLS[place] = _Poll(backend, pace)
    subscription = poll.join(interval)
    try:
        yield subscription
    finally:
        if await poll.leave(subscription) and _POLLS.get(place) is poll:
            del _POLLS[place]
