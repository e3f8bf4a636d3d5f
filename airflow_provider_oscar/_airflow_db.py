# SPDX-License-Identifier: Apache-2.0
"""What runs beside Airflow's database: in the triggerer's own process, the scheduler, the API server and the CLI.

The counterpart of :mod:`airflow_provider_oscar._airflow` for code that is neither a task nor a trigger. It loads
Airflow's models, so neither DAG files nor workers may load it, which ``tests/unit/test_imports.py`` sees to;
``tests/unit/test_airflow_contract.py`` holds each name against the installed Airflow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from airflow._shared.timezones import timezone
from airflow.models.asset import (
    AssetModel,
    AssetWatcherModel,
    DagScheduleAssetNameReference,
    DagScheduleAssetReference,
    DagScheduleAssetUriReference,
    TaskOutletAssetReference,
)
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.log import Log
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import exists, func, insert, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy import ColumnElement, Exists


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
    with create_session(scoped=False) as session:
        yield session


@contextmanager
def savepoint(session: Session) -> Iterator[Session]:
    """Open a session within the transaction of another, of which an error undoes what was done in it and no more.

    Not ``session.begin_nested()``: the scheduler forbids its session to commit (``prohibit_commit``), and takes the end
    of a savepoint of the session for one; and a failed flush would end the session itself.

    :param session: is flushed before. What it has loaded of rows that are changed is out of date afterwards.
    """
    session.flush()
    with Session(bind=session.connection(), join_transaction_mode="create_savepoint") as inner, inner.begin():
        yield inner


def insert_unless_there(session: Session, model: type, **values: object) -> None:
    """Insert a row, unless another process has just inserted it.

    :param model: class of the row.
    :param values: its columns.
    """
    with suppress(IntegrityError), savepoint(session) as inner:
        inner.add(model(**values))


def find_consumers(session: Session, timetable: str, *, dag_ids: Collection[str] | None = None) -> list[Consumer]:
    """Return the DAGs with a timetable, those of active assets.

    :param timetable: qualified name of the timetable's class.
    :param dag_ids: only these; None for all.
    """
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


def dag_ids(session: Session) -> set[str]:
    """Return the ids of all DAGs, also of those whose files are gone and whose runs are still there."""
    return set(session.scalars(select(DagModel.dag_id)))


def serialized_dag(session: Session, dag_id: str) -> SerializedDAG | None:
    """Return the newest version of a DAG, or None."""
    found = SerializedDagModel.get(dag_id, session=session)
    return None if found is None else found.dag


def first_seen(session: Session, dag_id: str) -> datetime | None:
    """Return when the oldest version of a DAG was written, or None."""
    return session.scalar(select(func.min(DagVersion.created_at)).where(DagVersion.dag_id == dag_id))


def has_dag(session: Session, dag_id: str) -> bool:
    """Whether there is or was a DAG of an id."""
    return session.scalar(select(DagModel.dag_id).where(DagModel.dag_id == dag_id)) is not None


def write_audit_log(session: Session, *, event: str, dag_id: str, texts: Sequence[str]) -> None:
    """Add entries to Airflow's audit log, which the UI shows at the DAG; one statement for all."""
    if texts:
        now = timezone.utcnow()
        rows = [{"dttm": now, "event": event, "dag_id": dag_id, "extra": text} for text in texts]
        session.execute(insert(Log.__table__), rows)


def plain_schedules(
    session: Session, timetable: str, *, dag_id: str | None = None
) -> list[tuple[str, AssetModel, datetime]]:
    """Return the DAGs that are scheduled by active assets, or references to them, each with the time since when.

    :param timetable: qualified name of a timetable's class, whose DAGs are left out.
    :param dag_id: only this DAG; None for all that are not paused.
    """
    wanted: list[ColumnElement[bool]] = [DagModel.dag_id == dag_id]
    if dag_id is None:
        wanted = [DagModel.is_paused.is_(False), DagModel.is_stale.is_(False)]
    found: dict[tuple[str, int], tuple[str, AssetModel, datetime]] = {}
    for reference, condition in (
        (DagScheduleAssetReference, DagScheduleAssetReference.asset_id == AssetModel.id),
        (DagScheduleAssetNameReference, DagScheduleAssetNameReference.name == AssetModel.name),
        (DagScheduleAssetUriReference, DagScheduleAssetUriReference.uri == AssetModel.uri),
    ):
        query = (
            select(DagModel.dag_id, AssetModel, reference.created_at)
            .join(reference, condition)
            .join(DagModel, DagModel.dag_id == reference.dag_id)
            .where(AssetModel.active.has(), DagModel.timetable_type != timetable, *wanted)
            .order_by(DagModel.dag_id, AssetModel.id)
        )
        for owner, asset, since in session.execute(query):
            found.setdefault((owner, asset.id), (owner, asset, since))
    return list(found.values())


