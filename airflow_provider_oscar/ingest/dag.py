# SPDX-License-Identifier: Apache-2.0
"""The ingest DAG: drain the inboxes, emit one partition per object, commit, go on while more is waiting."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import (
    DAG,
    Asset,
    AssetAny,
    AssetOrTimeSchedule,
    Context,
    CronTriggerTimetable,
    DeltaTriggerTimetable,
    TriggerRule,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_oscar._airflow import add_partition_event
from airflow_provider_oscar.ingest.rules import RECEIVED_KEYS, Harvest, InboxMark, RecentKeys, key_digest
from airflow_provider_oscar.model.errors import DefinitionError
from airflow_provider_oscar.model.objects import ObjectEvent

log = logging.getLogger(__name__)

#: Events of ``objects``, newest first, that are compared with those waiting.
_EMITTED_LIMIT = 10_000
_MEMORY = "memory"
_RECENT = "ingest:recent-keys"
_DOC = """
Every new object gets its own partition, whatever woke this DAG: `drain` reads all events the inboxes received
since the last run, `emit` adds one event with a partition key per object, `commit` remembers what was done, and
`continue` starts the next run when more is waiting. Repetitions are dropped by partition key.
"""


def object_ingest_dag(
    dag_id: str,
    *,
    inboxes: Sequence[Asset],
    objects: Asset,
    batch_size: int = 100,
    batches_per_run: int = 10,
    schedule_every: str | timedelta = timedelta(minutes=2),
    **dag_kwargs: Any,
) -> DAG:
    """Return the DAG that gives every object seen by watchers its own partition of ``objects``.

    ::

        inbox = Asset("inbox", watchers=[AssetWatcher(name="s3", trigger=S3NewObjectTrigger(...))])
        objects = Asset("objects")
        ingest = object_ingest_dag("ingest", inboxes=[inbox], objects=objects)

    :param inboxes: assets whose watchers report objects; give each asset to one ingest DAG only.
    :param objects: asset that gets one event per object, with ``partition_key`` and ``extra={"object": …}``.
    :param batch_size: objects emitted by one mapped task instance.
    :param batches_per_run: most batches of one run; when more is waiting, the run starts the next one.
    :param schedule_every: cron expression in UTC, or an interval: how often the DAG looks by itself, in
        case Airflow lost the wake-up of an event.
    :param dag_kwargs: passed to the DAG; ``schedule``, ``catchup`` and ``max_active_runs`` are set here.
    :raises DefinitionError: if there is no inbox, or a number is not positive.
    """
    if not inboxes or batch_size < 1 or batches_per_run < 1:
        raise DefinitionError(
            f"object_ingest_dag({dag_id!r}) needs at least one inbox and positive batch_size and batches_per_run; "
            f"got {len(inboxes)} inboxes, batch_size={batch_size}, batches_per_run={batches_per_run}"
        )
    settings = {
        "description": "Give every new object its own partition, without loss",
        "default_args": {"retries": 3, "retry_delay": timedelta(seconds=10)},
        "start_date": datetime(2026, 1, 1, tzinfo=UTC),
        "doc_md": _DOC,
        **dag_kwargs,
        "catchup": False,
        "max_active_runs": 1,
    }
    places = [*inboxes, objects]
    with DAG(dag_id, schedule=_schedule(inboxes, schedule_every), **settings) as dag:

        @task(task_id="drain", inlets=places)
        def drain() -> list[list[dict[str, Any]]]:
            return _drain(get_current_context(), inboxes, objects, batch_size=batch_size, batches=batches_per_run)

        @task(task_id="emit", outlets=[objects])
        def emit(batch: list[dict[str, Any]]) -> None:
            _emit(get_current_context(), objects, batch)

        @task(task_id="commit", inlets=places, trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
        def commit() -> bool:
            return _commit(get_current_context(), inboxes, objects)

        batches = drain()
        committed = commit()
        [batches, emit.expand(batch=batches)] >> committed
        committed >> ContinueOperator(task_id="continue", trigger_dag_id=dag_id, logical_date=None)
    return dag


def _schedule(inboxes: Sequence[Asset], every: str | timedelta) -> AssetOrTimeSchedule:
    timetable = CronTriggerTimetable(every, timezone="UTC") if isinstance(every, str) else DeltaTriggerTimetable(every)
    return AssetOrTimeSchedule(timetable=timetable, assets=AssetAny(*inboxes))


class ContinueOperator(TriggerDagRunOperator):
    """Starts the next run of the ingest DAG if this one left events behind; skipped otherwise."""

    def execute(self, context: Context) -> Any:
        """Start the next run."""
        if not context["ti"].xcom_pull(task_ids="commit"):
            raise AirflowSkipException("nothing is waiting")
        return super().execute(context)


def _drain(
    context: Context, inboxes: Sequence[Asset], objects: Asset, *, batch_size: int, batches: int
) -> list[list[dict[str, Any]]]:
    """Return batches of objects to emit; leave in XCom what :func:`_commit` has to write."""
    stores, inlets = context["asset_state_store"], context["inlet_events"]
    key = _mark_key(context)
    limit = max(1, batch_size * batches // len(inboxes))
    waiting: list[tuple[str, list[Any], InboxMark]] = []
    for inbox in inboxes:
        mark = InboxMark.from_json(stores[inbox].get(key))
        query = inlets[inbox].ascending().limit(len(mark.ids) + limit + 1)
        waiting.append((inbox.name, list(query.after(mark.after.isoformat()) if mark.after else query), mark))
    times = [event.timestamp for _, events, mark in waiting for event in events if event.id not in mark.ids]
    if not times:
        raise AirflowSkipException("nothing is waiting")
    recent = RecentKeys.from_json(stores[objects].get(_RECENT))
    received = RecentKeys.from_json(stores[objects].get(RECEIVED_KEYS))
    # What a run emitted that died before its commit; nothing was emitted before the event that asked for it.
    emitted = inlets[objects].ascending(False).limit(_EMITTED_LIMIT).after(min(times).isoformat())
    known = {*recent.digests, *received.digests, *(key_digest(e.partition_key) for e in emitted if e.partition_key)}
    harvest = Harvest(known=known)
    for name, events, mark in waiting:
        harvest.take(name, events, mark, limit=limit)
    log.info(
        "%d objects to emit, %d repetitions dropped, %d unreadable events skipped%s",
        len(harvest.objects),
        harvest.repeated,
        harvest.unreadable,
        "; more is waiting" if harvest.more else "",
    )
    memory = {
        "marks": {name: mark.to_json() for name, mark in harvest.marks.items()},
        "keys": [found.partition_key for found in harvest.objects],
        "more": harvest.more,
    }
    context["ti"].xcom_push(key=_MEMORY, value=memory)
    rows = [found.to_dict() for found in harvest.objects]
    return [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]


def _emit(context: Context, objects: Asset, batch: Sequence[dict[str, Any]]) -> None:
    """Add one event per object; all of them are registered together when this task succeeds."""
    for row in batch:
        found = ObjectEvent.from_dict(row)
        add_partition_event(
            context["outlet_events"], objects, partition_key=found.partition_key, extra={"object": found.to_dict()}
        )


def _commit(context: Context, inboxes: Sequence[Asset], objects: Asset) -> bool:
    """Write how far the inboxes were drained; return whether more is waiting."""
    memory = context["ti"].xcom_pull(task_ids="drain", key=_MEMORY)
    stores = context["asset_state_store"]
    recent = RecentKeys.from_json(stores[objects].get(_RECENT)).with_keys(memory["keys"])
    stores[objects].set(_RECENT, recent.to_json())
    for inbox in inboxes:
        stores[inbox].set(_mark_key(context), memory["marks"][inbox.name])
    return bool(memory["more"])


def _mark_key(context: Context) -> str:
    return f"ingest:{context['dag'].dag_id}"
