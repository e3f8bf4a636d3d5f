# SPDX-License-Identifier: Apache-2.0
"""How a job is ended before its time: its task is killed, its target is given up, or another one has done its work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.jobs.running import RunningJob

if TYPE_CHECKING:
    from airflow_provider_oscar.jobs.lifecycle import JobLifecycle
    from airflow_provider_oscar.operators.job import JobOperator

#: Seconds that saving the log of a job may take whose task is killed; it is cancelled then in any case.
KILL_PATIENCE = 15.0


def abandon_job(job: RunningJob | None, lifecycle: JobLifecycle[Any] | None) -> str:
    """Cancel what may run at a target that is given up, and say what was seen of its end.

    :param job: that was asked for; None if none was.
    :param lifecycle: of the job; None if nothing was submitted.
    """
    if job is None or lifecycle is None:
        return "nothing was submitted"
    try:
        return f"job {job.job_id} {lifecycle.cancel(job, patience=KILL_PATIENCE)}"
    except OscarProviderError as error:
        return f"whether job {job.job_id} still runs is not known: {error}"


def withdraw_job(task: JobOperator[Any], job: RunningJob, lifecycle: JobLifecycle[Any]) -> str:
    """Cancel a job whose work another one has done, take back its result, and say what was seen of its end.

    :param task: of the job.
    :param job: as it is remembered.
    :param lifecycle: of the job.
    """
    known = abandon_job(job, lifecycle)
    try:
        if task.writes_manifest():
            task.results.revoke(task.output_conn_id, task.output_uri, job.submission_id)
    except OscarProviderError as error:
        task.log.warning("Whether job %s left a second result is not known: %s", job.job_id, error)
    return known


def kill_job(task: JobOperator[Any], job: RunningJob | None, lifecycle: JobLifecycle[Any] | None) -> None:
    """Save the log of a job whose task is killed, and cancel it.

    :param task: of the job.
    :param job: that was asked for; None if none was.
    :param lifecycle: of the job; None if nothing was submitted.
    """
    if job is not None and lifecycle is not None:
        known = lifecycle.cancel(job, patience=KILL_PATIENCE)
        (task.log.info if known.verified else task.log.warning)("Job %s %s", job.job_id, known)
