# SPDX-License-Identifier: Apache-2.0
"""Asset events in Airflow's database, the runs made from them, and which run consumed which event.

Beside :mod:`airflow_provider_oscar._airflow_db`, under the same rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from airflow._shared.timezones import timezone
from airflow.assets.manager import asset_manager
from airflow.models.asset import AssetDagRunQueue, AssetEvent, association_table
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import and_, delete, func, or_, select, update

from airflow_provider_oscar._airflow_db import insert_unless_there

if TYPE_CHECKING:
    from airflow.models.asset import AssetModel
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

#: Rows named in one ``IN`` clause; SQLite takes 32 766 variables, other databases more.
_IN_LIMIT = 1000
#: What :func:`end_unworked` changes of a run.
END_OF_A_RUN = ("_state", "start_date", "end_date", "dag_run_note")


def newest_event(session: Session) -> int:
    """Return the greatest id of all asset events; 0 if there is none."""
    return session.scalar(select(func.max(AssetEvent.id))) or 0


def newest_event_before(session: Session, asset_id: int, *, after: int, upto: int | None, before: datetime) -> int:
    """Return the greatest id of an asset's events in a range and older than ``before``; ``after`` if there is none."""
    query = select(func.max(AssetEvent.id)).where(
        AssetEvent.asset_id == asset_id, AssetEvent.id > after, AssetEvent.timestamp < before
    )
    if upto is not None:
        query = query.where(AssetEvent.id <= upto)
    return session.scalar(query) or after


def _unconsumed(
    session: Session, dag_id: str, lows: Mapping[int, int], *, states: Collection[str] | None, handled: Collection[int]
) -> Iterator[int]:
    """Yield the ids of the events that no run of a DAG has consumed, oldest first.

    In two simple questions for each thousand events: one that joins both takes databases seconds while they have no
    statistics of the tables, as after a burst.

    :param lows: by asset id, the event after which to look.
    :param states: only runs in these states count; None for all.
    :param handled: ids that are left out.
    """
    skipped = set(handled)
    places = or_(*(and_(AssetEvent.asset_id == asset_id, AssetEvent.id > low) for asset_id, low in lows.items()))
    after = min(lows.values(), default=0)
    while True:
        query = select(AssetEvent.id).where(AssetEvent.id > after, places).order_by(AssetEvent.id).limit(_IN_LIMIT)
        ids = list(session.scalars(query)) if lows else []
        if not ids:
            return
        consumed = (
            select(association_table.c.event_id)
            .join(DagRun, DagRun.id == association_table.c.dag_run_id)
            .where(association_table.c.event_id.in_(ids), DagRun.dag_id == dag_id)
        )
        done = set(session.scalars(consumed if states is None else consumed.where(DagRun.state.in_(states))))
        yield from (number for number in ids if number not in done and number not in skipped)
        if len(ids) < _IN_LIMIT:
            return
        after = ids[-1]


def waiting_events(
    session: Session, dag_id: str, lows: Mapping[int, int], *, handled: Collection[int], limit: int
) -> list[AssetEvent]:
    """Return the oldest events that no run of a DAG has consumed.

    :param lows: by asset id, the event up to which all was handed over.
    :param handled: ids of later events that need no run.
    :param limit: most events.
    """
    found = events_by_id(session, list(islice(_unconsumed(session, dag_id, lows, states=None, handled=handled), limit)))
    return [found[number] for number in sorted(found)]


def unconsumed_between(session: Session, dag_id: str, asset_id: int, *, after: int, upto: int) -> set[int]:
    """Return the ids of an asset's events in a range, without ``after``, that no run of a DAG has consumed."""
    found = _unconsumed(session, dag_id, {asset_id: after}, states=None, handled=())
    return set(takewhile(lambda number: number <= upto, found))


def events_by_id(session: Session, ids: Sequence[int]) -> dict[int, AssetEvent]:
    """Return events by their ids; those that were deleted are missing."""
    found: dict[int, AssetEvent] = {}
    for start in range(0, len(ids), _IN_LIMIT):
        query = select(AssetEvent).where(AssetEvent.id.in_(ids[start : start + _IN_LIMIT]))
        found.update({event.id: event for event in session.scalars(query)})
    return found


def existing_runs(session: Session, dag_id: str, run_ids: Collection[str]) -> set[str]:
    """Return those run ids that a DAG has."""
    query = select(DagRun.run_id).where(DagRun.dag_id == dag_id, DagRun.run_id.in_(run_ids))
    return set(session.scalars(query)) if run_ids else set()


