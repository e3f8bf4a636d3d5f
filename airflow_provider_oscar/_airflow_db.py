# SPDX-License-Identifier: Apache-2.0
"""What runs beside Airflow's database: in the triggerer's own process, the scheduler, the API server and the CLI.

The counterpart of :mod:`airflow_provider_oscar._airflow` for code that is no task and no trigger. Airflow's models are
imported inside the functions, since DAG files and workers must not load them. ``tests/unit/test_airflow_contract.py``
holds each name against the installed Airflow.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.models.dagrun import DagRun
    from airflow.sdk import Asset
    from airflow.serialization.definitions.assets import SerializedAssetBase
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

#: Rows named in one ``IN`` clause; SQLite takes 32 766 variables, other databases more.
_IN_LIMIT = 1000


@dataclass(frozen=True)
class Consumer:
    """A DAG that is scheduled by a timetable of this provider.

    :param dag_id: its id.
    :param is_paused: whether it is paused.
    :param assets: ids of the assets it is scheduled by, with the time since when it is.
    """

    dag_id: str
    is_paused: bool
    assets: Mapping[int, datetime]


@contextmanager
def transaction() -> Iterator[Session]:
    """Open a session that is committed at the end, and rolled back on an error."""
    from airflow.utils.session import create_session

    with create_session(scoped=False) as session:
        yield session


def find_consumers(session: Session, timetable: str, *, dag_ids: Collection[str] | None = None) -> list[Consumer]:
    """Return the DAGs with a timetable, those of active assets.

    :param timetable: qualified name of the timetable's class.
    :param dag_ids: only these; None for all.
    """
    from airflow.models.asset import AssetModel, DagScheduleAssetReference
    from airflow.models.dag import DagModel
    from sqlalchemy import select

    query = (
        select(
            DagModel.dag_id,
            DagModel.is_paused,
            DagScheduleAssetReference.asset_id,
            DagScheduleAssetReference.created_at,
        )
        .join(DagScheduleAssetReference, DagScheduleAssetReference.dag_id == DagModel.dag_id)
        .join(AssetModel, AssetModel.id == DagScheduleAssetReference.asset_id)
        .where(DagModel.timetable_type == timetable, DagModel.is_stale.is_(False), AssetModel.active.has())
        .order_by(DagModel.dag_id, AssetModel.name)
    )
    if dag_ids is not None:
        query = query.where(DagModel.dag_id.in_(dag_ids))
    found: dict[str, tuple[bool, dict[int, datetime]]] = {}
    for dag_id, is_paused, asset_id, since in session.execute(query):
        found.setdefault(dag_id, (is_paused, {}))[1][asset_id] = since
    return [Consumer(dag_id, is_paused, assets) for dag_id, (is_paused, assets) in found.items()]


def serialized_dag(session: Session, dag_id: str) -> SerializedDAG | None:
    """Return the newest version of a DAG, or None."""
    from airflow.models.serialized_dag import SerializedDagModel

    found = SerializedDagModel.get(dag_id, session=session)
    return None if found is None else found.dag


def newest_event(session: Session) -> int:
    """Return the greatest id of all asset events; 0 if there is none."""
    from airflow.models.asset import AssetEvent
    from sqlalchemy import func, select

    return session.scalar(select(func.max(AssetEvent.id))) or 0


def newest_event_before(session: Session, asset_id: int, *, after: int, upto: int | None, before: datetime) -> int:
    """Return the greatest id of an asset's events in a range and older than ``before``; ``after`` if there is none."""
    from airflow.models.asset import AssetEvent
    from sqlalchemy import func, select

    query = select(func.max(AssetEvent.id)).where(
        AssetEvent.asset_id == asset_id, AssetEvent.id > after, AssetEvent.timestamp < before
    )
    if upto is not None:
        query = query.where(AssetEvent.id <= upto)
    return session.scalar(query) or after


def waiting_events(
    session: Session, dag_id: str, lows: Mapping[int, int], *, handled: Collection[int], limit: int
) -> list[AssetEvent]:
    """Return the oldest events that no run of a DAG has consumed.

    :param lows: by asset id, the event up to which all was handed over.
    :param handled: ids of later events that need no run.
    """
    from airflow.models.asset import AssetEvent, association_table
    from airflow.models.dagrun import DagRun
    from sqlalchemy import and_, exists, or_, select

    consumed = exists(
        select(association_table.c.event_id)
        .join(DagRun, DagRun.id == association_table.c.dag_run_id)
        .where(association_table.c.event_id == AssetEvent.id, DagRun.dag_id == dag_id)
    )
    places = or_(*(and_(AssetEvent.asset_id == asset_id, AssetEvent.id > low) for asset_id, low in lows.items()))
    query = select(AssetEvent).where(places, ~consumed).order_by(AssetEvent.id)
    skipped = set(handled)
    # What was handled without a run lies in the last minute only, so that reading past it stays bounded.
    found = session.scalars(query.limit(limit + len(skipped)))
    return [event for event in found if event.id not in skipped][:limit]


