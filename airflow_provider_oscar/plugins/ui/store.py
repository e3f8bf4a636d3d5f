# SPDX-License-Identifier: Apache-2.0
"""What the page reads from Airflow's database. Each reading is bounded by the newest runs, never by the history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, func, or_, select

from airflow_provider_oscar._airflow_db import transaction
from airflow_provider_oscar._airflow_tables import (
    AssetEvent,
    AssetModel,
    AssetWatcherModel,
    Connection,
    DagRun,
    DagScheduleAssetReference,
    Trigger,
    XComModel,
)
from airflow_provider_oscar._airflow_tables import AssetStateStoreModel as State
from airflow_provider_oscar._airflow_tables import RenderedTaskInstanceFields as Rendered
from airflow_provider_oscar._airflow_tables import TaskInstance as TI
from airflow_provider_oscar._airflow_tables import TaskStateStoreModel as TaskState
from airflow_provider_oscar.jobs.backend import backend_names, backends_by_connection, find_backend
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.operators.job_state import STATE_KEY
from airflow_provider_oscar.operators.placement_store import PLACEMENT_RUNS, recent_key
from airflow_provider_oscar.placement.history import RunRecord, decode_records, is_ahead
from airflow_provider_oscar.plugins.ui.asset_events import event_key, event_object
from airflow_provider_oscar.plugins.ui.journey import RunRow
from airflow_provider_oscar.plugins.ui.views import (
    Decided,
    TaskRow,
    WatchedAsset,
    decoded,
    get_manifest,
)
from airflow_provider_oscar.watch.status import KEY_PREFIX

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

#: Newest runs that are looked through.
RUNS = 1000
#: Rows of one answer at most.
ROWS = 200
#: Newest events shown of each watched place.
EVENTS = 20
#: What tasks leave in XCom that is of interest here.
XCOM_KEYS = ("return_value", "job_id", "slurm_job_id", "decision")
#: Bytes of an XCom value that are read; a manifest in XCom is a summary.
XCOM_LIMIT = 1024 * 1024
STORE_TYPES = ("dcache", "oscar_s3", "aws")


def job_rows(
    session: Session, dags: Collection[str], *, limit: int = ROWS, run: tuple[str, str] | None = None
) -> list[TaskRow]:
    """Return the newest task instances that run jobs, newest first.

    :param dags: the DAGs the user may read.
    :param limit: rows at most.
    :param run: one DAG run, by DAG id and run id, instead of the newest runs of all.
    """
    left_job = exists().where(
        XComModel.dag_id == TI.dag_id,
        XComModel.run_id == TI.run_id,
        XComModel.task_id == TI.task_id,
        XComModel.map_index == TI.map_index,
        XComModel.key == "job_id",
    )
    remembers = exists().where(
        TaskState.dag_id == TI.dag_id,
        TaskState.run_id == TI.run_id,
        TaskState.task_id == TI.task_id,
        TaskState.map_index == TI.map_index,
        TaskState.key == STATE_KEY,
    )
    query = _instances(dags, run).where(
        or_(TI.operator.in_(_job_operators()), left_job, remembers),
        TI.state.is_not(None),
        TI.state != "removed",
        # A branch that was not taken ran nothing; one whose job said that there was nothing to do has run it.
        or_(TI.state != "skipped", left_job),
    )
    return _rows(session, query.limit(min(limit, ROWS)))


def _job_operators() -> list[str]:
    """The types of tasks that run jobs, whether or not they have submitted one."""
    return [find_backend(name).operator.rpartition(".")[2] for name in backend_names()]


def decision_rows(session: Session, dags: Collection[str], *, limit: int = ROWS) -> list[TaskRow]:
    """Return the newest task instances that decided a placement, newest first."""
    decided = exists().where(
        XComModel.dag_id == TI.dag_id,
        XComModel.run_id == TI.run_id,
        XComModel.task_id == TI.task_id,
        XComModel.map_index == TI.map_index,
        XComModel.key == "decision",
    )
    return _rows(session, _instances(dags, None).where(decided).limit(min(limit, ROWS)))


def one_row(session: Session, dag_id: str, run_id: str, task_id: str, map_index: int) -> TaskRow | None:
    """Return one task instance, or None if there is none."""
    query = select(TI).where(TI.dag_id == dag_id, TI.run_id == run_id, TI.task_id == task_id, TI.map_index == map_index)
    found = _rows(session, query)
    return found[0] if found else None


def find_decisions(session: Session, rows: Iterable[TaskRow]) -> dict[tuple[str, str], list[Decided]]:
    """Return the decisions of each of the rows' runs that has any, oldest first, by DAG id and run id."""
    wanted = {(row.dag_id, row.run_id) for row in rows}
    if not wanted:
        return {}
    query = (
        select(XComModel)
        .where(
            XComModel.dag_id.in_({dag_id for dag_id, _ in wanted}),
            XComModel.run_id.in_({run_id for _, run_id in wanted}),
            XComModel.key == "decision",
        )
        .order_by(XComModel.timestamp)
    )
    found: dict[tuple[str, str], list[Decided]] = {}
    for xcom in session.scalars(query):
        value = decoded(xcom.value)
        if isinstance(value, dict) and (xcom.dag_id, xcom.run_id) in wanted:
            found.setdefault((xcom.dag_id, xcom.run_id), []).append((xcom.map_index, value))
    return found


