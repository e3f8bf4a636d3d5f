# SPDX-License-Identifier: Apache-2.0
"""Waiting for one job to end: what the triggers for OSCAR jobs and for pods have in common.

The trigger never decides whether a job succeeded; it says in which phase the job ended, and the operator
asks :mod:`airflow_provider_oscar.jobs.outcome`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, cast

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, PermanentError, quoted
from airflow_provider_oscar.core.logs import LogPosition
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.triggers.base import Declaration, DeclaredArguments
from airflow_provider_oscar.triggers.shared_poll import JobView, OpenSource, Subscription, subscribed

#: Seconds a job may be missing from the list before it counts as gone.
ABSENCE_GRACE = 60.0
#: Seconds that :meth:`JobTrigger.on_kill` may take; Airflow allows 30.
KILL_TIMEOUT = 25.0
#: Seconds between two reads of a log, at least; a long log is read less often.
LOG_INTERVAL = 5.0
_ENDED = (JobPhase.SUCCEEDED, JobPhase.FAILED)


@dataclass(frozen=True, kw_only=True)
class JobArguments:
    """What every wait needs.

    :param conn_id: Airflow connection.
    :param job_id: name of the job or pod.
    :param deadline: seconds since the epoch at which the wait ends with ``timeout``, or None for never.
    :param poll_interval: seconds between two looks.
    :param settled: an event that this trigger yielded before; it is yielded again after one interval, because the
        job's manifest was not there yet.
    :param follow_log: show the job's log as it grows.
    :param cancel_on_kill: cancel the job when a user marks the task as failed or succeeded, or clears it.
    """

    conn_id: str
    job_id: str
    deadline: float | None = None
    poll_interval: float = 10.0
    settled: dict[str, Any] | None = None
    follow_log: bool = True
    cancel_on_kill: bool = True

    def __post_init__(self) -> None:
        if not self.poll_interval > 0:
            raise DefinitionError(f"poll_interval is {self.poll_interval}; expected more than 0 seconds")


class _Arguments(Declaration, Protocol):
    """The fields of :class:`JobArguments`, for the type checker."""

    @property
    def job_id(self) -> str: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def poll_interval(self) -> float: ...
    @property
    def settled(self) -> dict[str, Any] | None: ...
    @property
    def follow_log(self) -> bool: ...
    @property
    def cancel_on_kill(self) -> bool: ...


J = TypeVar("J", bound=_Arguments)


class JobTrigger(DeclaredArguments[J], BaseTrigger):
    """Yields one event: ``{"status": "ended" | "timeout" | "error", …}``.

    ``ended`` carries ``phase``, ``ended_at`` (ISO 8601), ``note``, ``slurm_job_id``, ``node`` and ``exit_code``;
    ``error`` carries ``permanent`` and ``message``.
    """

    def poll_key(self) -> Hashable:
        """Triggers with an equal key share one poll."""
        raise NotImplementedError

    def source(self) -> OpenSource:
        """Opens what is polled."""
        raise NotImplementedError

    async def cancel_job(self) -> bool:
        """Cancel the job through the hook, as the operator does."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the end of the job."""
        arguments = self.arguments
        if arguments.settled is not None:
            await asyncio.sleep(arguments.poll_interval)
            yield TriggerEvent(dict(arguments.settled))
            return
        left = None if arguments.deadline is None else max(arguments.deadline - time.time(), 0.0)
        try:
            async with asyncio.timeout(left):
                async with subscribed(self.poll_key(), self.source(), arguments.poll_interval) as subscription:
                    event = await self._until_end(subscription)
        except TimeoutError:
            event = {"status": "timeout"}
        except OscarProviderError as error:
            permanent = isinstance(error, DefinitionError | PermanentError)
            event = {"status": "error", "permanent": permanent, "message": str(error)}
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """Cancel the job when a user marks the deferred task, or clears it."""
        if self.arguments.settled is not None or not self.arguments.cancel_on_kill:
            return
        async with asyncio.timeout(KILL_TIMEOUT):
            gone = await self.cancel_job()
        self.log.info("Job %s was %s", self.arguments.job_id, "cancelled" if gone else "not there any more")

    async def _until_end(self, subscription: Subscription) -> dict[str, Any]:
        job, absent_since, last = self.arguments.job_id, None, None
        follower = LogFollower(self.log.info)
        while True:
            view = (await subscription.next()).get(job)
            now = time.monotonic()
            if view is None or view.phase is JobPhase.ABSENT:
                absent_since = absent_since or now
                if now - absent_since > ABSENCE_GRACE:
                    return ended_event(JobView(JobPhase.ABSENT))
                continue
            absent_since = None
            # JobView compares by value, so a change of node or SLURM job is told as well.
            if view != last:
                self.log.info("%s", told(job, view))
                last = view
            if view.phase in _ENDED:
                return ended_event(view)
            if view.phase is JobPhase.RUNNING and self.arguments.follow_log:
                await follower.follow(lambda: subscription.read_log(job))


class LogFollower:
    """Shows what is new in a log that can only be read as a whole.

    :param show: logging function that takes a format and its values.
    """

    def __init__(self, show: Callable[..., None]) -> None:
        self._show = show
        self._position = LogPosition()
        self._not_before = 0.0

    async def follow(self, read: Callable[[], Awaitable[str | None]]) -> None:
        """Read and show, unless it was done just now; a log that cannot be read is tried again later."""
        if time.monotonic() < self._not_before:
            return
        try:
            text = await read()
        except OscarProviderError as error:
            self._show("The job's log cannot be read now: %s", error)
            text = None
        # One second more per 100 kB, so that a chatty job does not keep the network busy.
        self._not_before = time.monotonic() + LOG_INTERVAL + len(text or "") / 1e5
        if text is not None:
            lines, self._position = self._position.after(text)
            for line in lines:
                self._show("%s", line)


def ended_event(view: JobView) -> dict[str, Any]:
    """Return the event of a job that has ended, or is not there."""
    return {
        "status": "ended",
        "phase": view.phase.value,
        "ended_at": datetime.now(UTC).isoformat(),
        "note": view.note[:4000],
        "slurm_job_id": view.slurm_job_id,
        "node": view.node,
        "exit_code": view.exit_code,
    }


def told(job: str, view: JobView) -> str:
    """Return one line that says where a job stands."""
    parts = [f"Job {job} is {view.phase.value}"]
    parts += [f"SLURM job {quoted(view.slurm_job_id)}"] if view.slurm_job_id else []
    parts += [f"on {quoted(view.node)}"] if view.node else []
    parts += [f"({quoted(view.note)})"] if view.note else []
    return " ".join(parts)


def ended_view(event: dict[str, Any]) -> JobView:
    """Read what :func:`ended_event` wrote; tolerant, since it went through Airflow's database."""
    code = event.get("exit_code")
    return JobView(
        phase=JobPhase(cast("str", event.get("phase"))),
        note=str(event.get("note") or ""),
        slurm_job_id=str(event.get("slurm_job_id") or ""),
        node=str(event.get("node") or ""),
        exit_code=code if isinstance(code, int) else None,
    )
