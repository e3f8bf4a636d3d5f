# SPDX-License-Identifier: Apache-2.0
"""The one place that imports what Airflow does not promise to keep, and that raises Airflow's exceptions.

``tests/unit/test_airflow_contract.py`` holds each name against the installed Airflow, so that an
upgrade that moves one fails there and not in a running task.
"""

from __future__ import annotations

import copy
import json
import logging
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from airflow.sdk import Asset
from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, determine_kwargs, task_decorator_factory
from airflow.sdk.definitions.asset import AssetUniqueKey
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from airflow.sdk.execution_time.context import NEVER_EXPIRE, AssetStateStoreAccessor, OutletEventAccessor
from airflow.sdk.observability import stats
from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome, SharedStreamProducer

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, PermanentError

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
    "context_arguments",
    "server_connection",
    "set_gauge",
    "task_decorator_factory",
]


log = logging.getLogger(__name__)

#: Characters of a line of an error in a task's log.
LINE = 110


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
    retries them. In the task's log the one sentence that matters comes first, as a line of its own, then what led to
    it; the frames of all exceptions are logged at debug.
    """
    try:
        yield
    except (OscarProviderError, AirflowNotFoundException) as error:
        _explain(error)
        if isinstance(error, (DefinitionError, PermanentError, AirflowNotFoundException)):
            raise AirflowFailException(str(error)) from None
        # A fresh one, since a context manager gives the same exception its frames back.
        raise copy.copy(error) from None


def _explain(error: BaseException) -> None:
    """Log an error as people read it."""
    # Airflow's page cuts long lines at its edge unless its reader lets it wrap them.
    log.error("%s", textwrap.fill(str(error), LINE, break_long_words=False, break_on_hyphens=False))
    said = str(error)
    for cause in _causes(error):
        words = str(cause)
        if words and words not in said:
            log.info("Caused by %s: %s", type(cause).__name__, words)
    log.debug("Where it came from", exc_info=error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = {id(error)}
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def call_with_context(
    function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any], context: Mapping[str, Any]
) -> Any:
    """Call a decorated function with its own arguments and those names of the context that it asks for."""
    return function(*args, **determine_kwargs(function, args, {**context, **kwargs}))


def context_arguments(
    function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any], context: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments :func:`call_with_context` would call a decorated function with."""
    return list(args), dict(determine_kwargs(function, args, {**context, **kwargs}))


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


def set_gauge(name: str, value: float, tags: Mapping[str, str]) -> None:
    """Set a gauge of Airflow's metrics; nothing happens where Airflow sends none."""
    stats.gauge(name, value, tags=dict(tags))