def remembered_job(session: Session, row: TaskRow) -> RunningJob | None:
    """Return what a task instance remembers of its job, of several that of the target its result is from; or None."""
    target = (get_manifest(row) or {}).get("placement")
    keys = (STATE_KEY, f"{STATE_KEY}@{target}")
    query = select(TaskState.key, TaskState.value).where(
        TaskState.dag_id == row.dag_id,
        TaskState.run_id == row.run_id,
        TaskState.task_id == row.task_id,
        TaskState.map_index == row.map_index,
        TaskState.key.in_(keys),
    )
    found: dict[str, object] = {row.key: row.value for row in session.execute(query)}
    # A task that places its work has a memory for each target beside its own.
    return RunningJob.from_stored(decoded(decoded(found.get(keys[1]) or found.get(keys[0]))))


def remembered(task_instance: Any) -> RunningJob | None:
    """Return what a task instance remembers of its job; None if it runs no job.

    :param task_instance: as a listener gets it.
    """
    ti = task_instance
    with transaction() as session:
        row = one_row(session, ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
        return None if row is None else remembered_job(session, row)


def find_runs(session: Session, dags: Collection[str], keys: Collection[str], runs: Collection[str]) -> list[RunRow]:
    """Return the runs with these partition keys or run ids, newest first.

    :param dags: the DAGs the user may read.
    :param keys: partition keys of asset events.
    :param runs: ids of runs that are known to matter.
    """
    query = (
        select(DagRun.dag_id, DagRun.run_id, DagRun.partition_key, DagRun.state, DagRun.start_date)
        .where(or_(DagRun.partition_key.in_(keys), DagRun.run_id.in_(runs)), DagRun.dag_id.in_(dags))
        .order_by(DagRun.run_after.desc())
        .limit(RUNS)
    )
    found = session.execute(query)
    return [RunRow(dag, run, key or "", str(state or ""), started) for dag, run, key, state, started in found]


def target_records(session: Session, *, now: datetime) -> dict[str, tuple[RunRecord, ...]]:
    """Return the newest records of each target that placement learns from, oldest first.

    :param session: of the metadata database.
    :param now: the present time; records from a clock that is far ahead are left out, as placement does.
    """
    prefix = recent_key("")
    query = (
        select(State.key, State.value)
        .join(AssetModel, AssetModel.id == State.asset_id)
        .where(AssetModel.uri == PLACEMENT_RUNS.uri, State.key.startswith(prefix, autoescape=True))
        .order_by(State.key)
        .limit(ROWS)
    )
    found = {key.removeprefix(prefix): decode_records(decoded(value)) for key, value in session.execute(query)}
    return {name: tuple(each for each in records if not is_ahead(each, now)) for name, records in found.items()}


def _instances(dags: Collection[str], run: tuple[str, str] | None) -> Select[object]:
    runs = select(DagRun.dag_id, DagRun.run_id, DagRun.run_after).where(DagRun.dag_id.in_(dags))
    if run is not None:
        runs = runs.where(DagRun.dag_id == run[0], DagRun.run_id == run[1])
    newest = runs.order_by(DagRun.run_after.desc()).limit(RUNS).subquery()
    return (
        select(TI)
        .join(newest, (TI.dag_id == newest.c.dag_id) & (TI.run_id == newest.c.run_id))
        .order_by(func.coalesce(TI.start_date, newest.c.run_after).desc())
    )


def _rows(session: Session, query: Select[Any]) -> list[TaskRow]:
    found = list(session.scalars(query).unique())
    xcoms = _xcoms(session, found)
    rendered = _rendered(session, found)
    return [
        TaskRow(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=ti.map_index,
            operator=ti.custom_operator_name or ti.operator or "",
            state=str(ti.state or ""),
            try_number=ti.try_number,
            start=ti.start_date,
            end=ti.end_date,
            xcoms=xcoms[_key(ti)],
            rendered=rendered.get(_key(ti), {}),
        )
        for ti in found
    ]


def _key(row: Any) -> tuple[str, str, str, int]:
    return row.dag_id, row.run_id, row.task_id, row.map_index


def _xcoms(session: Session, found: Sequence[object]) -> defaultdict[tuple[str, str, str, int], dict[str, object]]:
    values: defaultdict[tuple[str, str, str, int], dict[str, object]] = defaultdict(dict)
    wanted = {_key(ti) for ti in found}
    if not wanted:
        return values
    query = select(XComModel).where(
        XComModel.dag_id.in_({key[0] for key in wanted}),
        XComModel.run_id.in_({key[1] for key in wanted}),
        XComModel.task_id.in_({key[2] for key in wanted}),
        XComModel.key.in_(XCOM_KEYS),
    )
    for row in session.scalars(query):
        if _key(row) in wanted and not (isinstance(row.value, str) and len(row.value) > XCOM_LIMIT):
            values[_key(row)][row.key] = decoded(row.value)
    return values


def _rendered(session: Session, found: Sequence[object]) -> dict[tuple[str, str, str, int], dict[str, object]]:
    wanted = {_key(ti) for ti in found}
    if not wanted:
        return {}
    query = select(Rendered).where(
        Rendered.dag_id.in_({key[0] for key in wanted}),
        Rendered.run_id.in_({key[1] for key in wanted}),
        Rendered.task_id.in_({key[2] for key in wanted}),
    )
    return {_key(row): dict(row.rendered_fields or {}) for row in session.scalars(query) if _key(row) in wanted}


def watched_assets(session: Session) -> list[WatchedAsset]:
    """Return the active assets that have a watcher, with what it says of itself and the newest events."""
    query = (
        select(AssetModel.id, AssetModel.name, AssetModel.uri, AssetWatcherModel.name, Trigger.triggerer_id)
        .join(AssetWatcherModel, AssetWatcherModel.asset_id == AssetModel.id)
        .join(Trigger, Trigger.id == AssetWatcherModel.trigger_id, isouter=True)
        .order_by(AssetModel.name)
        .limit(ROWS)
    )
    assets: dict[int, tuple[str, str]] = {}
    watchers: defaultdict[int, list[str]] = defaultdict(list)
    claimed: dict[int, bool] = {}
    for asset_id, name, uri, watcher, triggerer in session.execute(query):
        assets[asset_id] = (name, uri)
        watchers[asset_id].append(watcher)
        claimed[asset_id] = claimed.get(asset_id, True) and triggerer is not None
    consumers: defaultdict[int, list[str]] = defaultdict(list)
    references = select(DagScheduleAssetReference.asset_id, DagScheduleAssetReference.dag_id)
    for asset_id, dag_id in session.execute(references.where(DagScheduleAssetReference.asset_id.in_(assets))):
        consumers[asset_id].append(dag_id)
    states = _status(session, assets)
    return [
        WatchedAsset(
            asset_id=asset_id,
            name=name,
            uri=uri,
            watchers=tuple(watchers[asset_id]),
            consumers=tuple(sorted(consumers[asset_id])),
            triggered=claimed[asset_id],
            status=states.get(asset_id, (None, None))[0],
            status_at=states.get(asset_id, (None, None))[1],
            events=_events(session, asset_id),
        )
        for asset_id, (name, uri) in assets.items()
    ]


def _status(session: Session, assets: Iterable[int]) -> dict[int, tuple[Any, Any]]:
    """Return what the watcher of each asset says of itself; of several, one that fails, else the newest."""
    query = (
        select(State.asset_id, State.value, State.updated_at)
        .where(State.asset_id.in_(list(assets)), State.key.startswith(KEY_PREFIX, autoescape=True))
        .order_by(State.updated_at)
        .limit(ROWS)
    )
    found: dict[int, tuple[Any, object]] = {}
    for asset_id, value, updated_at in session.execute(query):
        watcher_status = decoded(decoded(value))
        if not isinstance(watcher_status, dict):
            continue
        known = found.get(asset_id)
        if known is None or watcher_status.get("failing_since") or not known[0].get("failing_since"):
            found[asset_id] = (watcher_status, updated_at)
    return found


def _events(session: Session, asset_id: int) -> tuple[tuple[Any, str, str], ...]:
    query = (
        select(AssetEvent.timestamp, AssetEvent.extra, AssetEvent.partition_key)
        .where(AssetEvent.asset_id == asset_id)
        .order_by(AssetEvent.timestamp.desc())
        .limit(EVENTS)
    )
    return tuple((at, event_object(extra), event_key(extra) or key or "") for at, extra, key in session.execute(query))


def connections(session: Session, allowed: Collection[str]) -> list[dict[str, object]]:
    """Return the connections of our types that the user may read: names, types and hosts, no more."""
    backends = backends_by_connection()
    query = (
        select(Connection.conn_id, Connection.conn_type, Connection.host, Connection.description)
        .where(Connection.conn_type.in_((*STORE_TYPES, *backends)), Connection.conn_id.in_(allowed))
        .order_by(Connection.conn_id)
        .limit(ROWS)
    )
    return [
        {
            "conn_id": conn_id,
            "conn_type": conn_type,
            "host": host or "",
            "description": description or "",
            "parts_title": backends[conn_type].parts_title if conn_type in backends else "",
        }
        for conn_id, conn_type, host, description in session.execute(query)
    ]
