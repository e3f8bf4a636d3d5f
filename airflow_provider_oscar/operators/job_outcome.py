# SPDX-License-Identifier: Apache-2.0
"""What is told to others when a job's outcome is known: the assets it produced, and the placement task before it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import Asset

from airflow_provider_oscar.core.errors import OscarProviderError, PermanentError
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.status import STATUS_WORD_LIMIT, JobStatus
from airflow_provider_oscar.jobs.summary import storable
from airflow_provider_oscar.operators.job_outputs import described, reached
from airflow_provider_oscar.operators.placement_store import RunStore, run_record
from airflow_provider_oscar.operators.xcoms import pull_xcom
from airflow_provider_oscar.placement.patience import patience

if TYPE_CHECKING:
    from airflow.sdk import Context
    from pydantic import JsonValue

    from airflow_provider_oscar.operators.job import JobOperator

log = logging.getLogger(__name__)
#: XCom key under which a job task says that its target failed the job.
FAULT = "target_fault"
#: XCom key under which a job task leaves a job that waits longer than was expected.
HANDOVER = "handover"
#: Characters of the reason that are kept.
WHY = 500
#: Reasons, and placements before, that a manifest tells.
STORY = 10


def push_outcome(
    task: JobOperator[Any], context: Context, job: RunningJob, status: JobStatus, manifest: Manifest | None
) -> None:
    """Tell XCom, links, assets and the placement before it what became of a job.

    :param task: the task.
    :param context: of the task.
    :param job: as it is remembered.
    :param status: the last look at it.
    :param manifest: of the job, if it has one.
    """
    slurm = (manifest.slurm_job_id if manifest else None) or status.slurm_job_id
    context["ti"].xcom_push(key="job_id", value=job.job_id)
    if slurm:
        context["ti"].xcom_push(key="slurm_job_id", value=storable(slurm[:STATUS_WORD_LIMIT]))
    if manifest is not None and manifest.succeeded:
        elsewhere = dict(reached(task, {each.uri for each in manifest.outputs if each.uri}))
        describe_outlets(task.outlets, context, manifest, conn_id=task.output_conn_id, elsewhere=elsewhere)
    task.set_link_urls(job, slurm or "")
    record_for_placement(task, context, job, manifest)


def describe_outlets(
    outlets: Iterable[object], context: Context, manifest: Manifest, *, conn_id: str, elsewhere: Mapping[str, str]
) -> None:
    """Say in the asset events of a task's ``outlets``, which Airflow emits, what was produced and where.

    :param outlets: of the task.
    :param context: of the task.
    :param manifest: of the job that succeeded.
    :param conn_id: connection that reaches its files.
    :param elsewhere: connections of the places where some went by their names.
    """
    events = context.get("outlet_events")
    if events is None:
        return
    listed = [{"key": each.key, "sha256": each.sha256, "uri": each.uri} for each in manifest.outputs]
    extra: dict[str, JsonValue] = {
        "job_id": manifest.submission_id,
        "output_uri": manifest.output_uri,
        "outputs": len(manifest.outputs),
        "placement": manifest.placement,
        # What a DAG that is scheduled by the asset gets from get_objects(context).
        "objects": [{**each} for each in described(listed, (manifest.output_uri, conn_id), elsewhere)],
    }
    for outlet in outlets:
        if isinstance(outlet, Asset):
            # What the DAG's author put there stays.
            event = events[outlet]
            event.extra = {**extra, **event.extra}


def get_placement(task: JobOperator[Any], context: Context) -> Mapping[str, Any] | None:
    """Return the decision by which a job runs where it does; None if no placement task is before it.

    :param task: of the job.
    :param context: of the task.
    """
    if task.decision is not None:
        return task.decision
    dag = task.get_dag()
    before = () if dag is None else (dag.get_task(task_id) for task_id in task.upstream_task_ids)
    placing = [each.task_id for each in before if hasattr(each, "learn")]
    decision = pull_xcom(task, context, placing[0], "decision") if placing else None
    return decision if isinstance(decision, Mapping) else None


def placement_story(decision: Mapping[str, Any] | None) -> dict[str, object]:
    """Return how a job came to its target, as its manifest tells it; empty where nothing decided.

    :param decision: as a placement task left it, with the ``attempts`` before.
    """
    if decision is None:
        return {}
    attempts = [each for each in decision.get("attempts") or () if isinstance(each, Mapping)]
    return {
        "policy": str(decision.get("policy") or ""),
        "reasons": [str(each)[:WHY] for each in decision.get("reasons") or ()][:STORY],
        "attempts": [
            {name: str(each.get(name) or "")[:WHY] for name in ("target", "outcome", "why")} for each in attempts
        ][-STORY:],
    }


def record_for_placement(
    task: JobOperator[Any],
    context: Context,
    job: RunningJob,
    manifest: Manifest | None,
    *,
    target_fault: bool = False,
    waited: float | None = None,
) -> None:
    """Keep what the job took, for later placements, or that it is over, where nothing is known of it but that; only if
    the one that placed it learns.

    :param task: of the job.
    :param context: of the task.
    :param job: the job.
    :param manifest: of it, if there is one.
    :param target_fault: whether its target failed it.
    :param waited: seconds that it has waited and not started, until another target had its result.
    """
    decision = get_placement(task, context)
    if decision is None or not decision.get("learn"):
        return
    ti = context["ti"]
    placement_id = str(decision.get("placement_id") or "")
    try:
        if manifest is None and not target_fault and waited is None:
            RunStore.shared().forget(str(decision.get("target") or ""), placement_id, now=time.time())
            return
        record = run_record(
            decision,
            job=job,
            manifest=manifest,
            target_fault=target_fault,
            waited=waited,
            dag_id=ti.dag_id,
            run_id=str(context["run_id"]),
            now=datetime.now(UTC),
        )
        RunStore.shared().add(record, placement_id=placement_id)
    except Exception as error:  # noqa: BLE001 - it is an aid for later decisions, and must not cost a result
        log.warning("What this job took is not recorded for placement: %s", error)


@contextmanager
def placement_faults(task: JobOperator[Any], context: Context) -> Iterator[None]:
    """Remember that a target failed a job, and leave the work to the task that places it again, if there is one.

    :param task: of the job.
    :param context: of the task.
    """
    try:
        yield
    except OscarProviderError as error:
        decision = get_placement(task, context) if error.target_fault else None
        if decision is None:
            raise
        if task.asked is not None:
            record_for_placement(task, context, task.asked, None, target_fault=True)
        if not task.elsewhere or decision.get("forced"):
            raise
        log.info("It is given up here: %s", task.abandon())
        context["ti"].xcom_push(key=FAULT, value={"target": decision["target"], "why": str(error)[:WHY]})
        raise PermanentError(
            f"target {decision['target']!r} failed this job, and {task.elsewhere} places it again: {error}"
        ) from error


def hand_over_at(task: JobOperator[Any], context: Context, job: RunningJob) -> float | None:
    """Return when a job that still waits has waited longer than was expected, in seconds since the epoch.

    :param task: of the job.
    :param context: of the task.
    :param job: the job; its own limit is kept if it comes first.
    """
    decision = get_placement(task, context) or {}
    wait = patience(decision.get("predictions") or {}, str(decision.get("target")))
    if wait is None or decision.get("forced"):
        return job.queue_deadline
    late = time.time() + wait
    return late if job.queue_deadline is None else min(job.queue_deadline, late)


def hand_over(task: JobOperator[Any], context: Context, job: RunningJob) -> NoReturn:
    """Leave a job that waits on to the task that starts it elsewhere too.

    :param task: of the job.
    :param context: of the task.
    :param job: the job.
    :raises PermanentError: always; the job itself goes on waiting.
    """
    left = replace(job, queue_deadline=None)
    context["ti"].xcom_push(key=HANDOVER, value={"job": left.to_dict()})
    raise PermanentError(
        f"job {job.job_id} waits longer than was expected; it goes on waiting, and {task.elsewhere} starts it "
        "elsewhere too: the first that succeeds counts"
    )