def events_by_id(session: Session, ids: Sequence[int]) -> dict[int, AssetEvent]:
    """Return events by their ids; those that were deleted are missing."""
    from airflow.models.asset import AssetEvent
    from sqlalchemy import select

    found: dict[int, AssetEvent] = {}
    for start in range(0, len(ids), _IN_LIMIT):
        query = select(AssetEvent).where(AssetEvent.id.in_(ids[start : start + _IN_LIMIT]))
        found.update({event.id: event for event in session.scalars(query)})
    return found


def existing_runs(session: Session, dag_id: str, run_ids: Collection[str]) -> set[str]:
    """Return those run ids that a DAG has."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

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
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

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


def forget_queued_events(session: Session, dag_id: str) -> None:
    """Remove what Airflow noted to make a run of a DAG from; its timetable never lets it."""
    from airflow.models.asset import AssetDagRunQueue
    from sqlalchemy import delete

    session.execute(delete(AssetDagRunQueue).where(AssetDagRunQueue.target_dag_id == dag_id))


def locked_state(session: Session, asset_ids: Collection[int], key: str) -> dict[int, object] | None:
    """Return a value of several assets' state stores, locked until the transaction ends; None if another has the lock.

    :raises IntegrityError: at the next flush, if two processes make the first value at the same time.
    """
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.utils.sqlalchemy import with_row_locks
    from sqlalchemy import func, select

    where = (AssetStateStoreModel.asset_id.in_(asset_ids), AssetStateStoreModel.key == key)
    query = with_row_locks(select(AssetStateStoreModel).where(*where), session=session, skip_locked=True)
    rows = {row.asset_id: row for row in session.scalars(query)}
    there = session.scalar(select(func.count()).select_from(AssetStateStoreModel).where(*where))
    if there != len(rows):
        return None
    return {asset_id: _load(rows.get(asset_id)) for asset_id in asset_ids}


def states(
    session: Session, asset_ids: Collection[int] | None, prefix: str, *, limit: int
) -> list[tuple[int, str, Any]]:
    """Return (asset id, key, value) of the states whose key begins with ``prefix``, longest untouched first.

    :param asset_ids: only of these assets; None for all.
    """
    from airflow.models.asset_state_store import AssetStateStoreModel
    from sqlalchemy import select

    query = (
        select(AssetStateStoreModel)
        .where(AssetStateStoreModel.key.startswith(prefix, autoescape=True))
        .order_by(AssetStateStoreModel.updated_at, AssetStateStoreModel.key)
    )
    if asset_ids is not None:
        query = query.where(AssetStateStoreModel.asset_id.in_(asset_ids))
    return [(row.asset_id, row.key, _load(row)) for row in session.scalars(query.limit(limit))]


def iter_states(session: Session, asset_id: int, prefix: str) -> Iterator[Any]:
    """Yield the values of one asset's states whose key begins with ``prefix``, longest untouched first.

    However many there are, some hundred are held at once.
    """
    from airflow.models.asset_state_store import AssetStateStoreModel
    from sqlalchemy import select

    query = (
        select(AssetStateStoreModel.value)
        .where(AssetStateStoreModel.asset_id == asset_id, AssetStateStoreModel.key.startswith(prefix, autoescape=True))
        .order_by(AssetStateStoreModel.updated_at, AssetStateStoreModel.key)
    )
    for value in session.scalars(query.execution_options(yield_per=500)):
        yield json.loads(value)


def delete_states(session: Session, asset_id: int, prefix: str, *, before: datetime) -> int:
    """Remove the states of one asset whose key begins with ``prefix`` and that were written before a time.

    :return: how many.
    """
    from airflow.models.asset_state_store import AssetStateStoreModel
    from sqlalchemy import delete

    done = session.execute(
        delete(AssetStateStoreModel).where(
            AssetStateStoreModel.asset_id == asset_id,
            AssetStateStoreModel.key.startswith(prefix, autoescape=True),
            AssetStateStoreModel.updated_at < before,
        )
    )
    return int(getattr(done, "rowcount", 0))


def states_of_keys(session: Session, asset_ids: Collection[int], keys: Collection[str]) -> list[tuple[int, str, Any]]:
    """Return (asset id, key, value) of the states with these keys."""
    from airflow.models.asset_state_store import AssetStateStoreModel
    from sqlalchemy import select

    query = select(AssetStateStoreModel).where(
        AssetStateStoreModel.asset_id.in_(asset_ids), AssetStateStoreModel.key.in_(keys)
    )
    return [(row.asset_id, row.key, _load(row)) for row in session.scalars(query)]


def set_state(session: Session, asset_id: int, key: str, value: Any) -> None:
    """Write a value of an asset's state store; None removes it."""
    from airflow._shared.timezones import timezone
    from airflow.models.asset_state_store import AssetStateStoreModel

    row = session.get(AssetStateStoreModel, (asset_id, key))
    if value is None:
        if row is not None:
            session.delete(row)
        return
    text = json.dumps(value)
    if row is None:
        session.add(AssetStateStoreModel(asset_id=asset_id, key=key, value=text))
    elif row.value != text:
        row.value, row.updated_at = text, timezone.utcnow()


