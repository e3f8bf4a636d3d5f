# SPDX-License-Identifier: Apache-2.0
"""The one place that imports what Airflow does not promise to keep, and that raises Airflow's exceptions.

``tests/unit/test_airflow_contract.py`` holds each name against the installed Airflow, so that an
upgrade that moves one fails there and not in a running task.
"""

from __future__ import annotations

import copy
import logging
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.models.connection import Connection
from airflow.sdk import AssetAll, AssetAny
from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, determine_kwargs, task_decorator_factory
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions.decorators import TaskDecoratorCollection
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException, AirflowSkipException
from airflow.sdk.execution_time.context import NEVER_EXPIRE, AssetStateStoreAccessor
from airflow.sdk.observability import stats
from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome, SharedStreamProducer

from airflow_provider_oscar.core.errors import (
    AccessError,
    DefinitionError,
    JobSkippedError,
    OscarProviderError,
    PermanentError,
)

if TYPE_CHECKING:
    from airflow.sdk import Asset
    from airflow.serialization.definitions.assets import SerializedAssetBase

__all__ = [
    "NEVER_EXPIRE",
    "AdvanceItem",
    "AdvanceOutcome",
    "AirflowNotFoundException",
    "AssetStateStoreAccessor",
    "DecoratedOperator",
    "MappedOperator",
    "ResolveMixin",
    "SharedStreamProducer",
    "TaskDecorator",
    "TaskDecoratorCollection",
    "airflow_errors",
    "call_with_context",
    "context_arguments",
    "count",
    "measure",
    "read_condition",
    "server_connection",
    "set_gauge",
    "task_decorator_factory",
    "unfulfillable_condition",
]


log = logging.getLogger(__name__)

#: Characters of a line of an error in a task's log.
LINE = 110


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn what must not be repeated into ``AirflowFailException``, and let the rest be retried.

    A :class:`PermanentError`, a :class:`DefinitionError` or an undefined connection fails the task at once
    whatever ``retries`` says; :class:`TransientError`, :class:`LostContactError` and :class:`AccessError` pass, so that
    Airflow retries them; a :class:`JobSkippedError` skips the task. In the task's log the one sentence that matters
    comes first, as a line of its own, then what led to it; the frames of all exceptions are logged at debug.
    """
    try:
        yield
    except JobSkippedError as skipped:
        raise AirflowSkipException(str(skipped)) from None  # Airflow logs it, and it is no error
    except (OscarProviderError, AirflowNotFoundException) as error:
        _explain(error)
        final = isinstance(error, (DefinitionError, PermanentError, AirflowNotFoundException))
        if final and not isinstance(error, AccessError):
            raise AirflowFailException(str(error)) from None
        # A fresh one, since a context manager gives the same exception its frames back.
        raise copy.copy(error) from None


def _explain(error: BaseException) -> None:
    """Log an error as people read it."""
    # Airflow's page cuts long lines at its edge unless its reader lets it wrap them.
    log.error("%s", textwrap.fill(str(error), LINE, break_long_words=False, break_on_hyphens=False))
    message = str(error)
    for cause in _causes(error):
        words = str(cause)
        if words and words not in message:
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
    function: Callable[..., object],
    args: Collection[object],
    kwargs: Mapping[str, object],
    context: Mapping[str, object],
) -> object:
    """Call a decorated function with its own arguments and those names of the context that it asks for."""
    return function(*args, **determine_kwargs(function, args, {**context, **kwargs}))


def context_arguments(
    function: Callable[..., object],
    args: Collection[object],
    kwargs: Mapping[str, object],
    context: Mapping[str, object],
) -> tuple[list[object], dict[str, object]]:
    """Return the arguments :func:`call_with_context` would call a decorated function with."""
    return list(args), dict(determine_kwargs(function, args, {**context, **kwargs}))


def unfulfillable_condition(assets: Sequence[Asset]) -> SerializedAssetBase:
    """Return the condition "all of the assets, and one of none", which names the assets and never holds."""
    # Loads the models of the database, which a worker that reads a DAG file without such a schedule does not need.
    from airflow.serialization.encoders import ensure_serialized_asset

    return ensure_serialized_asset(AssetAll(*assets, AssetAny()))


def read_condition(stored: Any) -> SerializedAssetBase:
    """Return the condition of a timetable as Airflow stored it."""
    from airflow.serialization.decoders import decode_asset_like

    return decode_asset_like(stored)


def server_connection(conn_id: str) -> Any:
    """Return a connection in the API server, where there is no task to ask for it.

    :raises AirflowNotFoundException: if it is not defined.
    """
    return Connection.get_connection_from_secrets(conn_id)


def set_gauge(name: str, value: float, tags: Mapping[str, str]) -> None:
    """Set a gauge of Airflow's metrics; nothing happens where Airflow sends none."""
    stats.gauge(name, value, tags=dict(tags))


def count(name: str, tags: Mapping[str, str]) -> None:
    """Count one of Airflow's metrics up by one."""
    stats.incr(name, tags=dict(tags))


def measure(name: str, duration: timedelta, tags: Mapping[str, str]) -> None:
    """Send a duration as one of Airflow's metrics."""
    stats.timing(name, duration, tags=dict(tags))
