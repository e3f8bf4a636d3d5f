# SPDX-License-Identifier: Apache-2.0
"""The one place that imports what Airflow does not promise to keep, and that raises Airflow's exceptions.

``tests/unit/test_airflow_contract.py`` holds each name against the installed Airflow, so that an
upgrade that moves one fails there and not in a running task.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from airflow.sdk import Asset
from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, determine_kwargs, task_decorator_factory
from airflow.sdk.definitions.asset import AssetUniqueKey
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from airflow.sdk.execution_time.context import NEVER_EXPIRE, AssetStateStoreAccessor, OutletEventAccessor
from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome, SharedStreamProducer

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError

__all__ = [
    "NEVER_EXPIRE",
    "AdvanceItem",
    "AdvanceOutcome",
    "AirflowNotFoundException",
    "AssetPartitions",
    "AssetStateStoreAccessor",
    "DecoratedOperator",
    "SharedStreamProducer",
    "TaskDecorator",
    "add_partition_event",
    "airflow_errors",
    "asset_partitions",
    "call_with_context",
    "server_connection",
    "task_decorator_factory",
]


class _OneEvent(AssetUniqueKey):
    """Names an asset, and is equal to itself only: the key of one of several events of the same asset."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


def add_partition_event(outlet_events: Any, asset: Asset, *, partition_key: str, extra: dict[str, Any]) -> None:
    """Let the running task emit one more event of ``asset``, with a partition key and an ``extra`` of its own.

    Airflow's own ``outlet_events[asset].add_partitions(keys)`` gives all keys of a task the same ``extra``.

    :param outlet_events: ``context["outlet_events"]``; ``asset`` must be among the task's outlets.
    """
    key = _OneEvent(name=asset.name, uri=asset.uri)
    accessor = OutletEventAccessor(extra=extra, key=key)
    accessor.add_partitions(partition_key)
    outlet_events._dict[key] = accessor


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn what must not be repeated into ``AirflowFailException``, and let the rest be retried.

    A :class:`PermanentError`, a :class:`DefinitionError` or an undefined connection fails the task at once
    whatever ``retries`` says; :class:`TransientError` and :class:`LostContactError` pass, so that Airflow
    retries them.
    """
    try:
        yield
    except (DefinitionError, PermanentError, AirflowNotFoundException) as error:
        raise AirflowFailException(str(error)) from error


def call_with_context(
    function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any], context: Mapping[str, Any]
) -> Any:
    """Call a decorated function with its own arguments and those names of the context that it asks for."""
    return function(*args, **determine_kwargs(function, args, {**context, **kwargs}))


class AssetPartitions:
    """The events and the state of one asset, within one transaction; see :func:`asset_partitions`."""

    def __init__(self, session: Any, asset: Any) -> None:
        self._session = session
        self._asset = asset

    def known(self, keys: Collection[str], *, since: datetime) -> set[str]:
        """Return those of the partition keys that have an event already.

        :param since: no event before it is looked at.
        """
        from airflow.models.asset import AssetEvent
        from sqlalchemy import select

        query = select(AssetEvent.partition_key).where(
            AssetEvent.asset_id == self._asset.id, AssetEvent.timestamp >= since, AssetEvent.partition_key.in_(keys)
        )
        return set(self._session.scalars(query))

    def add(self, partition_key: str, extra: dict[str, Any]) -> None:
        """Register an event, which queues the runs of the DAGs that are scheduled by the asset."""
        from airflow.assets.manager import asset_manager

        asset_manager.register_asset_change(
            asset=self._asset, extra=extra, partition_key=partition_key, session=self._session
        )

    def state(self, key: str) -> Any:
        """Return a value of the asset state store, or None."""
        from airflow.state import get_state_backend

        found = get_state_backend().get(self._scope(), key, session=self._session)
        return None if found is None else json.loads(found)

    def set_state(self, key: str, value: Any) -> None:
        """Write a value of the asset state store."""
        from airflow.state import get_state_backend

        get_state_backend().set(self._scope(), key, json.dumps(value), session=self._session)

    def _scope(self) -> Any:
        from airflow._shared.state import AssetScope

        return AssetScope(asset_id=self._asset.id)


@contextmanager
def asset_partitions(asset_name: str) -> Iterator[AssetPartitions | None]:
    """Open a transaction on an asset, for the API server; None if no active DAG names the asset.

    The row of the asset is locked, where the database can, so that two servers take turns.
    """
    from airflow.models.asset import AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        query = select(AssetModel).where(AssetModel.name == asset_name, AssetModel.active.has())
        asset = session.scalar(query.with_for_update(key_share=True, of=AssetModel))
        yield None if asset is None else AssetPartitions(session, asset)


def server_connection(conn_id: str) -> Any:
    """Return a connection in the API server, where there is no task to ask for it.

    :raises AirflowNotFoundException: if it is not defined.
    """
    from airflow.models.connection import Connection

    return Connection.get_connection_from_secrets(conn_id)