def _load(row: AssetStateStoreModel | None) -> object:
    return None if row is None else json.loads(row.value)


def write_audit_log(session: Session, *, event: str, dag_id: str, text: str) -> None:
    """Add an entry to Airflow's audit log, which the UI shows at the DAG."""
    from airflow.models.log import Log

    entry = Log(event=event, extra=text)
    entry.dag_id = dag_id
    session.add(entry)


def unfulfillable_condition(assets: Sequence[Asset]) -> SerializedAssetBase:
    """Return the condition "all of the assets, and one of none", which names the assets and never holds."""
    from airflow.sdk import AssetAll, AssetAny
    from airflow.serialization.encoders import ensure_serialized_asset

    return ensure_serialized_asset(AssetAll(*assets, AssetAny()))


def read_condition(stored: Any) -> SerializedAssetBase:
    """Return the condition of a timetable as Airflow stored it."""
    from airflow.serialization.decoders import decode_asset_like

    return decode_asset_like(stored)


def get_state(session: Session, asset_id: int, key: str) -> object:
    """Return a value of an asset's state store, or None."""
    from airflow.models.asset_state_store import AssetStateStoreModel

    return _load(session.get(AssetStateStoreModel, (asset_id, key)))


def watched_assets(session: Session, dag_id: str, *, mark: str) -> dict[int, datetime]:
    """Return the assets that a DAG is scheduled by and whose extra has the key ``mark``, with the time since when.

    :param dag_id: a DAG that is scheduled by assets, or by references to them.
    """
    from airflow.models.asset import (
        AssetModel,
        DagScheduleAssetNameReference,
        DagScheduleAssetReference,
        DagScheduleAssetUriReference,
    )
    from sqlalchemy import select

    found: dict[int, datetime] = {}
    queries = (
        select(AssetModel, DagScheduleAssetReference.created_at)
        .join(DagScheduleAssetReference, DagScheduleAssetReference.asset_id == AssetModel.id)
        .where(DagScheduleAssetReference.dag_id == dag_id),
        select(AssetModel, DagScheduleAssetNameReference.created_at)
        .join(DagScheduleAssetNameReference, DagScheduleAssetNameReference.name == AssetModel.name)
        .where(DagScheduleAssetNameReference.dag_id == dag_id),
        select(AssetModel, DagScheduleAssetUriReference.created_at)
        .join(DagScheduleAssetUriReference, DagScheduleAssetUriReference.uri == AssetModel.uri)
        .where(DagScheduleAssetUriReference.dag_id == dag_id),
    )
    for query in queries:
        for asset, since in session.execute(query.where(AssetModel.active.has())):
            if mark in (asset.extra or {}):
                found.setdefault(asset.id, since)
    return found


def _consumed_by(dag_id: str, states: Collection[str]) -> Any:
    from airflow.models.asset import AssetEvent, association_table
    from airflow.models.dagrun import DagRun
    from sqlalchemy import exists, select

    return exists(
        select(association_table.c.event_id)
        .join(DagRun, DagRun.id == association_table.c.dag_run_id)
        .where(association_table.c.event_id == AssetEvent.id, DagRun.dag_id == dag_id, DagRun.state.in_(states))
    )


def first_unproven_event(
    session: Session, dag_id: str, asset_id: int, *, after: int, handled: Collection[int] = ()
) -> int | None:
    """Return the id of the oldest event of an asset that no successful run of a DAG has consumed, or None.

    :param after: only later events.
    :param handled: ids of events that need no run.
    """
    from airflow.models.asset import AssetEvent
    from sqlalchemy import select

    query = (
        select(AssetEvent.id)
        .where(AssetEvent.asset_id == asset_id, AssetEvent.id > after, ~_consumed_by(dag_id, ("success",)))
        .where(AssetEvent.id.not_in(handled))
        .order_by(AssetEvent.id)
        .limit(1)
    )
    return session.scalar(query)


