# SPDX-License-Identifier: Apache-2.0
"""How long the job of a task reaches its stores, and who renews that; see :mod:`airflow_provider_oscar.jobs.access`."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.jobs.access import LONGEST_ACCESS
from airflow_provider_oscar.jobs.results import ResultLocation
from airflow_provider_oscar.jobs.running import RunningJob

if TYPE_CHECKING:
    from airflow_provider_oscar.operators.job import JobOperator

#: Added to a job's timeout, since it ends a little later than it is told to; and taken from the week in which a job has
#: to start.
MARGIN = timedelta(minutes=10)


def access_lifetime(task: JobOperator[Any]) -> timedelta:
    """Return how long what a job is given lasts: as configured, or as long as the job may take; a week at most.

    :param task: the task.
    """
    configured = conf.get("oscar", "access_lifetime", fallback="") or ""
    needed = max(timedelta(seconds=task.timeout_seconds()) + MARGIN, timedelta(days=1))
    return min(timedelta(seconds=float(configured)) if configured else needed, LONGEST_ACCESS)


def result_location(task: JobOperator[Any], job: RunningJob) -> ResultLocation:
    """Return where the job's results are.

    :param task: the task.
    :param job: its job.
    """
    return ResultLocation(conn_id=task.output_conn_id, uri=task.output_uri, job=job, signed=task.is_signed())


def last_start(task: JobOperator[Any], job: RunningJob) -> float | None:
    """Return when a job that has not started is cancelled: after a week it would not find fresh access any more.

    :param task: the task.
    :param job: its job.
    """
    if job.access_until is None or not job.outlives_access or not (task.output_uri and task.is_signed()):
        return job.queue_deadline
    last = job.access_until - job.access_lifetime + (LONGEST_ACCESS - MARGIN).total_seconds()
    return last if job.queue_deadline is None else min(last, job.queue_deadline)


def tell(task: JobOperator[Any], job: RunningJob) -> None:
    """Say before its submission that a job may outlive its access.

    :param task: the task.
    :param job: its job.
    """
    if not job.outlives_access:
        return
    long = (job.deadline or 0.0) - time.time() > LONGEST_ACCESS.total_seconds()
    task.log.info(
        "Job %s may outlive its access to the stores (%s), which is renewed while it is waited for%s",
        job.submission_id,
        access_lifetime(task),
        "; it has to start within a week" if long else "",
    )


def renew_access(task: JobOperator[Any], job: RunningJob) -> None:
    """Let an adopted job find fresh access; all of it is made again if nobody did so before.

    :param task: the task.
    :param job: its job.
    """
    from airflow_provider_oscar.operators.job_building import build_job

    if task.output_uri and task.command and task.is_signed() and result_location(task, job).renew_access() is None:
        build_job(task, job, placement="")


def withdraw_access(task: JobOperator[Any], job: RunningJob) -> None:
    """Remove what renews the access of a job that has ended.

    :param task: the task.
    :param job: its job.
    """
    try:
        result_location(task, job).withdraw_access()
    except OscarProviderError as error:
        task.log.warning("The sealed access of job %s is left in the store: %s", job.submission_id, error)
