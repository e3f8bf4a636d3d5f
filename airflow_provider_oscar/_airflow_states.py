# SPDX-License-Identifier: Apache-2.0
"""The values of assets' state stores in Airflow's database, for code that is neither a task nor a trigger.

Beside :mod:`airflow_provider_oscar._airflow_db`, under the same rules.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow._shared.timezones import timezone
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.utils.sqlalchemy import with_row_locks
from sqlalchemy import delete, func, insert, literal, select, update

from airflow_provider_oscar._airflow_db import insert_unless_there

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def locked_state(session: Session, asset_ids: Collection[int], key: str) -> dict[int, object] | None:
    """Return a value of several assets' state stores, locked until the transaction ends; None if another has the lock.

    :raises IntegrityError: at the next flush, if two processes make the first value at the same time.
    """
    where = (AssetStateStoreModel.asset_id.in_(asset_ids), AssetStateStoreModel.key == key)
    query = with_row_locks(select(AssetStateStoreModel).where(*where), session=session, skip_locked=True)
    rows = {row.asset_id: row for row in session.scalars(query)}
    there = session.scalar(select(func.count()).select_from(AssetStateStoreModel).where(*where))
    if there != len(rows):
        return None
    return {asset_id: _load(rows.get(asset_id)) for asset_id in asset_ids}


def claimed_state(session: Session, asset_ids: Collection[int], key: str) -> dict[int, object]:
    """Return a value of several assets' state stores, locked until the transaction ends; waits for whom has the lock.

    :param asset_ids: ids of the assets; where one has no such value, it gets null.
    """
    wanted = sorted(asset_ids)
    where = (AssetStateStoreModel.asset_id.in_(wanted), AssetStateStoreModel.key == key)
    there = set(session.scalars(select(AssetStateStoreModel.asset_id).where(*where)))
    for asset_id in wanted:
        if asset_id not in there:
            insert_unless_there(session, AssetStateStoreModel, asset_id=asset_id, key=key, value="null")
    query = select(AssetStateStoreModel).where(*where).order_by(AssetStateStoreModel.asset_id)
    rows = session.scalars(with_row_locks(query, session=session).execution_options(populate_existing=True))
    return {row.asset_id: _load(row) for row in rows}


def states(
    session: Session, asset_ids: Collection[int] | None, prefix: str, *, limit: int
) -> list[tuple[int, str, Any]]:
    """Return (asset id, key, value) of the states whose key begins with ``prefix``, longest untouched first.

    :param asset_ids: only of these assets; None for all.
    """
    query = (
        select(AssetStateStoreModel)
        .where(AssetStateStoreModel.key.startswith(prefix, autoescape=True))
        .order_by(AssetStateStoreModel.updated_at, AssetStateStoreModel.key)
    )
    if asset_ids is not None:
        query = query.where(AssetStateStoreModel.asset_id.in_(asset_ids))
    return [(row.asset_id, row.key, _load(row)) for row in session.scalars(query.limit(limit))]


def first_states(
    session: Session, asset_ids: Collection[int], prefix: str, *, limit: int
) -> list[tuple[int, str, Any]]:
    """Return (asset id, key, value) of the states whose key begins with ``prefix``, in the order of their keys."""
    query = (
        select(AssetStateStoreModel)
        .where(
            AssetStateStoreModel.asset_id.in_(asset_ids), AssetStateStoreModel.key.startswith(prefix, autoescape=True)
        )
        .order_by(AssetStateStoreModel.key)
    )
    return [(row.asset_id, row.key, _load(row)) for row in session.scalars(query.limit(limit))]


def iter_states(session: Session, asset_id: int, prefix: str) -> Iterator[Any]:
    """Yield the values of one asset's states whose key begins with ``prefix``, longest untouched first.

    However many there are, some hundred are held at once.
    """
    query = (
        select(AssetStateStoreModel.value)
        .where(AssetStateStoreModel.asset_id == asset_id, AssetStateStoreModel.key.startswith(prefix, autoescape=True))
        .order_by(AssetStateStoreModel.updated_at, AssetStateStoreModel.key)
    )
    for value in session.scalars(query.execution_options(yield_per=500)):
        yield json.loads(value)


def delete_states(session: Session, asset_id: int, prefix: str, *, before: datetime | None = None) -> int:
    """Remove the states of one asset whose key begins with ``prefix``.

    :param before: only those that were written before this time; None for all.
    :return: how many.
    """
    query = delete(AssetStateStoreModel).where(
        AssetStateStoreModel.asset_id == asset_id, AssetStateStoreModel.key.startswith(prefix, autoescape=True)
    )
    done = session.execute(query if before is None else query.where(AssetStateStoreModel.updated_at < before))
    return int(getattr(done, "rowcount", 0))


def states_of_keys(session: Session, asset_ids: Collection[int], keys: Collection[str]) -> list[tuple[int, str, Any]]:
    """Return (asset id, key, value) of the states with these keys."""
    query = select(AssetStateStoreModel).where(
        AssetStateStoreModel.asset_id.in_(asset_ids), AssetStateStoreModel.key.in_(keys)
    )
    return [(row.asset_id, row.key, _load(row)) for row in session.scalars(query)]


def assets_with_state(session: Session, key: str) -> list[int]:
    """Return the ids of the assets that have a state with this key."""
    return list(session.scalars(select(AssetStateStoreModel.asset_id).where(AssetStateStoreModel.key == key)))


def set_state(session: Session, asset_id: int, key: str, value: Any) -> None:
    """Write a value of an asset's state store; None removes it."""
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