def undelivered_events(
    session: Session, dag_id: str, lows: Mapping[int, int], *, handled: Collection[int] = (), limit: int
) -> list[AssetEvent]:
    """Return the oldest events that no queued, running or successful run of a DAG has consumed.

    :param lows: by asset id, the event after which to look.
    :param handled: ids of events that need no run.
    :param limit: most events.
    """
    from airflow.models.asset import AssetEvent
    from sqlalchemy import and_, or_, select

    places = or_(*(and_(AssetEvent.asset_id == asset_id, AssetEvent.id > low) for asset_id, low in lows.items()))
    consumed = _consumed_by(dag_id, ("queued", "running", "success"))
    query = select(AssetEvent).where(places, ~consumed, AssetEvent.id.not_in(handled))
    return list(session.scalars(query.order_by(AssetEvent.id).limit(limit)))


def tried_events(session: Session, run: DagRun, ids: Sequence[int]) -> set[int]:
    """Return those events that another run of the same DAG was given, whatever became of it."""
    from airflow.models.asset import association_table
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    found: set[int] = set()
    for start in range(0, len(ids), _IN_LIMIT):
        query = (
            select(association_table.c.event_id)
            .join(DagRun, DagRun.id == association_table.c.dag_run_id)
            .where(
                association_table.c.event_id.in_(ids[start : start + _IN_LIMIT]),
                DagRun.dag_id == run.dag_id,
                DagRun.id != run.id,
            )
        )
        found.update(session.scalars(query))
    return found


def delivered_elsewhere(session: Session, run: DagRun, asset_ids: Collection[int]) -> set[int]:
    """Return the events of a run that another queued, running or successful run of its DAG has consumed as well."""
    from airflow.models.asset import AssetEvent, association_table
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

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


def queue_event(session: Session, dag_id: str, asset_id: int, *, at: datetime) -> None:
    """Let Airflow make one more run of a DAG for an asset."""
    from airflow.models.asset import AssetDagRunQueue

    if session.get(AssetDagRunQueue, (asset_id, dag_id)) is None:
        session.add(AssetDagRunQueue(asset_id=asset_id, target_dag_id=dag_id, created_at=at))


def locked_asset(session: Session, name: str) -> AssetModel | None:
    """Return an asset that an active DAG names, locked where the database can, so that two servers take turns."""
    from airflow.models.asset import AssetModel
    from sqlalchemy import select

    query = select(AssetModel).where(AssetModel.name == name, AssetModel.active.has())
    return session.scalar(query.with_for_update(key_share=True, of=AssetModel))


def register_event(
    session: Session, asset: AssetModel, extra: dict[str, Any], *, partition_key: str | None = None
) -> None:
    """Register an event, which wakes the DAGs that are scheduled by the asset itself."""
    from airflow.assets.manager import asset_manager

    asset_manager.register_asset_change(asset=asset, extra=extra, partition_key=partition_key, session=session)


def asset_id(session: Session, name: str) -> int | None:
    """Return the id of an asset that an active DAG names, or None."""
    from airflow.models.asset import AssetModel
    from sqlalchemy import select

    return session.scalar(select(AssetModel.id).where(AssetModel.name == name, AssetModel.active.has()))


def watchers_of(session: Session, asset: str) -> list[tuple[str, dict[str, object]]]:
    """Return class and arguments of the triggers of an asset's watchers, as the newest version of a DAG has them."""
    from airflow.models.asset import AssetModel, DagScheduleAssetReference
    from sqlalchemy import select

    query = (
        select(DagScheduleAssetReference.dag_id)
        .join(AssetModel, AssetModel.id == DagScheduleAssetReference.asset_id)
        .where(AssetModel.name == asset)
        .order_by(DagScheduleAssetReference.dag_id)
    )
    for dag_id in session.scalars(query).all():
        dag = serialized_dag(session, dag_id)
        condition = None if dag is None else dag.timetable.asset_condition
        for key, found in () if condition is None else condition.iter_assets():
            if key.name == asset and found.watchers:
                return [(each.trigger["classpath"], dict(each.trigger["kwargs"])) for each in found.watchers]
    return []


def events_after(session: Session, asset_id: int, *, after: int, limit: int) -> list[AssetEvent]:
    """Return the oldest events of an asset whose id is greater than ``after``."""
    from airflow.models.asset import AssetEvent
    from sqlalchemy import select

    query = select(AssetEvent).where(AssetEvent.asset_id == asset_id, AssetEvent.id > after)
    return list(session.scalars(query.order_by(AssetEvent.id).limit(limit)))


def runs_of_events(
    session: Session, ids: Sequence[int], *, dag_ids: Collection[str] = ()
) -> dict[int, dict[tuple[str, str], str]]:
    """Return the states of the runs that consumed events, by event, DAG and run id."""
    from airflow.models.asset import association_table
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

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


def clear_run(session: Session, dag_id: str, run_id: str) -> None:
    """Clear all tasks of a run, so that it is queued again."""
    dag = serialized_dag(session, dag_id)
    if dag is not None:
        dag.clear(run_id=run_id, session=session)