def create_run(
    session: Session,
    dag: SerializedDAG,
    *,
    run_id: str,
    partition_key: str,
    partition_date: datetime | None,
    events: Sequence[AssetEvent],
    conf: dict[str, object] | None,
    now: datetime,
) -> DagRun:
    """Create a queued run, as the scheduler does for asset events.

    The DAG is not partitioned in Airflow's sense, whose own scheduler would then complain about each event of a watcher
    (they carry no partition key); so the run gets its partition here.
    """
    run = dag.create_dagrun(
        run_id=run_id,
        logical_date=None,
        data_interval=None,
        run_after=now,
        conf=conf,
        run_type=DagRunType.ASSET_TRIGGERED,
        triggered_by=DagRunTriggeredByType.ASSET,
        state=DagRunState.QUEUED,
        session=session,
    )
    run.partition_key = partition_key
    run.partition_date = partition_date
    run.consumed_asset_events.extend(events)
    session.flush()
    return run


def forget_queued_events(session: Session, dag_id: str, asset_ids: Collection[int] | None = None) -> None:
    """Remove what Airflow noted to make a run of a DAG from.

    :param asset_ids: only events of these assets; None for all.
    """
    query = delete(AssetDagRunQueue).where(AssetDagRunQueue.target_dag_id == dag_id)
    if asset_ids is not None:
        query = query.where(AssetDagRunQueue.asset_id.in_(asset_ids))
    session.execute(query)


def first_unproven_event(
    session: Session, dag_id: str, asset_id: int, *, after: int, handled: Collection[int] = ()
) -> int | None:
    """Return the id of the oldest event of an asset that no successful run of a DAG has consumed, or None.

    :param after: only later events.
    :param handled: ids of events that need no run.
    """
    return next(_unconsumed(session, dag_id, {asset_id: after}, states=("success",), handled=handled), None)


def undelivered_events(
    session: Session, dag_id: str, lows: Mapping[int, int], *, handled: Collection[int] = (), limit: int
) -> list[AssetEvent]:
    """Return the oldest events that no queued, running or successful run of a DAG has consumed.

    :param lows: by asset id, the event after which to look.
    :param handled: ids of events that need no run.
    :param limit: most events.
    """
    ids = _unconsumed(session, dag_id, lows, states=("queued", "running", "success"), handled=handled)
    found = events_by_id(session, list(islice(ids, limit)))
    return [found[number] for number in sorted(found)]


def tried_events(session: Session, dag_id: str, ids: Sequence[int], *, besides: int | None = None) -> set[int]:
    """Return those events that a run of a DAG was given, whatever became of it.

    :param besides: id of a run that is left out.
    """
    found: set[int] = set()
    for start in range(0, len(ids), _IN_LIMIT):
        query = (
            select(association_table.c.event_id)
            .join(DagRun, DagRun.id == association_table.c.dag_run_id)
            .where(
                association_table.c.event_id.in_(ids[start : start + _IN_LIMIT]),
                DagRun.dag_id == dag_id,
                DagRun.id.is_distinct_from(besides),
            )
        )
        found.update(session.scalars(query))
    return found


def delivered_elsewhere(session: Session, run: DagRun, asset_ids: Collection[int]) -> set[int]:
    """Return the events of a run that another queued, running or successful run of its DAG has consumed as well."""
    own = select(association_table.c.event_id).where(association_table.c.dag_run_id == run.id)
    query = (
        select(association_table.c.event_id)
        .join(DagRun, DagRun.id == association_table.c.dag_run_id)
        .join(AssetEvent, AssetEvent.id == association_table.c.event_id)
        .where(
            association_table.c.event_id.in_(own),
            DagRun.dag_id == run.dag_id,
            DagRun.id != run.id,
            DagRun.state.in_(("queued", "running", "success")),
            AssetEvent.asset_id.in_(asset_ids),
        )
    )
    return set(session.scalars(query))


def queue_event(session: Session, dag_id: str, asset_id: int, *, at: datetime | None = None) -> None:
    """Let Airflow make one more run of a DAG for an asset.

    :param at: not before; None for now, by this machine's clock.
    """
    if session.get(AssetDagRunQueue, (asset_id, dag_id)) is None:
        queued = {"asset_id": asset_id, "target_dag_id": dag_id, "created_at": at or timezone.utcnow()}
        insert_unless_there(session, AssetDagRunQueue, **queued)


