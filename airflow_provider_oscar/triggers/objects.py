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

import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome, SharedStreamProducer

from airflow_provider_oscar.model.errors import DefinitionError, quoted
from airflow_provider_oscar.model.filters import DEFAULT_IGNORED, ObjectFilter
from airflow_provider_oscar.model.watermark import Start, WatchOptions
from airflow_provider_oscar.triggers._watch.dcache import DCacheSource, Place
from airflow_provider_oscar.triggers._watch.inotify import InotifySource
from airflow_provider_oscar.triggers._watch.memory import Memory, memory_key
from airflow_provider_oscar.triggers._watch.once import first_found
from airflow_provider_oscar.triggers._watch.pages import Page, Source
from airflow_provider_oscar.triggers._watch.producer import WatchProducer
from airflow_provider_oscar.triggers._watch.s3 import S3Source
from airflow_provider_oscar.triggers._watch.view import Policy, View
from airflow_provider_oscar.triggers.base import DeclaredArguments

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WatchArguments:
    """What all watchers are told.

    :param asset_name: name of the asset the watcher belongs to; its state store holds the watcher's memory.
    :param conn_id: connection of the store.
    :param suffix: end of the key.
    :param glob: shell pattern on the last part of the key, or on all of it if the pattern has a ``/``.
    :param regex: regular expression searched for in the key.
    :param min_size: bytes an object must have.
    :param ignore: shell patterns of names that are never reported; unfinished uploads by default.
    :param start: what a watcher without a state does: ``"now"`` reports what comes after its first listing,
        ``"all"`` also what is there already.
    :param poll_interval: seconds between listings.
    """

    asset_name: str
    conn_id: str
    suffix: str = ""
    glob: str | None = None
    regex: str | None = None
    min_size: int = 0
    ignore: tuple[str, ...] = DEFAULT_IGNORED
    start: str = Start.NOW.value
    poll_interval: float = 10.0

    def __post_init__(self) -> None:
        for name in ("asset_name", "conn_id"):
            if not getattr(self, name):
                raise DefinitionError(f"{name} of a watcher is empty; give the name of its asset and of a connection")
        if self.start not in tuple(Start):
            raise DefinitionError(f"start of a watcher is {quoted(self.start)}; expected 'now' or 'all'")
        if self.poll_interval <= 0:
            raise DefinitionError(f"poll_interval of a watcher is {self.poll_interval}; expected seconds above 0")
        self.filter()

    def filter(self) -> ObjectFilter:
        """Return the conditions on an object.

        :raises DefinitionError: if one of them is not usable.
        """
        return ObjectFilter(
            suffix=self.suffix,
            glob=self.glob,
            regex=self.regex,
            min_size=self.min_size,
            ignore=self.ignore,
        )

    def place(self) -> dict[str, Any]:
        """Return the arguments that decide what is listed and how; watchers that agree on them share one listing."""
        own = {field.name for field in fields(WatchArguments)} - {"conn_id", "poll_interval"}
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if name not in own and name not in self.personal}

    personal = frozenset[str]()
    """Arguments of a subclass that each watcher applies for itself."""

    def source(self) -> Source:
        """Return what lists the place."""
        raise NotImplementedError

    def about(self) -> str:
        """Return words that name the place."""
        raise NotImplementedError

    def policy(self) -> Policy:
        """Return what the watcher wants to see."""
        return Policy(accepts=self.filter().accepts, start=Start(self.start), options=WatchOptions())


