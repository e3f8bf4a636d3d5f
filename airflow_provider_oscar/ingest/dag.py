# SPDX-License-Identifier: Apache-2.0
"""The ingest DAG: emit one partition per object the inboxes received, and go on while more is waiting.

A task's asset events are registered when it has succeeded, so it cannot know that itself. Each run therefore leaves
behind how far it came, and the next one believes it once it sees the events that were to be registered.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import (
    DAG,
    Asset,
    AssetAny,
    AssetOrTimeSchedule,
    Context,
    CronTriggerTimetable,
    DeltaTriggerTimetable,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_oscar._airflow import add_partition_event
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.ingest.rules import RECEIVED_KEYS, Harvest, InboxMark, Proposal, RecentKeys, key_digest

log = logging.getLogger(__name__)

#: Events of ``objects``, newest first, that are compared with those waiting.
_EMITTED_LIMIT = 10_000
_RECENT = "ingest:recent-keys"
_DOC = """
Every new object gets its own partition, whatever woke this DAG: `emit` reads all events the inboxes received
and adds one event with a partition key per object; `continue` wakes the next run when more is waiting.
Repetitions are dropped by partition key.
"""


def object_ingest_dag(
    dag_id: str,
    *,
    inboxes: Sequence[Asset],
    objects: Asset,
    batch_size: int = 100,
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
    :param batch_size: most objects of one run; when more is waiting, the run wakes the next one. Airflow registers
        all of a run's events in one request, which ends after ``[workers] execution_api_timeout`` (5 s).
    :param schedule_every: cron expression in UTC, or an interval: how often the DAG looks by itself, in
        case Airflow lost the wake-up of an event.
    :param dag_kwargs: passed to the DAG; ``schedule``, ``catchup`` and ``max_active_runs`` are set here.
    :raises DefinitionError: if there is no inbox, or a number is not positive.
    """
    if not inboxes or batch_size < 1:
        raise DefinitionError(
            f"object_ingest_dag({dag_id!r}) needs at least one inbox and a positive batch_size; "
            f"got {len(inboxes)} inboxes, batch_size={batch_size}"
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
    # A run that is triggered by an operator would block the DAG: Airflow 3.3 does not count it as ended until the
    # DAG's file is parsed again (``_schedule_dag_run`` forgets OPERATOR_TRIGGERED). So an asset wakes the next run.
    backlog = Asset(f"{dag_id}-backlog")
    with DAG(dag_id, schedule=_schedule([*inboxes, backlog], schedule_every), **settings) as dag:

        @task.short_circuit(task_id="emit", inlets=places, outlets=[objects])
        def emit() -> bool:
            return _emit(get_current_context(), inboxes, objects, batch_size=batch_size)

        emit() >> EmptyOperator(task_id="continue", outlets=[backlog])
    return dag


def _schedule(assets: Sequence[Asset], every: str | timedelta) -> AssetOrTimeSchedule:
    timetable = CronTriggerTimetable(every, timezone="UTC") if isinstance(every, str) else DeltaTriggerTimetable(every)
    return AssetOrTimeSchedule(timetable=timetable, assets=AssetAny(*assets))


def _emit(context: Context, inboxes: Sequence[Asset], objects: Asset, *, batch_size: int) -> bool:
    """Add one event per object; all of them are registered together when this task succeeds.

    :return: whether more is waiting.
    """
    ledger = _Ledger(context, inboxes, objects)
    ledger.settle()
    while True:
        harvest = _harvest(context, inboxes, objects, batch_size=batch_size)
        if harvest is None:
            raise AirflowSkipException("nothing is waiting")
        if harvest.objects:
            break
        ledger.commit(harvest.marks)  # there is nothing that could fail to be registered
        if not harvest.more:
            raise AirflowSkipException("nothing new is waiting")
    for found in harvest.objects:
        add_partition_event(
            context["outlet_events"], objects, partition_key=found.partition_key, extra={"object": found.to_dict()}
        )
    ledger.propose(harvest)
    return harvest.more


class _Ledger:
    """How far the inboxes were drained, and how far they will have been once events are registered.

    Marks are in the state stores of their inboxes, each at most about 45 kB.
    """

    def __init__(self, context: Context, inboxes: Sequence[Asset], objects: Asset) -> None:
        self._stores: Any = context["asset_state_store"]
        self._inlets = context["inlet_events"]
        self._inboxes = inboxes
        self._objects = objects
        self._key = _mark_key(context)
        self._pending = f"{self._key}:pending"

    def propose(self, harvest: Harvest) -> None:
        """Leave the marks of a harvest behind for the next run."""
        for inbox in self._inboxes:
            self._stores[inbox].set(self._pending, harvest.marks[inbox.name].to_json())
        keys = RecentKeys().with_keys(found.partition_key for found in harvest.objects)
        proposal = Proposal(frozenset(inbox.name for inbox in self._inboxes), keys, harvest.since)
        self._stores[self._objects].set(self._pending, proposal.to_json())

    def settle(self) -> None:
        """Commit what an earlier run or try left behind, if every event that it was to register is there."""
        stored = self._stores[self._objects].get(self._pending)
        if stored is None:
            return
        proposal = Proposal.from_json(stored)
        if proposal is not None and proposal.registered_by(self._emitted(proposal.since)):
            recent = RecentKeys.from_json(self._stores[self._objects].get(_RECENT)).with_digests(proposal.keys.digests)
            self._stores[self._objects].set(_RECENT, recent.to_json())
            for inbox in self._inboxes:
                if inbox.name in proposal.inboxes:  # and not one that the DAG got since
                    self._stores[inbox].set(self._key, self._stores[inbox].get(self._pending))
        self._stores[self._objects].delete(self._pending)

    def _emitted(self, since: datetime) -> list[str]:
        events = self._inlets[self._objects].ascending(False).limit(_EMITTED_LIMIT).after(since.isoformat())
        return [event.partition_key for event in events if event.partition_key]

    def commit(self, marks: Mapping[str, InboxMark]) -> None:
        """Write how far the inboxes were drained."""
        for inbox in self._inboxes:
            self._stores[inbox].set(self._key, marks[inbox.name].to_json())


def _harvest(context: Context, inboxes: Sequence[Asset], objects: Asset, *, batch_size: int) -> Harvest | None:
    """Return what is waiting, ``batch_size`` events at most, shared fairly by the inboxes; None if nothing is."""
    stores, inlets = context["asset_state_store"], context["inlet_events"]
    key = _mark_key(context)
    waiting: list[tuple[int, str, list[Any], InboxMark]] = []
    for inbox in inboxes:
        mark = InboxMark.from_json(stores[inbox].get(key))
        query = inlets[inbox].ascending().limit(len(mark.ids) + batch_size + 1)
        events = list(query.after(mark.after.isoformat()) if mark.after else query)
        waiting.append((sum(event.id not in mark.ids for event in events), inbox.name, events, mark))
    times = [event.timestamp for _, _, events, mark in waiting for event in events if event.id not in mark.ids]
    if not times:
        return None
    recent = RecentKeys.from_json(stores[objects].get(_RECENT))
    received = RecentKeys.from_json(stores[objects].get(RECEIVED_KEYS))
    # What was emitted without a trace in the ledger; nothing was emitted before the event that asked for it.
    emitted = inlets[objects].ascending(False).limit(_EMITTED_LIMIT).after(min(times).isoformat())
    known = {*recent.digests, *received.digests, *(key_digest(e.partition_key) for e in emitted if e.partition_key)}
    harvest = Harvest(known=known, since=min(times))
    room = batch_size
    for taken, (new, name, events, mark) in enumerate(sorted(waiting, key=lambda one: one[:2])):
        limit = max(1, room // (len(waiting) - taken))  # what the quiet ones leave is for the busy ones
        harvest.take(name, events, mark, limit=limit)
        room -= min(new, limit)
    log.info(
        "%d objects to emit, %d repetitions dropped, %d unreadable events skipped%s",
        len(harvest.objects),
        harvest.repeated,
        harvest.unreadable,
        "; more is waiting" if harvest.more else "",
    )
    return harvest


def _mark_key(context: Context) -> str:
    return f"ingest:{context['dag'].dag_id}"