def write_states(session: Session, values: Mapping[tuple[int, str], Any]) -> None:
    """Write values of assets' state stores with as many statements for one as for a thousand.

    :param values: by asset id and key; None removes a value.
    """
    if not values:
        return
    query = select(AssetStateStoreModel).where(
        AssetStateStoreModel.asset_id.in_({asset_id for asset_id, _ in values}),
        AssetStateStoreModel.key.in_([key for _, key in values]),
    )
    rows = {(row.asset_id, row.key): row for row in session.scalars(query)}
    for (asset_id, key), value in values.items():
        row, text = rows.get((asset_id, key)), json.dumps(value)
        if value is None:
            if row is not None:
                session.delete(row)
        elif row is None:
            session.add(AssetStateStoreModel(asset_id=asset_id, key=key, value=text))
        elif row.value != text:
            row.value, row.updated_at = text, timezone.utcnow()
    session.flush()


def move_states(session: Session, source: int, target: int, prefix: str) -> None:
    """Give the states of one asset whose key begins with ``prefix`` to another, where it has none of the same key."""
    states = AssetStateStoreModel.__table__
    there = select(states.c.key).where(states.c.asset_id == target)
    lies_there = (states.c.asset_id == source, states.c.key.startswith(prefix, autoescape=True))
    session.execute(update(states).where(*lies_there, states.c.key.not_in(there)).values(asset_id=target))
    session.execute(delete(states).where(*lies_there))


def copy_states(session: Session, source: int, target: int, prefix: str) -> int:
    """Copy the states of one asset whose key begins with ``prefix`` to another that has none of them.

    :return: how many.
    """
    columns = [column for column in AssetStateStoreModel.__table__.c if column.name != "asset_id"]
    rows = select(literal(target), *columns).where(
        AssetStateStoreModel.asset_id == source, AssetStateStoreModel.key.startswith(prefix, autoescape=True)
    )
    done = session.execute(
        insert(AssetStateStoreModel).from_select(["asset_id", *(column.name for column in columns)], rows)
    )
    return int(getattr(done, "rowcount", 0))


def _load(row: AssetStateStoreModel | None) -> object:
    return None if row is None else json.loads(row.value)


def get_state(session: Session, asset_id: int, key: str) -> object:
    """Return a value of an asset's state store, or None."""
    return _load(session.get(AssetStateStoreModel, (asset_id, key)))
