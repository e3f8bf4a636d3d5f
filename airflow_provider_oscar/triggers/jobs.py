# SPDX-License-Identifier: Apache-2.0
"""The one trigger that waits for a job, wherever it runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping

from airflow.triggers.base import TriggerEvent

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError
from airflow_provider_oscar.hooks.pool import get_pool
from airflow_provider_oscar.jobs.backend import JobSystem, open_backend
from airflow_provider_oscar.jobs.results import ResultLocation
from airflow_provider_oscar.jobs.status import JsonObject
from airflow_provider_oscar.jobs.waiting import Wait, wait_for_job
from airflow_provider_oscar.triggers.stored import StoredTrigger

#: Seconds that :meth:`JobTrigger.on_kill` may take; Airflow allows 30.
KILL_TIMEOUT = 25.0
#: Seconds of these for saving the log.
LOG_TIMEOUT = 8.0
#: Seconds after its start before which a trigger does not fire: in Airflow 3.3 one that fires while the scheduler still
#: takes note of the deferral costs a try, or fails the task (apache/airflow #71580, #72716).
SAFE_AFTER = 5.0


class JobTrigger(StoredTrigger):
    """Waits until a job has ended, and shows its log meanwhile; yields the one event of
    :func:`~airflow_provider_oscar.jobs.waiting.wait_for_job`.

    All triggers of one place in a triggerer share one poll. No argument holds a secret.

    :param backend: name of the job backend: ``oscar``, ``interlink`` or ``kubernetes``.
    :param backend_arguments: keyword arguments of the backend, such as ``conn_id``.
    :param job_id: name of the job or pod.
    :param deadline: seconds since the epoch at which the wait ends, or None for never.
    :param queue_deadline: seconds since the epoch at which it ends if the job has not started, or None.
    :param poll_interval: seconds between two polls.
    :param pending_event: an event that an earlier trigger yielded; it is yielded again at ``pending_until``, because
        what proves the job's success was not there yet.
    :param pending_until: seconds since the epoch.
    :param result: where the job's manifest will be, as of
        :meth:`~airflow_provider_oscar.jobs.results.ResultLocation.to_dict`; None for a job that writes none.
    :param grace: seconds for which the manifest is waited for after the job has ended.
    :param follow_log: show the job's log as it grows.
    :param log_lines: lines of the log that were shown before.
    :param cancel_on_kill: cancel the job when a user marks the task as failed or succeeded, or clears it.
    :raises DefinitionError: if ``poll_interval`` is not above 0.
    """

    #: Of the trigger's own pauses, for tests.
    clock = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)

    def __init__(
        self,
        *,
        backend: str,
        backend_arguments: Mapping[str, str],
        job_id: str,
        deadline: float | None = None,
        queue_deadline: float | None = None,
        poll_interval: float = 10.0,
        pending_event: JsonObject | None = None,
        pending_until: float = 0.0,
        result: Mapping[str, object] | None = None,
        grace: float = 60.0,
        follow_log: bool = True,
        log_lines: int = 0,
        cancel_on_kill: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if not poll_interval > 0:
            raise DefinitionError(f"poll_interval is {poll_interval}; expected more than 0 seconds")
        self.backend = backend
        self.backend_arguments = dict(backend_arguments)
        self.job_id = job_id
        self.deadline = deadline
        self.queue_deadline = queue_deadline
        self.poll_interval = poll_interval
        self.pending_event = pending_event
        self.pending_until = pending_until
        self.result = None if result is None else dict(result)
        self.grace = grace
        self.follow_log = follow_log
        self.log_lines = log_lines
        self.cancel_on_kill = cancel_on_kill

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the end of the job."""
        started = self.clock()
        event = await self.event()
        await self.sleep(max(SAFE_AFTER - (self.clock() - started), 0.0))
        yield TriggerEvent(event)

    async def event(self) -> JsonObject:
        """Return the event; also for a trigger that waits for several jobs."""
        if self.pending_event is not None:
            await self.sleep(max(self.pending_until - time.time(), 0.0))
            return dict(self.pending_event)
        wait = Wait(
            job_id=self.job_id,
            deadline=self.deadline,
            queue_deadline=self.queue_deadline,
            poll_interval=self.poll_interval,
            follow_log=self.follow_log,
            log_lines=self.log_lines,
            grace=self.grace,
        )
        location = ResultLocation.from_dict(self.result)
        backend = open_backend(self.backend, self.backend_arguments)
        return await wait_for_job(
            backend,
            wait,
            say=self.log.info,
            proof=None if location is None else location.aproven,
            renewer=None if location is None else location.renewer(),
        )

    async def on_kill(self) -> None:
        """Save the job's log and cancel it when a user marks the deferred task, or clears it."""
        if self.pending_event is not None or not self.cancel_on_kill:
            return
        backend = open_backend(self.backend, self.backend_arguments)
        async with asyncio.timeout(KILL_TIMEOUT):
            await self._save_log(backend)
            known = await backend.acancel(self.job_id)
            await self._withdraw_access()
        (self.log.info if known.verified else self.log.warning)("Job %s %s", self.job_id, known)

    async def _withdraw_access(self) -> None:
        """Remove what renews the access of the cancelled job; what cannot be removed is sealed, and ends by itself."""
        location = ResultLocation.from_dict(self.result)
        if location is not None:
            with contextlib.suppress(OscarProviderError):
                await get_pool("access", location.conn_id).call(location.withdraw_access)

    async def _save_log(self, backend: JobSystem) -> None:
        """Copy the log, which goes with the job; cancelling comes first if that takes long."""
        location = ResultLocation.from_dict(self.result)
        if location is None:
            return
        try:
            async with asyncio.timeout(LOG_TIMEOUT):
                pool = get_pool("cancel", backend.conn_id)
                uri = await pool.call(location.save_log, backend.log_chunks(self.job_id))
        except (OscarProviderError, TimeoutError) as error:
            self.log.warning("The log of job %s is lost with it: %s", self.job_id, error or "no answer in time")
        else:
            self.log.info("The log of job %s is kept as %s", self.job_id, uri or "nothing: it has none")
