# SPDX-License-Identifier: Apache-2.0
"""Triggers for new objects: watchers of an asset that never end, and the triggers of the sensors that do.

A watcher is given to an asset that an :func:`~airflow_provider_oscar.ingest.object_ingest_dag` drains::

    inbox = Asset("inbox", watchers=[AssetWatcher(
        name="s3", trigger=S3NewObjectTrigger(asset_name="inbox", conn_id="oscar_s3_default", bucket="data"))])

Every object version is reported at least once, and once only unless the triggerer dies between storing an
event and noting that it did. What was reported is remembered in the state store of the asset. Watchers of
one place share one listing, whatever their filters.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Hashable
from datetime import datetime
from typing import Any, Generic, TypeVar

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_provider_oscar._airflow import AdvanceItem, AdvanceOutcome, SharedStreamProducer
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.filters import ObjectFilter
from airflow_provider_oscar.triggers.base import DeclaredArguments
from airflow_provider_oscar.watch.arguments import (
    DCacheArguments,
    ObjectsArguments,
    S3Arguments,
    WatchArguments,
)
from airflow_provider_oscar.watch.memory import Memory, memory_key
from airflow_provider_oscar.watch.once import first_found
from airflow_provider_oscar.watch.pages import Page
from airflow_provider_oscar.watch.producer import WatchProducer
from airflow_provider_oscar.watch.s3_channels import NotificationKind, Notifications
from airflow_provider_oscar.watch.view import View

__all__ = [
    "DCacheArguments",
    "DCacheNewObjectTrigger",
    "NotificationKind",
    "Notifications",
    "ObjectsArguments",
    "ObjectsTrigger",
    "S3Arguments",
    "S3NewObjectTrigger",
    "WatchArguments",
]

A = TypeVar("A", bound=WatchArguments)


class NewObjectTrigger(DeclaredArguments[A], BaseEventTrigger, Generic[A]):
    """What the watchers have in common; use one of its subclasses.

    :param filter: the conditions on an object as one value, in place of ``suffix``, ``glob``, ``regex``,
        ``min_size`` and ``ignore``; its ``prefix`` belongs to the place and must be empty.
    """

    def __init__(self, *, filter: ObjectFilter | None = None, **arguments: Any) -> None:
        if filter is not None:
            conditions = filter_arguments(filter)
            twice = sorted(conditions.keys() & arguments.keys())
            if twice:
                raise DefinitionError(f"{type(self).__name__} is given filter and {', '.join(twice)}; give one of both")
            arguments |= conditions
        if isinstance(arguments.get("notifications"), Notifications):
            arguments["notifications"] = arguments["notifications"].to_dict()
        super().__init__(**arguments)

    def shared_stream_key(self) -> Hashable:
        """Watchers with an equal key are served by one listing."""
        return (type(self).__name__, *sorted((name, repr(value)) for name, value in self.arguments.place().items()))

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return the listing that serves a group of watchers."""
        return WatchProducer(cls(**kwargs).arguments.source)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Page]) -> AsyncIterator[TriggerEvent]:
        """Yield an event per object that is new to this watcher; the payload is ``ObjectEvent.to_dict()``."""
        view = self._view()
        async for page in shared_stream:
            for found in await view.look(page):
                yield TriggerEvent(found.to_dict())
            await view.done(page)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch without sharing; Airflow falls back to it when a shared stream cannot be had."""
        producer = type(self).create_shared_stream_producer(self.serialize()[1])
        try:
            async for event in self.filter_shared_stream(_one_behind(producer)):
                yield event
        finally:
            await producer.aclose()

    def _view(self) -> View:
        arguments = self.arguments
        conditions: dict[str, Any] = {
            "filter": [arguments.suffix, arguments.glob, arguments.regex, arguments.min_size, list(arguments.ignore)]
        }
        # Only what differs from the default counts, so that a watcher keeps its memory when an argument is added.
        if arguments.algorithm != WatchArguments.algorithm:
            conditions["algorithm"] = [arguments.algorithm]
        if arguments.sentinel:
            conditions["sentinel"] = [arguments.sentinel]
        key = memory_key(kind=type(self).__name__, place=self._identity(), **conditions)
        about = f"watcher of asset {arguments.asset_name!r} on {arguments.about()}"
        return View(about, arguments.policy(), Memory(arguments.asset_name, key))

    @abstractmethod
    def _identity(self) -> list[str]:
        """Return what makes the place another place; how often it is listed does not."""


class S3NewObjectTrigger(NewObjectTrigger[S3Arguments]):
    """Reports every new object version below a prefix of a bucket.

    Keyword arguments are those of :class:`WatchArguments` and :class:`S3Arguments`: ``asset_name``, ``conn_id``,
    ``bucket``, ``prefix``, ``suffix``, ``glob``, ``regex``, ``min_size``, ``ignore``, ``start``,
    ``poll_interval``, ``lookback``, ``algorithm``, ``sentinel``, ``fan_out``, ``notifications``.
    """

    arguments_type = S3Arguments

    def _identity(self) -> list[str]:
        return [self.arguments.conn_id, self.arguments.bucket, self.arguments.prefix]


class DCacheNewObjectTrigger(NewObjectTrigger[DCacheArguments]):
    """Reports every new file of a directory of dCache, or of a plain WebDAV server.

    Keyword arguments are those of :class:`WatchArguments` and :class:`DCacheArguments`: ``asset_name``,
    ``conn_id``, ``path``, ``recursive``, ``max_directories``, ``suffix``, ``glob``, ``regex``, ``min_size``,
    ``ignore``, ``start``, ``poll_interval``, ``reconcile_interval``, ``quiet_period``, ``mode``,
    ``algorithm``, ``sentinel``.
    """

    arguments_type = DCacheArguments

    def _identity(self) -> list[str]:
        return [self.arguments.conn_id, self.arguments.path.rstrip("/") or "/", str(self.arguments.recursive)]


def filter_arguments(filter: ObjectFilter) -> dict[str, Any]:
    """Return the keyword arguments that say the same as a filter.

    :raises DefinitionError: if it has a prefix.
    """
    if filter.prefix:
        raise DefinitionError(
            f"filter has prefix {filter.prefix!r}; say where to look by prefix or path of the watcher itself"
        )
    return {
        "suffix": filter.suffix,
        "glob": filter.glob,
        "regex": filter.regex,
        "min_size": filter.min_size,
        "ignore": filter.ignore,
    }


async def _one_behind(producer: SharedStreamProducer) -> AsyncIterator[Page]:
    """Yield the pages of a producer; acknowledge each when the one after it was dealt with.

    Without a shared stream nobody tells when events are stored; by then they usually are.
    """
    waiting: list[AdvanceItem] = []
    async for page, payload in producer.open_stream():
        waiting.append(AdvanceItem(payload, AdvanceOutcome(acked=1, failed=0)))
        yield page
        if len(waiting) > 1:
            await producer.advance(waiting[:-1])
            del waiting[:-1]


class ObjectsTrigger(DeclaredArguments[ObjectsArguments], BaseTrigger):
    """Waits for new objects once and reports ``{"objects": [ObjectEvent.to_dict(), …]}``; belongs to the sensors."""

    arguments_type = ObjectsArguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event and end."""
        arguments = self.arguments
        watch = arguments.watch()
        since = datetime.fromisoformat(arguments.since) if arguments.since else None
        producer = WatchProducer(watch.source)
        try:
            found = await first_found(producer, watch.filter().accepts, since=since, sentinel=watch.sentinel)
        finally:
            await producer.aclose()
        yield TriggerEvent({"objects": [event.to_dict() for event in (found if arguments.batch else found[:1])]})
