# SPDX-License-Identifier: Apache-2.0
"""What is told to others when a job's outcome is known: the assets it produced, and the placement task before it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow.sdk import Asset

from airflow_provider_oscar.core.events import outputs_told
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.operators.placement_store import RunStore, run_record

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from pydantic import JsonValue

log = logging.getLogger(__name__)


def describe_outlets(outlets: Iterable[object], context: Context, manifest: Manifest, *, conn_id: str) -> None:
    """Say in the asset events of a task's ``outlets``, which Airflow emits, what was produced and where.

    :param outlets: of the task.
    :param context: of the task.
    :param manifest: of the job that succeeded.
    :param conn_id: connection that reaches its files.
    """
    events = context.get("outlet_events")
    if events is None:
        return
    outputs = [(each.key, each.sha256) for each in manifest.outputs]
    told = outputs_told(manifest.output_uri.rstrip("/") + "/", conn_id, outputs)
    extra: dict[str, JsonValue] = {
        "job_id": manifest.submission_id,
        "output_uri": manifest.output_uri,
        "outputs": len(manifest.outputs),
        "placement": manifest.placement,
        # What a DAG that is scheduled by the asset gets from get_objects(context).
        "objects": [{**each} for each in told],
    }
    for outlet in outlets:
        if isinstance(outlet, Asset):
            # What the DAG's author put there stays.
            event = events[outlet]
            event.extra = {**extra, **event.extra}


def record_for_placement(task: BaseOperator, context: Context, job: RunningJob, manifest: Manifest | None) -> None:
    """Keep what the job took, for the placement task before this one.

    :param task: of the job.
    :param context: of the task.
    :param job: the job.
    :param manifest: of it, if there is one.
    """
    dag = task.get_dag()
    placed = () if dag is None else (dag.get_task(task_id) for task_id in task.upstream_task_ids)
    learning = [each.task_id for each in placed if getattr(each, "learn", False)]
    decision = context["ti"].xcom_pull(task_ids=learning[0], key="decision") if learning else None
    if not isinstance(decision, Mapping):
        return
    ti = context["ti"]
    try:
        record = run_record(
            decision,
            job=job,
            manifest=manifest,
            dag_id=ti.dag_id,
            run_id=str(context["run_id"]),
            now=datetime.now(UTC),
        )
        RunStore.shared().add(record)
    except Exception as error:  # noqa: BLE001 - it is an aid for later decisions, and must not cost a result
        log.warning("What this job took is not recorded for placement: %s", error)
