# SPDX-License-Identifier: Apache-2.0
"""The one place that imports what Airflow does not promise to keep, and that raises Airflow's exceptions.

``tests/unit/test_airflow_contract.py`` holds each name against the installed Airflow, so that an
upgrade that moves one fails there and not in a running task.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow.sdk import Asset
from airflow.sdk.bases.decorator import determine_kwargs
from airflow.sdk.definitions.asset import AssetUniqueKey
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from airflow.sdk.execution_time.context import NEVER_EXPIRE, AssetStateStoreAccessor, OutletEventAccessor

from airflow_provider_oscar.model.errors import DefinitionError, PermanentError

__all__ = ["NEVER_EXPIRE", "AssetStateStoreAccessor", "add_partition_event", "airflow_errors", "call_with_context"]


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