def is_queued(session: Session, dag_id: str, asset_id: int) -> bool:
    """Whether Airflow noted to make a run of a DAG for an asset."""
    return session.get(AssetDagRunQueue, (asset_id, dag_id)) is not None


def is_about_nothing(run: DagRun) -> bool:
    """Whether Airflow made a run for asset events, and it has none of them."""
    return run.run_type == DagRunType.ASSET_TRIGGERED and not run.consumed_asset_events


def end_unworked(session: Session, run: DagRun, note: str) -> None:
    """End a run that has just been started as Airflow ends one whose tasks are all skipped.

    :param note: why, for the UI.
    """
    now = timezone.utcnow()
    ended = {"state": TaskInstanceState.SKIPPED, "start_date": now, "end_date": now, "duration": 0.0}
    session.execute(
        update(TaskInstance).where(TaskInstance.dag_id == run.dag_id, TaskInstance.run_id == run.run_id).values(ended)
    )
    run.note = note
    run.state = DagRunState.SUCCESS
    session.flush()


def will_run(session: Session, dag_id: str, asset_id: int) -> bool:
    """Whether Airflow is about to make a run of a DAG for an asset, or has one that takes all events when it starts."""
    if is_queued(session, dag_id, asset_id):
        return True
    queued = select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.state == "queued")
    return session.scalar(queued.where(DagRun.clear_number == 0, DagRun.partition_key.is_(None)).limit(1)) is not None


def get_newest_event(session: Session, asset_id: int) -> AssetEvent | None:
    """Return the youngest event of an asset, or None."""
    query = select(AssetEvent).where(AssetEvent.asset_id == asset_id).order_by(AssetEvent.timestamp.desc()).limit(1)
    return session.scalar(query)


def assets_with_events(session: Session, *, after: int) -> set[int]:
    """Return the ids of the assets that have an event whose id is greater than ``after``."""
    return set(session.scalars(select(AssetEvent.asset_id).where(AssetEvent.id > after).distinct()))


def register_event(
    session: Session, asset: AssetModel, extra: dict[str, Any], *, partition_key: str | None = None
) -> None:
    """Register an event, which wakes the DAGs that are scheduled by the asset itself."""
    asset_manager.register_asset_change(asset=asset, extra=extra, partition_key=partition_key, session=session)


def newest_consumed(
    session: Session, dag_id: str, asset_ids: Collection[int], *, limit: int, besides: int | None = None
) -> list[AssetEvent]:
    """Return the events of assets that runs of a DAG consumed last, the oldest first.

    :param besides: id of a run that is left out.
    """
    query = (
        select(AssetEvent)
        .join(association_table, association_table.c.event_id == AssetEvent.id)
        .join(DagRun, DagRun.id == association_table.c.dag_run_id)
        .where(DagRun.dag_id == dag_id, DagRun.id.is_distinct_from(besides), AssetEvent.asset_id.in_(asset_ids))
        .order_by(AssetEvent.id.desc())
        .limit(limit)
    )
    return list(session.scalars(query))[::-1]


def newest_time(session: Session, asset_ids: Collection[int]) -> datetime | None:
    """Return when the last event of assets was registered, or None."""
    return session.scalar(select(func.max(AssetEvent.timestamp)).where(AssetEvent.asset_id.in_(asset_ids)))


def events_after(session: Session, asset_id: int, *, after: int, limit: int) -> list[AssetEvent]:
    """Return the oldest events of an asset whose id is greater than ``after``."""
    query = select(AssetEvent).where(AssetEvent.asset_id == asset_id, AssetEvent.id > after)
    return list(session.scalars(query.order_by(AssetEvent.id).limit(limit)))


def runs_of_events(
    session: Session, ids: Sequence[int], *, dag_ids: Collection[str] = ()
) -> dict[int, dict[tuple[str, str], str]]:
    """Return the states of the runs that consumed events, by event, DAG and run id."""
    query = (
        select(association_table.c.event_id, DagRun.dag_id, DagRun.run_id, DagRun.state)
        .join(DagRun, DagRun.id == association_table.c.dag_run_id)
        .where(association_table.c.event_id.in_(ids))
    )
    if dag_ids:
        query = query.where(DagRun.dag_id.in_(dag_ids))
    found: dict[int, dict[tuple[str, str], str]] = {}
    for event_id, dag_id, run_id, state in session.execute(query):
        found.setdefault(event_id, {})[dag_id, run_id] = str(state)
    return found