def produced_assets(session: Session, timetable: str) -> set[int]:
    """Return the ids of the assets that tasks of DAGs with a timetable have as outlets.

    :param timetable: qualified name of the timetable's class.
    """
    query = (
        select(TaskOutletAssetReference.asset_id)
        .join(DagModel, DagModel.dag_id == TaskOutletAssetReference.dag_id)
        .where(DagModel.timetable_type == timetable)
    )
    return set(session.scalars(query))


def locked_asset(session: Session, name: str) -> AssetModel | None:
    """Return an asset that an active DAG names, locked where the database can, so that two servers take turns."""
    query = select(AssetModel).where(AssetModel.name == name, AssetModel.active.has())
    return session.scalar(query.with_for_update(key_share=True, of=AssetModel))


def asset_id(session: Session, name: str) -> int | None:
    """Return the id of an asset that an active DAG names, or None."""
    return session.scalar(select(AssetModel.id).where(AssetModel.name == name, AssetModel.active.has()))


def find_watchers(session: Session, asset: str) -> list[tuple[str, dict[str, object]]]:
    """Return class and arguments of the triggers of an asset's watchers, as the newest version of a DAG has them."""
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


def newest_asset(session: Session) -> int:
    """Return the greatest id of all assets; 0 if there is none."""
    return session.scalar(select(func.max(AssetModel.id))) or 0


def _is_scheduled() -> Exists:
    return exists(
        select(DagScheduleAssetReference.dag_id)
        .join(DagModel, DagModel.dag_id == DagScheduleAssetReference.dag_id)
        .where(DagScheduleAssetReference.asset_id == AssetModel.id, DagModel.is_stale.is_(False))
    )


def scheduled_by(session: Session, dag_id: str) -> set[int]:
    """Return the ids of the assets that a DAG is scheduled by."""
    query = select(DagScheduleAssetReference.asset_id).where(DagScheduleAssetReference.dag_id == dag_id)
    return set(session.scalars(query))


def is_scheduled(session: Session, asset_id: int) -> bool:
    """Whether a DAG is scheduled by an asset."""
    return session.scalar(select(AssetModel.id).where(AssetModel.id == asset_id, _is_scheduled())) is not None


def former_assets(session: Session, asset_id: int, *, mark: str, left: Collection[int] = ()) -> list[int]:
    """Return the assets that no DAG is scheduled by any more and that agree with another in an entry of their extra.

    :param asset_id: the other one.
    :param mark: key of the entry; assets without it agree with none.
    :param left: assets that count though a DAG is scheduled by them.
    :return: their ids, the newest first.
    """
    own = session.get(AssetModel, asset_id)
    wanted = None if own is None else (own.extra or {}).get(mark)
    if wanted is None:
        return []
    free = or_(~_is_scheduled(), AssetModel.id.in_(left))
    query = select(AssetModel.id, AssetModel.extra).where(AssetModel.id != asset_id, free)
    rows = session.execute(query.order_by(AssetModel.id.desc()))
    return [number for number, extra in rows if (extra or {}).get(mark) == wanted]


def asset_name(session: Session, asset_id: int) -> str:
    """Return the name of an asset; empty if there is none."""
    found = session.get(AssetModel, asset_id)
    return "" if found is None else str(found.name)


def find_triggers(session: Session, asset_id: int) -> list[tuple[str, dict[str, object]]]:
    """Return class and arguments of the triggers that watch an asset now, or will when the triggerer looks."""
    query = (
        select(Trigger)
        .join(AssetWatcherModel, AssetWatcherModel.trigger_id == Trigger.id)
        .where(AssetWatcherModel.asset_id == asset_id)
    )
    return [(trigger.classpath, dict(trigger.kwargs)) for trigger in session.scalars(query)]


def task_state(session: Session, *, dag_id: str, run_id: str, task_id: str, map_index: int) -> str | None:
    """Return the state of a task; None for one that was cleared, ``removed`` for one that is not there."""
    found = session.execute(
        select(TaskInstance.state).where(
            TaskInstance.dag_id == dag_id,
            TaskInstance.run_id == run_id,
            TaskInstance.task_id == task_id,
            TaskInstance.map_index == map_index,
        )
    ).first()
    return str(TaskInstanceState.REMOVED) if found is None else found[0]


def clear_run(session: Session, dag_id: str, run_id: str) -> None:
    """Clear all tasks of a run, so that it is queued again."""
    dag = serialized_dag(session, dag_id)
    if dag is not None:
        dag.clear(run_id=run_id, session=session)
