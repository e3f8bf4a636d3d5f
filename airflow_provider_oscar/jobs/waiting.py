# SPDX-License-Identifier: Apache-2.0
"""Waiting for one job to end, in the triggerer or on a worker, with its log shown as it grows.

Nothing here decides whether a job succeeded: the event says in which phase it ended, and
:mod:`~airflow_provider_oscar.jobs.outcome` decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.core.logs import MARKER, LogPosition, progress
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.refusals import (
    NEVER_STARTS,
    NEVER_SUBMITTED,
    STUCK,
    STUCK_FOR_GOOD,
    TAKEN_BACK,
    never_ran,
)
from airflow_provider_oscar.hooks.pool import get_pool, named_pool
from airflow_provider_oscar.jobs.access import AccessRenewer
from airflow_provider_oscar.jobs.backend import JobSystem
from airflow_provider_oscar.jobs.poller import PollTiming, Subscription, subscribed
from airflow_provider_oscar.jobs.status import ABSENT, REASON_LIMIT, JobEvent, JobStatus, JsonObject
from airflow_provider_oscar.jobs.summary import storable

#: Characters of a log that are read on the event loop, and lines that are shown before others get their turn.
_READ_ON_LOOP, _SAID_AT_ONCE = 64 * 1024, 50
#: Threads that read larger ones.
_READING = "reading the logs of jobs"
#: A logging function that takes a format and its values.
Say = Callable[..., None]
#: Asks whether the job's manifest is in its place, of a job that has ended there or of one that goes on; None if the
#: store cannot be asked now.
Proof = Callable[[bool], Awaitable[bool | None]]


class JobObserver(Protocol):
    """Who else is told of a job; called in threads, where it may block."""

    def started(self, job_id: str, /) -> None:
        """The job is seen to run; called at each look."""

    def lines(self, job_id: str, lines: Sequence[str], /) -> None:
        """Further lines of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What to wait for.

    :param job_id: name of the job or pod.
    :param deadline: seconds since the epoch at which the wait ends with ``timeout``, or None for never.
    :param queue_deadline: seconds since the epoch at which it ends with ``queue_timeout`` if the job has not
        started, or None.
    :param poll_interval: seconds between two polls.
    :param follow_log: show the job's log as it grows.
    :param log_lines: lines of the log that were shown before.
    :param grace: seconds for which a manifest is waited for after the job has ended.
    """

    job_id: str
    deadline: float | None = None
    queue_deadline: float | None = None
    poll_interval: float = 10.0
    follow_log: bool = True
    log_lines: int = 0
    grace: float = 60.0


async def wait_for_job(
    backend: JobSystem,
    wait: Wait,
    *,
    say: Say,
    pace: PollTiming = PollTiming(),  # noqa: B008 - frozen
    proof: Proof | None = None,
    renewer: AccessRenewer | None = None,
    observer: JobObserver | None = None,
) -> JsonObject:
    """Wait until a job has ended, or its manifest is there, and return the event of it.

    :param backend: where the job runs.
    :param wait: which job, and for how long.
    :param say: where status and log are shown.
    :param pace: how fast it is looked at.
    :param proof: asks for the job's manifest; None for a job that writes none.
    :param renewer: renews what the job may reach; None where that lasts.
    :param observer: is told when the job runs, and shown its log as it grows.
    :return: a :class:`~airflow_provider_oscar.jobs.status.JobEvent` as JSON.
    """
    follower = LogFollower(say, wait.log_lines, pace, observer)
    left = None if wait.deadline is None else max(wait.deadline - time.time(), 0.0)
    watch: _Watch | None = None
    event: JobEvent | None = None
    try:
        async with asyncio.timeout(left):
            async with _renewing(renewer, backend, say), subscribed(backend, wait.poll_interval, pace) as subscription:
                watch = _Watch(subscription, wait, follower, say, pace, proof, observer)
                event = await watch.until_end()
    except TimeoutError:
        if event is None:
            event = JobEvent(status="timeout") if watch is None else watch.at_the_deadline()
    except OscarProviderError as error:
        event = JobEvent(status="error", message=str(error))
    event = replace(event, log_lines=follower.lines)
    # What others wrote is in it, and PostgreSQL holds not all of what they may write.
    return {name: storable(value) for name, value in event.to_dict().items()}


@asynccontextmanager
async def _renewing(renewer: AccessRenewer | None, backend: JobSystem, say: Say) -> AsyncIterator[None]:
    """Renew the job's access beside the waiting, in threads of its own.

    A renewal that is under way when the job ends is waited for: what it writes would be left in the store, since the
    access is withdrawn next.
    """
    if renewer is None:
        yield
        return
    pool = get_pool("access", backend.conn_id)
    over = asyncio.Event()

    async def pause(seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await over.wait()

    async def renew() -> None:
        warned = ""
        while True:
            await pause(renewer.pause(datetime.now(UTC)))
            if over.is_set():
                return
            try:
                problem = await pool.call(renewer.attempt)
            except OscarProviderError as error:
                problem = str(error)
                await pause(1.0)
            if problem and problem != warned:
                say("The job's access to its stores cannot be renewed now: %s", problem)
            warned = problem

    task = asyncio.create_task(renew())
    try:
        yield
        over.set()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@dataclass
class _Lasting:
    """For how long something has been so, without a break."""

    since: float | None = None

    def seconds(self, now: float, *, holds: bool) -> float:
        """Return it, given whether it is so now; 0 if it is not."""
        self.since = (now if self.since is None else self.since) if holds else None
        return 0.0 if self.since is None else now - self.since


@dataclass
class _Watch:
    """One job between its submission and its end."""

    subscription: Subscription
    wait: Wait
    follower: LogFollower
    say: Say
    pace: PollTiming
    proof: Proof | None
    observer: JobObserver | None = None
    absent_since: float | None = None
    stuck: _Lasting = field(default_factory=_Lasting)
    silence: _Lasting = field(default_factory=_Lasting)
    silence_told: bool = False
    asked_at: float | None = None
    ended: JobEvent | None = None
    store_away: bool = False
    last: JobStatus | None = None
    requeued: bool = False
    failed_since: float | None = None

    def at_the_deadline(self) -> JobEvent:
        """Return the event of a wait that is over: a job that has ended did so, whatever became of its manifest."""
        if self.ended is not None:
            return replace(self.ended, waited=True)
        trouble, last = self.subscription.poll.trouble, self.last or JobStatus(JobPhase.UNKNOWN)
        return JobEvent(status="timeout", message=trouble, phase=last.phase, reason=last.reason[:REASON_LIMIT])

    async def until_end(self) -> JobEvent:
        while True:
            status = (await self.subscription.next()).get(self.wait.job_id, ABSENT)
            if status.phase is JobPhase.ABSENT:
                if self._is_gone():
                    # The list may have lost a job that did its work.
                    return replace(ABSENT.to_event(), proven=await self._proven(ended=True), waited=True)
                continue
            self.absent_since = None
            self._note(status)
            if await self._has_ended(status):
                return await self._until_proven(status)
            if self._never_starts(status):
                silent = NEVER_SUBMITTED.format(minutes=self.pace.submission_grace / 60)
                reason = silent if status.without_job else status.reason[:REASON_LIMIT]
                return replace(status.to_event(), phase=JobPhase.FAILED, reason=reason)
            if self._queued_too_long(status):
                return JobEvent(status="queue_timeout", reason=status.reason[:REASON_LIMIT])
            if status.phase is JobPhase.RUNNING and self.observer is not None:
                await asyncio.to_thread(self.observer.started, self.wait.job_id)
            marked = False
            if status.phase is JobPhase.RUNNING and self.wait.follow_log:
                marked = await self.follower.follow(self.subscription, self.wait.job_id)
            if (marked or self._is_due(status)) and await self._proven(ended=False):
                self.say(
                    "The result of job %s is there; that its place notices the end (interLink takes minutes where many "
                    "jobs end together) is not waited for",
                    self.wait.job_id,
                )
                return replace(status.to_event(), proven=True)

    def _is_gone(self) -> bool:
        now = self.pace.clock()
        self.absent_since = now if self.absent_since is None else self.absent_since
        return now - self.absent_since > self.pace.absence_grace

    def _note(self, status: JobStatus) -> None:
        """Show what is new. Compared by value, so that a change of node or SLURM job is shown as well."""
        if status == self.last:
            return
        self._tell(status)
        if self.last is not None and (self.last.phase, status.phase) == (JobPhase.RUNNING, JobPhase.PENDING):
            self.requeued = True
        self.last = status

    async def _has_ended(self, status: JobStatus) -> bool:
        """Whether it has ended; that a requeued job failed may be interLink taking SLURM's CF for an end."""
        if not status.phase.ended:
            self.failed_since = None
            return False
        if status.phase is not JobPhase.FAILED:
            return True
        now = self.pace.clock()
        if self.failed_since is None:
            self.failed_since = now
            self.requeued = self.requeued or await self._is_taken_back(status)
        return not self.requeued or now - self.failed_since > self.pace.absence_grace

    async def _is_taken_back(self, status: JobStatus) -> bool:
        """Whether SLURM wrote into the log that it stops the job to start it again; it may do so between two polls."""
        if not status.slurm_job_id or never_ran(status.reason, status.slurm_job_id):
            return False
        try:
            text = await self.subscription.log(self.wait.job_id)
        except OscarProviderError:
            return False
        return TAKEN_BACK.search(text or "") is not None

    def _tell(self, status: JobStatus) -> None:
        self.say("%s", status.describe(self.wait.job_id))
        if status.phase is JobPhase.PENDING and NEVER_STARTS.search(status.reason):
            self.say("As it is asked for it can never start: correct the options of the target, then clear the task")

    def _never_starts(self, status: JobStatus) -> bool:
        """Whether its node has long kept it without starting it; people are told of one that nothing is said of."""
        now, pending, grace = self.pace.clock(), status.phase is JobPhase.PENDING, self.pace.submission_grace
        stuck = pending and (status.without_job or STUCK.search(status.reason) is not None)
        if self.stuck.seconds(now, holds=stuck) > grace or (stuck and STUCK_FOR_GOOD.search(status.reason)):
            return True
        mute = pending and bool(status.node) and not (status.reason or status.slurm_job_id)
        if self.silence.seconds(now, holds=mute) > grace and not self.silence_told:
            self.silence_told = True
            self.say(
                "Node %s says nothing of job %s: it is not ready, or it waits for a Secret or ConfigMap that the pod's "
                "variables name, which has to be in the pod's namespace",
                status.node,
                self.wait.job_id,
            )
        return False

    def _queued_too_long(self, status: JobStatus) -> bool:
        limit = self.wait.queue_deadline
        return status.phase is JobPhase.PENDING and limit is not None and time.time() > limit

    def _is_due(self, status: JobStatus) -> bool:
        """Whether to ask for the manifest although the job seems to go on; rarely, since most often it does."""
        now = self.pace.clock()
        self.asked_at = now if self.asked_at is None else self.asked_at
        # A virtual node shows a job as pending for a while after it has ended.
        often = 1.0 if status.phase is JobPhase.RUNNING else 4.0
        return now - self.asked_at > self.subscription.proof_pause * often

    async def _proven(self, *, ended: bool) -> bool:
        """Ask for the manifest, and return whether it is there."""
        self.asked_at = self.pace.clock()
        found = None if self.proof is None else await self.proof(ended)
        self.store_away = found is None
        return bool(found)

    async def _until_proven(self, status: JobStatus) -> JobEvent:
        """Wait for the manifest of a job that has ended, so that the task goes on once, when all is there.

        Time in which its store cannot be asked does not count, as long as other outages are tolerated.
        """
        event = self.ended = status.to_event()
        if self.proof is None or never_ran(status.reason, status.slurm_job_id):
            return event
        began, warned, away = self.pace.clock(), False, 0.0
        asked, longest = began, max(self.wait.grace, self.pace.tolerance.total_seconds())
        while True:
            if await self._proven(ended=True):
                return replace(event, proven=True)
            now = self.pace.clock()
            away += now - asked if self.store_away else 0.0
            asked, left = now, min(self.wait.grace + away, longest) - (now - began)
            if left <= 0:
                return replace(event, waited=True)
            if not warned:
                self.say(
                    "Job %s has ended; its manifest is waited for, %d s at most", self.wait.job_id, self.wait.grace
                )
                warned = True
            await self.pace.sleep(min(left, self.wait.poll_interval, 5.0))


