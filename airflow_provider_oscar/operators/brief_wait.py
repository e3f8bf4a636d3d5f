# SPDX-License-Identifier: Apache-2.0
"""A short wait on the worker before a task is deferred, so that a quick job takes one task process and no trigger.

A deferral costs a second process of the task, and seconds in which Airflow must not be answered (see
:data:`~airflow_provider_oscar.triggers.jobs.SAFE_AFTER`): more than many a job takes. A job in a queue is left
to the triggerer earlier than one that runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf
from msgspec.structs import replace

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import proves
from airflow_provider_oscar.jobs.status import JobStatus, JsonObject

if TYPE_CHECKING:
    from airflow_provider_oscar.operators.job import JobOperator

#: Seconds between two polls.
PAUSE = 0.5
#: Share of the time for which a job may seem to wait in its queue.
QUEUE_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class BriefWait:
    """Looks at one job for a few seconds.

    :param seconds: at most.
    :param status: looks at the job alone; None where that costs a list of all jobs.
    :param proven: whether its manifest is there and counts.
    :param clock: seconds that never go back.
    :param sleep: waits.
    """

    seconds: float
    status: Callable[[], JobStatus] | None
    proven: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def event(self) -> JsonObject | None:
        """Return the event of a job that has ended, as its trigger would; None for one that is left to the trigger."""
        started = self.clock()
        seen = JobStatus(JobPhase.PENDING)
        while True:
            try:
                if self.proven():
                    # What its place says of it comes later, and changes nothing.
                    return replace(seen.to_event(), proven=True).to_dict()
                if self.status is not None:
                    seen = self.status()
            except OscarProviderError:
                return None  # the trigger tolerates what comes and goes
            if seen.phase.ended:
                return seen.to_event().to_dict()
            left = self.seconds - (self.clock() - started)
            waits = self.status is not None and seen.phase is JobPhase.PENDING
            if left <= PAUSE or (waits and left < self.seconds * (1 - QUEUE_SHARE)):
                return None
            self.sleep(PAUSE)


def wait_briefly(task: JobOperator[Any], job: RunningJob) -> JsonObject | None:
    """Return the event of a job that ends before its task is deferred; None for one that is left to the trigger.

    :param task: the task.
    :param job: its job.
    """
    seconds = conf.getfloat("oscar", "defer_after", fallback=10.0)
    if seconds <= 0 or not task.deferrable or not task.writes_manifest():
        return None

    def proven() -> bool:
        return proves(job, task.read_manifest(job), task.verifies, ended=False)

    status = (lambda: task.backend.status(job.job_id)) if task.backend.looks_at_one else None
    return BriefWait(seconds=seconds, status=status, proven=proven).event()
