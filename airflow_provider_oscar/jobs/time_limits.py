# SPDX-License-Identifier: Apache-2.0
"""What a task is told of a job that took too long."""

from __future__ import annotations

import time

from airflow_provider_oscar.core.cancellation import Cancellation
from airflow_provider_oscar.core.errors import JobFailedError, OscarProviderError, TransientError, quoted
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.status import JobEvent


def too_late(
    job: RunningJob, event: JobEvent, *, display_name: str, timeout: float, known: Cancellation
) -> OscarProviderError:
    """Return the error for a job that did not end, or did not start, in its time.

    :param job: as it is remembered.
    :param event: of the wait for it.
    :param display_name: names the job.
    :param timeout: seconds it may take.
    :param known: what was seen of its cancellation.
    """
    if event.status == "timeout" and event.message:
        return JobFailedError(
            f"{display_name} was not seen to end within {timeout:.0f} seconds, since it could not be "
            f"looked at: {event.message}; it {known}"
        )
    if event.status == "timeout" and event.phase is JobPhase.PENDING:
        return JobFailedError(
            f"{display_name} was still waiting to start after the {timeout:.0f} seconds it may take in all"
            f"{f' ({quoted(event.reason)})' if event.reason else ''} and {known}; raise the timeout of the task, or "
            "choose a target with a shorter queue"
        )
    if event.status == "timeout":
        return JobFailedError(
            f"{display_name} did not end within {timeout:.0f} seconds and {known}; "
            "raise the timeout of the task, or see why it waited"
        )
    why = quoted(event.reason) if event.reason else "no reason was given"
    limit, remedy = "its queue_timeout", "raise queue_timeout, or choose a target with a shorter queue"
    if job.outlives_access and (job.queue_deadline is None or time.time() < job.queue_deadline):
        limit, remedy = "the week for which it can find fresh access to its stores", "the next try submits it again"
    return TransientError(f"{display_name} did not start within {limit} ({why}) and {known}; {remedy}").of_target()
