# SPDX-License-Identifier: Apache-2.0
"""Whose job it is that has the name of ours."""

from __future__ import annotations

from airflow_provider_oscar.core.errors import PermanentError, quoted
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.status import JobStatus


def check_owner(job: RunningJob, status: JobStatus, *, display_name: str) -> None:
    """Refuse to touch a job of the same name that is not this Airflow's.

    :param job: ours.
    :param status: of what has its name.
    :param display_name: words that name the job and its place.
    :raises PermanentError: if it belongs to somebody else.
    """
    if not status.owner or not job.owner or status.phase is JobPhase.ABSENT:
        return
    if status.owner.partition(".")[0] != job.owner.partition(".")[0]:
        raise PermanentError(
            f"{display_name} exists and belongs to somebody else ({quoted(status.owner)}); it is neither "
            "adopted nor removed: delete it, or use another namespace or [oscar] deployment_id"
        )