class LogFollower:
    """Shows what is new in a log that can only be read as a whole.

    :param say: where it is shown.
    :param lines: lines that were shown before.
    :param pace: how often the log may be read.
    :param observer: is shown the same lines.
    """

    def __init__(self, say: Say, lines: int, pace: PollTiming, observer: JobObserver | None = None) -> None:
        self._say = say
        self._observer = observer
        self._position = LogPosition(lines)
        self._pace = pace
        self._not_before = 0.0
        self._bar = ""

    @property
    def lines(self) -> int:
        """Lines that were shown."""
        return self._position.lines

    async def follow(self, subscription: Subscription, job_id: str) -> bool:
        """Read and show, unless it was done just now; a log that cannot be read is tried again later.

        :return: whether the supervisor's last line seems to be there.
        """
        if self._pace.clock() < self._not_before or not subscription.may_read_log():
            return False
        try:
            text = await subscription.log(job_id)
        except OscarProviderError as error:
            self._say("The job's log cannot be read now: %s", error)
            text = None
        # One second more per 100 kB, so that a chatty job does not keep the network busy.
        self._not_before = self._pace.clock() + subscription.log_pause + len(text or "") / 1e5
        if text is not None:
            reading = partial(self._position.after, text)
            # As much as all jobs of a triggerer log is too much for the one event loop that waits for them.
            small = len(text) <= _READ_ON_LOOP
            lines, self._position = reading() if small else await named_pool(_READING).call(reading)
            for number, line in enumerate(lines, start=1):
                self._say("%s", line)
                if number % _SAID_AT_ONCE == 0:
                    await asyncio.sleep(0)
            bar, before = progress(text), self._bar
            self._bar = bar
            if bar and bar != before and not lines:
                self._say("%s", bar)
            if self._observer is not None:
                await asyncio.to_thread(self._observer.lines, job_id, lines)
        return MARKER in (text or "")
