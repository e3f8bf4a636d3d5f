# SPDX-License-Identifier: Apache-2.0
"""Jobs of tasks that a person marked as failed, succeeded or skipped: cancelled in the API server, which hears of it.

Airflow lets a deferred task's trigger cancel its job (``on_kill``), but only once a triggerer runs that trigger: a task
that is marked in the seconds between its deferral and then leaves its job behind for good. Here the system that runs
the job is asked, when trigger and worker have had the time that Airflow gives them to save the log and to cancel, and a
job that is still at work then is cancelled.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from airflow_provider_oscar.core.errors import OscarProviderError

if TYPE_CHECKING:
    from airflow_provider_oscar.jobs.backend import JobSystem

log = logging.getLogger(__name__)

#: Seconds that trigger or worker have first; ``[triggerer] on_kill_timeout`` is 30.
GRACE = 35.0
#: Seconds before each further attempt.
PAUSES = (2.0, 10.0, 60.0)
#: Jobs of one connection that may wait to be cancelled; more are left to their triggers, and named in the log.
WAITING = 1000


class Canceller:
    """Cancels jobs in threads of its own, two for each connection, so that a system that hangs delays no other.

    :param cancel: cancels one job if it is still at work, and says what was seen of its end.
    :param sleep: pauses between attempts.
    :param grace: seconds that trigger or worker have first.
    """

    def __init__(
        self,
        cancel: Callable[[JobSystem, str], str] | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        grace: float = GRACE,
    ) -> None:
        self._cancel = cancel
        self._grace = grace
        self._sleep = sleep
        self._lock = threading.Lock()
        self._executors: dict[str, ThreadPoolExecutor] = {}
        self._waiting: dict[str, int] = {}
        self._due: queue.SimpleQueue[tuple[float, JobSystem, str]] = queue.SimpleQueue()
        self._dispatcher: threading.Thread | None = None

    def submit(self, system: JobSystem, job_id: str) -> bool:
        """Have a job cancelled soon; False if too many wait for it."""
        with self._lock:
            if self._waiting.get(system.conn_id, 0) >= WAITING:
                log.error(
                    "%s is not cancelled, since %d jobs wait for that: %s",
                    job_id,
                    WAITING,
                    system.cancel_command(job_id),
                )
                return False
            self._waiting[system.conn_id] = self._waiting.get(system.conn_id, 0) + 1
            if system.conn_id not in self._executors:
                self._executors[system.conn_id] = ThreadPoolExecutor(2, thread_name_prefix="oscar-cancel")
            if self._dispatcher is None:
                self._dispatcher = threading.Thread(target=self._dispatch, name="oscar-cancel", daemon=True)
                self._dispatcher.start()
        self._due.put((time.monotonic() + self._grace, system, job_id))
        return True

    def _dispatch(self) -> None:
        # All wait equally long, so that the first in the queue is the first that is due.
        while True:
            due, system, job_id = self._due.get()
            self._sleep(max(due - time.monotonic(), 0.0))
            self._executors[system.conn_id].submit(self._work, system, job_id)

    def _work(self, system: JobSystem, job_id: str) -> None:
        from airflow_provider_oscar._airflow import AirflowNotFoundException
        from airflow_provider_oscar.plugins.ui.systems import cancel_at_work

        cancel = self._cancel or cancel_at_work
        try:
            for pause in (*PAUSES, None):
                try:
                    if seen := cancel(system, job_id):
                        log.info("Job %s of a task that was marked by hand %s", job_id, seen)
                    return
                except (OscarProviderError, AirflowNotFoundException) as error:
                    if pause is None:
                        log.error("%s is not cancelled (%s): %s", job_id, error, system.cancel_command(job_id))
                        return
                    self._sleep(pause)
        finally:
            with self._lock:
                self._waiting[system.conn_id] -= 1


_canceller = Canceller()


def marked(previous_state: object, task_instance: Any) -> None:
    """Have the job of a task cancelled that was marked by hand: of those Airflow names no previous state."""
    if previous_state is not None:
        return
    from airflow_provider_oscar.plugins.ui import store, systems

    job = store.remembered(task_instance)
    system = None if job is None else systems.job_system(job)
    if job is not None and system is not None:
        _canceller.submit(system, job.job_id)


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:
    """Cancel what is left of a task that was marked as failed."""
    marked(previous_state, task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """Cancel what is left of a task that was marked as succeeded."""
    marked(previous_state, task_instance)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    """Cancel what is left of a task that was marked as skipped."""
    marked(previous_state, task_instance)
