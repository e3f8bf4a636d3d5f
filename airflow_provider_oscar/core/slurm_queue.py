# SPDX-License-Identifier: Apache-2.0
"""The queue of a SLURM partition: how many jobs wait in it, and when the one that comes last would start; pure.

The form is that of ``/slurm/v0.0.38/jobs`` and later: ``partition`` is a name, or several with commas while a job
waits; ``start_time`` of a waiting job is the scheduler's estimate, seconds since the epoch, and 0 while there is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_oscar.core.orphans import SlurmJob


@dataclass(frozen=True, slots=True)
class SlurmQueue:
    """What a job would find that is submitted now.

    :param waiting: jobs of all users that wait, without those that are held or wait for other jobs.
    :param running: jobs of all users that run.
    :param start_in: seconds until the last of those that wait is estimated to start, or None where SLURM does not say.
    """

    waiting: int
    running: int
    start_in: float | None = None


#: Reasons for which a job waits that stand nobody else in the way.
_ASIDE = ("Held", "Dependency", "BeginTime", "JobHeld")


def summarize_queue(jobs: Iterable[SlurmJob], partition: str, *, now: datetime) -> SlurmQueue:
    """Return the queue of a partition, or of all where none is named.

    :param jobs: that SLURM shows.
    :param partition: its name; empty for the cluster's default, which cannot be told from the jobs.
    :param now: the present time.
    """
    here = [job for job in jobs if not partition or partition in job.partition.split(",")]
    waiting = [job for job in here if job.state == "PENDING" and not any(word in job.reason for word in _ASIDE)]
    starts = [max((job.starts_at - now).total_seconds(), 0.0) for job in waiting if job.starts_at is not None]
    return SlurmQueue(
        waiting=len(waiting),
        running=sum(job.state == "RUNNING" for job in here),
        start_in=max(starts) if starts else None,
    )
