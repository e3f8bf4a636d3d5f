# SPDX-License-Identifier: Apache-2.0
"""How a task waits for its job: on the worker, or by the trigger that does so without one."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import proves
from airflow_provider_oscar.jobs.status import JobEvent, JsonObject
from airflow_provider_oscar.jobs.waiting import Wait, wait_for_job
from airflow_provider_oscar.operators.job_access import last_start, result_location
from airflow_provider_oscar.triggers.jobs import JobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oscar.operators.job import JobOperator

#: Added to Airflow's own timeout, so that the trigger's comes first and the job is cancelled.
PADDING = timedelta(minutes=10)


def wait_to_end(
    task: JobOperator[Any], context: Context, job: RunningJob, unproven: JsonObject | None
) -> dict[str, object]:
    """Wait on the worker until the job has ended and what became of it is known; return its manifest.

    :param task: the task.
    :param context: of the task.
    :param job: its job.
    :param unproven: event of a job that has ended, whose success is not proven yet.
    """
    while True:
        event = asyncio.run(wait_here(task, job)) if unproven is None else unproven
        if unproven is not None:
            time.sleep(max(proof_due(task, unproven) - time.time(), 0.0))
        done = task.conclude(context, job, event)
        if done is not None:
            return done
        unproven = None if JobEvent.from_dict(event).proven else event


async def wait_here(task: JobOperator[Any], job: RunningJob) -> JsonObject:
    """Wait on the worker, and return the event that the trigger would send."""

    async def proof(ended: bool) -> bool | None:
        try:
            manifest = await asyncio.to_thread(task.read_manifest, job)
        except OscarProviderError:
            return None  # how long that is tolerated is decided where it is waited
        return proves(job, manifest, task.verifies, ended=ended)

    return await wait_for_job(
        task.backend,
        what_to_wait_for(task, job),
        say=task.log.info,
        pace=task.pace,
        proof=proof if task.writes_manifest() else None,
        renewer=result_location(task, job).renewer() if task.writes_manifest() else None,
        observer=task.observer,
    )


def job_trigger(task: JobOperator[Any], job: RunningJob, unproven: JsonObject | None = None) -> JobTrigger:
    """Return what waits for a job in the triggerer.

    :param job: as it is remembered.
    :param unproven: event of a job that has ended, whose success is not proven yet.
    """
    wait = what_to_wait_for(task, job)
    location = result_location(task, job)
    # What the trigger took for proof the task did not, so it is not asked again.
    doubted = unproven is not None and JobEvent.from_dict(unproven).proven
    pending = None if doubted else unproven
    return JobTrigger(
        backend=task.backend.name,
        backend_arguments=task.backend.arguments(),
        job_id=wait.job_id,
        deadline=wait.deadline,
        queue_deadline=wait.queue_deadline,
        poll_interval=wait.poll_interval,
        log_lines=wait.log_lines,
        pending_event=pending,
        pending_until=0.0 if pending is None else proof_due(task, pending),
        result=location.to_dict() if task.writes_manifest() and not doubted else None,
        grace=wait.grace,
    )


def what_to_wait_for(task: JobOperator[Any], job: RunningJob) -> Wait:
    """Return which job is waited for, how often it is looked at and until when."""
    return Wait(
        job_id=job.job_id,
        deadline=job.deadline,
        queue_deadline=last_start(task, job),
        poll_interval=task.interval,
        log_lines=job.log_lines,
        grace=task.manifest_grace.total_seconds(),
    )


def proof_due(task: JobOperator[Any], event: JsonObject) -> float:
    """When what proves the success of an ended job must be there, in seconds since the epoch."""
    ended = JobEvent.from_dict(event).ended_at
    return 0.0 if ended is None else (ended + task.manifest_grace).timestamp()


def waited_too_long(task: JobOperator[Any], job: RunningJob) -> bool:
    """Whether the job has waited for its queue_timeout."""
    left = (job.deadline or 0.0) - task.timeout_seconds()
    return task.queue_timeout is not None and time.time() >= left + task.queue_timeout
