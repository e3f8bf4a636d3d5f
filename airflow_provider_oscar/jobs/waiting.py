# SPDX-License-Identifier: Apache-2.0
"""Waiting for one job to end, in the triggerer or on a worker, with its log shown as it grows.

Nothing here decides whether a job succeeded: the event says in which phase it ended, and
:mod:`~airflow_provider_oscar.jobs.outcome` decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.core.logs import LogPosition
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.refusals import NEVER_STARTS
from airflow_provider_oscar.jobs.backend import JobPlace
from airflow_provider_oscar.jobs.poller import Pace, Subscription, subscribed
from airflow_provider_oscar.jobs.status import ABSENT, JobStatus, JsonObject

#: A logging function that takes a format and its values.
Say = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What to wait for.

    :param job_id: name of the job or pod.
    :param deadline: seconds since the epoch at which the wait ends with ``timeout``, or None for never.
    :param queue_deadline: seconds since the epoch at which it ends with ``queue_timeout`` if the job has not
        started, or None.
    :param poll_interval: seconds between two looks.
    :param follow_log: show the job's log as it grows.
    :param log_lines: lines of the log that were shown before.
    """

    job_id: str
    deadline: float | None = None
    queue_deadline: float | None = None
    poll_interval: float = 10.0
    follow_log: bool = True
    log_lines: int = 0


async def wait_for_job(
    backend: JobPlace,
    wait: Wait,
    *,
    say: Say,
    pace: Pace = Pace(),  # noqa: B008 - frozen
) -> JsonObject:
    """Wait until a job has ended, and return the event of it.

    :param backend: where the job runs.
    :param wait: which job, and for how long.
    :param say: where status and log are shown.
    :param pace: how fast it is looked at.
    :return: ``{"status": "ended", …}`` as of :meth:`JobStatus.to_event`; ``{"status": "timeout"}``;
        ``{"status": "queue_timeout", "reason": …}``; or ``{"status": "error", "message": …}`` if the place could not
        be looked at for longer than errors are tolerated. All but the first may carry ``log_lines``.
    """
    follower = LogFollower(say, wait.log_lines, pace)
    left = None if wait.deadline is None else max(wait.deadline - time.time(), 0.0)
    try:
        async with asyncio.timeout(left):
            async with subscribed(backend, wait.poll_interval, pace) as subscription:
                event = await _until_end(subscription, wait, follower, say, pace)
    except TimeoutError:
        event = {"status": "timeout"}
    except OscarProviderError as error:
        event = {"status": "error", "message": str(error)}
    return {**event, "log_lines": follower.lines}


async def _until_end(subscription: Subscription, wait: Wait, follower: LogFollower, say: Say, pace: Pace) -> JsonObject:
    absent_since: float | None = None
    last: JobStatus | None = None
    while True:
        status = (await subscription.next()).get(wait.job_id, ABSENT)
        if status.phase is JobPhase.ABSENT:
            now = pace.clock()
            absent_since = now if absent_since is None else absent_since
            if now - absent_since > pace.absence_grace:
                return ABSENT.to_event()
            continue
        absent_since = None
        # Compared by value, so that a change of node or SLURM job is shown as well.
        if status != last:
            say("%s", status.describe(wait.job_id))
            if status.phase is JobPhase.PENDING and NEVER_STARTS.search(status.reason):
                say("As it is asked for it can never start: correct the options of the target, then clear the task")
            last = status
        if status.phase.ended:
            return status.to_event()
        if status.phase is JobPhase.PENDING and wait.queue_deadline is not None and time.time() > wait.queue_deadline:
            return {"status": "queue_timeout", "reason": status.reason}
        if status.phase is JobPhase.RUNNING and wait.follow_log:
            await follower.follow(subscription, wait.job_id)


class LogFollower:
    """Shows what is new in a log that can only be read as a whole.

    :param say: where it is shown.
    :param lines: lines that were shown before.
    """

    def __init__(self, say: Say, lines: int, pace: Pace) -> None:
        self._say = say
        self._position = LogPosition(lines)
        self._pace = pace
        self._not_before = 0.0

    @property
    def lines(self) -> int:
        """Lines that were shown."""
        return self._position.lines

    async def follow(self, subscription: Subscription, job_id: str) -> None:
        """Read and show, unless it was done just now; a log that cannot be read is tried again later."""
        if self._pace.clock() < self._not_before:
            return
        try:
            text = await subscription.log(job_id)
        except OscarProviderError as error:
            self._say("The job's log cannot be read now: %s", error)
            text = None
        # One second more per 100 kB, so that a chatty job does not keep the network busy.
        self._not_before = self._pace.clock() + subscription.log_pause + len(text or "") / 1e5
        if text is not None:
            lines, self._position = self._position.after(text)
            for line in lines:
                self._say("%s", line)