@dataclass(frozen=True, kw_only=True)
class S3Arguments(WatchArguments):
    """What an S3 watcher is told.

    :param bucket: bucket to list.
    :param prefix: start of the key; it is the store that selects by it.
    :param lookback: seconds an object may appear behind the store's clock: the longest multipart upload on AWS,
        which dates an object by the start of its upload.
    """

    bucket: str
    prefix: str = ""
    lookback: float = 3600.0
    personal = frozenset({"lookback"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bucket:
            raise DefinitionError("bucket of an S3 watcher is empty; name the bucket to list")

    def source(self) -> Source:
        """Return the listing of the prefix."""
        return S3Source(conn_id=self.conn_id, bucket=self.bucket, prefix=self.prefix, interval=self.poll_interval)

    def about(self) -> str:
        """Return bucket, prefix and connection."""
        return f"s3 bucket {self.bucket!r} prefix {self.prefix!r} (connection {self.conn_id!r})"

    def policy(self) -> Policy:
        """Return what the watcher wants to see."""
        options = WatchOptions(lookback=timedelta(seconds=self.lookback))
        return Policy(accepts=self.filter().accepts, start=Start(self.start), options=options)


@dataclass(frozen=True, kw_only=True)
class DCacheArguments(WatchArguments):
    """What a dCache watcher is told.

    :param path: absolute directory to watch.
    :param recursive: whether the directories below it are watched as well.
    :param max_directories: more directories than that are an error, told once and tried again.
    :param reconcile_interval: seconds between listings while notifications are received.
    :param quiet_period: seconds a file must look the same before it is reported; for WebDAV servers that show
        unfinished uploads, see ``mode``. dCache does not show a size before an upload is complete.
    :param mode: ``"sse"`` receives notifications from dCache's REST frontend, ``"webdav"`` only lists, and
        ``"auto"`` decides by whether the connection names a frontend.
    """

    path: str
    recursive: bool = False
    max_directories: int = 1000
    reconcile_interval: float = 300.0
    quiet_period: float = 0.0
    mode: str = "auto"
    personal = frozenset({"quiet_period"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.startswith("/") or any(part in (".", "..") for part in self.path.split("/")):
            raise DefinitionError(f"path of a dCache watcher is {quoted(self.path)}; expected an absolute directory")
        if self.mode not in _MODES:
            raise DefinitionError(
                f"mode of a dCache watcher is {quoted(self.mode)}; expected one of {', '.join(_MODES)}"
            )
        if self.reconcile_interval <= 0 or self.quiet_period < 0 or self.max_directories < 1:
            raise DefinitionError(
                "a dCache watcher needs reconcile_interval > 0, quiet_period >= 0 and max_directories >= 1; got "
                f"{self.reconcile_interval}, {self.quiet_period} and {self.max_directories}"
            )

    def source(self) -> Source:
        """Return the listing of the directory."""
        place = Place(
            conn_id=self.conn_id,
            path=self.path,
            recursive=self.recursive,
            max_directories=self.max_directories,
        )
        if self.mode == "webdav":
            return DCacheSource(place, interval=self.poll_interval)
        return InotifySource(
            place,
            poll_interval=self.poll_interval,
            reconcile_interval=self.reconcile_interval,
            required=self.mode == "sse",
        )

    def about(self) -> str:
        """Return directory and connection."""
        return f"dCache directory {self.path!r} (connection {self.conn_id!r})"

    def policy(self) -> Policy:
        """Return what the watcher wants to see.

        The memory is exact for 200 000 files, since a file moved in may be of any age.
        """
        return Policy(
            accepts=self.filter().accepts,
            start=Start(self.start),
            options=WatchOptions(lookback=timedelta(days=1), remember=200_000),
            quiet_period=timedelta(seconds=self.quiet_period),
        )


_MODES = ("auto", "sse", "webdav")

A = TypeVar("A", bound=WatchArguments)


class NewObjectTrigger(DeclaredArguments[A], BaseEventTrigger, Generic[A]):
    """What the watchers have in common; use one of its subclasses."""

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
        conditions = {
            "filter": [arguments.suffix, arguments.glob, arguments.regex, arguments.min_size, list(arguments.ignore)]
        }
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
    ``poll_interval``, ``lookback``.
    """

    arguments_type = S3Arguments

    def _identity(self) -> list[str]:
        return [self.arguments.conn_id, self.arguments.bucket, self.arguments.prefix]


class DCacheNewObjectTrigger(NewObjectTrigger[DCacheArguments]):
    """Reports every new file of a directory of dCache, or of a plain WebDAV server.

    Keyword arguments are those of :class:`WatchArguments` and :class:`DCacheArguments`: ``asset_name``,
    ``conn_id``, ``path``, ``recursive``, ``max_directories``, ``suffix``, ``glob``, ``regex``, ``min_size``,
    ``ignore``, ``start``, ``poll_interval``, ``reconcile_interval``, ``quiet_period``, ``mode``.
    """

    arguments_type = DCacheArguments

    def _identity(self) -> list[str]:
        return [self.arguments.conn_id, self.arguments.path.rstrip("/") or "/", str(self.arguments.recursive)]


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


@dataclass(frozen=True, kw_only=True)
class ObjectsArguments:
    """What the trigger of a sensor is told.

    :param kind: ``s3`` or ``dcache``; decides which of the other arguments count.
    :param since: ISO 8601 time of the store from which on objects are new; None to take all.
    :param batch: return all new objects of a listing, not the oldest alone.
    """

    kind: str
    conn_id: str
    bucket: str = ""
    prefix: str = ""
    path: str = ""
    recursive: bool = False
    suffix: str = ""
    glob: str | None = None
    regex: str | None = None
    min_size: int = 0
    ignore: tuple[str, ...] = DEFAULT_IGNORED
    poll_interval: float = 10.0
    since: str | None = None
    batch: bool = False

    def __post_init__(self) -> None:
        self.watch()

    def watch(self) -> WatchArguments:
        """Return the arguments of the watcher that looks at the same place."""
        same: dict[str, Any] = {
            "asset_name": "of a sensor",
            "conn_id": self.conn_id,
            "suffix": self.suffix,
            "glob": self.glob,
            "regex": self.regex,
            "min_size": self.min_size,
            "ignore": self.ignore,
            "poll_interval": self.poll_interval,
        }
        if self.kind == "s3":
            return S3Arguments(bucket=self.bucket, prefix=self.prefix, **same)
        return DCacheArguments(path=self.path, recursive=self.recursive, **same)


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
            found = await first_found(producer, watch.filter().accepts, since=since)
        finally:
            await producer.aclose()
        yield TriggerEvent({"objects": [event.to_dict() for event in (found if arguments.batch else found[:1])]})
