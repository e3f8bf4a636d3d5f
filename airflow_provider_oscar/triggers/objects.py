# SPDX-License-Identifier: Apache-2.0
"""Triggers for new objects: watchers of an asset that never end, and the triggers of the sensors that do.

A watcher is given to an asset; :class:`~airflow_provider_oscar.ingest.NewObjects` does so::

    incoming = Asset("incoming", watchers=[AssetWatcher(
        name="s3", trigger=S3NewObjectTrigger(asset_name="incoming", conn_id="oscar_s3_default", bucket="data"))])

Every object version is reported at least once, and once only unless the triggerer dies between storing an
event and noting that it did. What was reported is remembered in the state store of the asset. Watchers of
one place share one listing, whatever their filters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_oscar._airflow import AdvanceItem, AdvanceOutcome
from airflow_provider_oscar.core.checks import seconds
from airflow_provider_oscar.core.filters import FilterArgument, ObjectFilter
from airflow_provider_oscar.core.fsspec_urls import WHOLE_FILES
from airflow_provider_oscar.watch.arguments.base import WatchArguments
from airflow_provider_oscar.watch.arguments.dcache import DCacheArguments
from airflow_provider_oscar.watch.arguments.filesystem import FileSystemArguments
from airflow_provider_oscar.watch.arguments.s3 import S3Arguments
from airflow_provider_oscar.watch.metrics import report
from airflow_provider_oscar.watch.notifications.choice import NotificationKind, Notifications
from airflow_provider_oscar.watch.producer import WatchProducer
from airflow_provider_oscar.watch.source import Page
from airflow_provider_oscar.watch.state_store import WatchStateStore
from airflow_provider_oscar.watch.watcher import Watcher

__all__ = [
    "DCacheNewObjectTrigger",
    "FileSystemNewObjectTrigger",
    "NewObjectTrigger",
    "NotificationKind",
    "Notifications",
    "S3NewObjectTrigger",
]

A = TypeVar("A", bound=WatchArguments)
#: Seconds a file must look the same where unfinished ones are shown.
_QUIET_PERIOD = 10.0
Algorithm = Literal["timestamp", "snapshot", "cursor"]
#: ``now``, ``all``, or a time, which may be ISO 8601 text.
StartArgument = Literal["now", "all"] | datetime | str


class NewObjectTrigger(BaseEventTrigger, Generic[A]):
    """What the watchers have in common; use one of its subclasses.

    :param arguments: checked, and without any secret: a trigger carries connection ids.
    """

    def __init__(self, arguments: A) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.arguments = arguments

    def serialize(self) -> tuple[str, dict[str, object]]:
        """Return the class path and every argument, as Airflow stores them."""
        kind = type(self)
        return f"{kind.__module__}.{kind.__qualname__}", self.arguments.to_dict()

    def shared_stream_key(self) -> Hashable:
        """Watchers with an equal key are served by one listing."""
        return (
            type(self).__name__,
            *sorted((name, repr(value)) for name, value in self.arguments.listing_arguments().items()),
        )

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> WatchProducer:
        """Return the listing that serves a group of watchers."""
        return WatchProducer(cls(**kwargs).arguments.source)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Page]) -> AsyncIterator[TriggerEvent]:
        """Yield an event per object that is new to this watcher; the payload is ``ObjectEvent.to_dict()``."""
        watcher = self.watcher()
        async for page in shared_stream:
            for found in await watcher.process(page):
                yield TriggerEvent(found.to_dict())
            await watcher.commit(page)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch without sharing; Airflow falls back to it when a shared stream cannot be had."""
        producer = type(self).create_shared_stream_producer(self.serialize()[1])
        try:
            async for event in self.filter_shared_stream(_one_behind(producer)):
                yield event
        finally:
            await producer.aclose()

    def watcher(self) -> Watcher:
        """Return what decides which objects of the listing are new."""
        arguments = self.arguments
        display_name = f"watcher of asset {arguments.asset_name!r} on {arguments.display_name()}"
        store = WatchStateStore(arguments.asset_name, arguments.identity(), asks=True)
        return Watcher(display_name, arguments.policy(), store, report=report)


class S3NewObjectTrigger(NewObjectTrigger[S3Arguments]):
    """Reports every new object version below a prefix of a bucket.

    :param asset_name: name of the asset the watcher belongs to; its state store holds the watcher's memory.
    :param conn_id: connection of type ``oscar_s3`` or ``aws``.
    :param bucket: bucket to list.
    :param prefix: start of the key; it is the store that selects by it.
    :param filter: conditions on an object as one value; instead of the six that follow.
    :param suffix: end of the key.
    :param glob: shell pattern on the last part of the key, or on all of it if the pattern has a ``/``.
    :param regex: regular expression searched for in the key.
    :param min_size: bytes an object must have.
    :param ignore: shell patterns of names that are never reported; unfinished uploads by default.
    :param empty: ``"run"`` takes objects of 0 bytes as others, ``"skip"`` leaves them out and counts them; a later
        version with content is reported.
    :param start: what a watcher without a memory does: ``"now"`` reports what comes after its first listing, ``"all"``
        also what is there already, and a time (a datetime, or ISO 8601) what was modified since then.
    :param poll_interval: seconds (or a timedelta) between listings.
    :param lookback: seconds (or a timedelta) an object may appear behind the store's clock: the longest multipart
        upload on AWS, which dates an object by the start of its upload.
    :param algorithm: what is remembered: ``"timestamp"`` (all versions, or when they are many the young ones),
        ``"snapshot"`` (all versions, however many), or ``"cursor"`` (the last keys, for prefixes where each new key
        sorts after almost all others; listings then begin near the end).
    :param sentinel: a name such as ``_SUCCESS``, which says that the files of its directory are complete, or an
        ending such as ``.done``, which says so of the file without it; they are reported when it is there.
    :param fan_out: requests at a time; above 1, the parts of the first level below the prefix are listed at the same
        time, which helps where the store answers slowly.
    :param notifications: how the store tells of new objects, so that they are seen at once and listings may be rare:
        :class:`Notifications`, or a dictionary such as ``{"kind": "sqs", "queue_url": …}`` or
        ``{"kind": "minio-listen"}`` or ``{"kind": "kafka", "topic": …}``.
    :raises DefinitionError: in the DAG file, for an argument that cannot be used.
    """

    def __init__(
        self,
        *,
        asset_name: str,
        bucket: str,
        prefix: str = "",
        conn_id: str = "oscar_s3_default",
        filter: FilterArgument = None,
        suffix: str = "",
        glob: str | None = None,
        regex: str | None = None,
        min_size: int = 0,
        ignore: Sequence[str] | None = None,
        empty: str = "run",
        start: StartArgument = "now",
        poll_interval: timedelta | float = 10.0,
        lookback: timedelta | float = 3600.0,
        algorithm: Algorithm = "timestamp",
        sentinel: str = "",
        fan_out: int = 1,
        notifications: Notifications | Mapping[str, Any] | None = None,
    ) -> None:
        conditions = ObjectFilter.from_argument(
            filter, suffix=suffix, glob=glob, regex=regex, min_size=min_size, ignore=ignore, empty=empty
        )
        arguments = S3Arguments(
            asset_name=asset_name,
            conn_id=conn_id,
            bucket=bucket,
            prefix=prefix,
            filter=conditions,
            start=start.isoformat() if isinstance(start, datetime) else start,
            poll_interval=seconds(poll_interval),
            lookback=seconds(lookback),
            algorithm=algorithm,
            sentinel=sentinel,
            fan_out=fan_out,
            notifications=notifications,
        )
        super().__init__(arguments)


class DCacheNewObjectTrigger(NewObjectTrigger[DCacheArguments]):
    """Reports every new file of a directory of dCache, or of a plain WebDAV server.

    :param asset_name: name of the asset the watcher belongs to; its state store holds the watcher's memory.
    :param conn_id: connection of type ``dcache``.
    :param path: absolute directory to watch.
    :param recursive: whether the directories below it are watched as well.
    :param max_directories: more directories than that are an error, logged once and tried again.
    :param filter: conditions on a file as one value; instead of the six that follow.
    :param suffix: end of the path.
    :param glob: shell pattern on the last part of the path, or on all of it if the pattern has a ``/``.
    :param regex: regular expression searched for in the path.
    :param min_size: bytes a file must have.
    :param ignore: shell patterns of names that are never reported; unfinished uploads by default.
    :param empty: ``"run"`` takes objects of 0 bytes as others, ``"skip"`` leaves them out and counts them; a later
        version with content is reported.
    :param start: what a watcher without a memory does: ``"now"`` reports what comes after its first listing, ``"all"``
        also what is there already, and a time (a datetime, or ISO 8601) what was modified since then.
    :param poll_interval: seconds (or a timedelta) between listings without notifications.
    :param reconcile_interval: seconds (or a timedelta) between listings while notifications are received.
    :param quiet_period: seconds (or a timedelta) a file must look the same before it is reported; for WebDAV servers
        that show unfinished uploads. dCache does not show a size before an upload is complete.
    :param notifications: ``"sse"`` receives them from dCache's REST frontend, ``"none"`` only lists, and ``"auto"``
        decides by whether the connection names a frontend. Or those of dCache's Kafka topic:
        ``{"kind": "kafka", "topic": "billing", "conn_id": "kafka_default"}``.
    :param algorithm: what is remembered: ``"timestamp"`` (all versions, or when they are many the young ones) or
        ``"snapshot"`` (all versions, however many).
    :param sentinel: a name such as ``_SUCCESS``, which says that the files of its directory are complete, or an
        ending such as ``.done``, which says so of the file without it; they are reported when it is there.
    :raises DefinitionError: in the DAG file, for an argument that cannot be used.
    """

    def __init__(
        self,
        *,
        asset_name: str,
        path: str,
        recursive: bool = False,
        max_directories: int = 1000,
        conn_id: str = "dcache_default",
        filter: FilterArgument = None,
        suffix: str = "",
        glob: str | None = None,
        regex: str | None = None,
        min_size: int = 0,
        ignore: Sequence[str] | None = None,
        empty: str = "run",
        start: StartArgument = "now",
        poll_interval: timedelta | float = 10.0,
        reconcile_interval: timedelta | float = 300.0,
        quiet_period: timedelta | float = 0.0,
        notifications: Literal["auto", "sse", "none"] | Notifications | Mapping[str, Any] = "auto",
        algorithm: Literal["timestamp", "snapshot"] = "timestamp",
        sentinel: str = "",
    ) -> None:
        conditions = ObjectFilter.from_argument(
            filter, suffix=suffix, glob=glob, regex=regex, min_size=min_size, ignore=ignore, empty=empty
        )
        arguments = DCacheArguments(
            asset_name=asset_name,
            conn_id=conn_id,
            path=path,
            recursive=recursive,
            max_directories=max_directories,
            filter=conditions,
            start=start.isoformat() if isinstance(start, datetime) else start,
            poll_interval=seconds(poll_interval),
            reconcile_interval=seconds(reconcile_interval),
            quiet_period=seconds(quiet_period),
            notifications=notifications,
            algorithm=algorithm,
            sentinel=sentinel,
        )
        super().__init__(arguments)


class FileSystemNewObjectTrigger(NewObjectTrigger[FileSystemArguments]):
    """Reports every new file of a directory of any file system that fsspec knows, by listing it.

    Tasks read these files with ``ObjectStoragePath``. Jobs on OSCAR and SLURM read them where the file system signs
    URLs (Google, Azure), and from public web servers.

    :param asset_name: name of the asset the watcher belongs to; its state store holds the watcher's memory.
    :param url: of the directory, such as ``gs://bucket/prefix``, ``abfs://container/prefix``, ``sftp:///data/in`` or
        ``file:///data/in``, which must be there on the machines of the triggerer.
    :param conn_id: Airflow connection, as ``ObjectStoragePath`` takes it; for schemes without an Airflow provider,
        host, port, login, password and extra go to fsspec. Empty for none.
    :param recursive: whether the directories below it are watched as well; links to directories are not followed.
    :param max_directories: more directories than that are an error, logged once and tried again.
    :param filter: conditions on a file as one value; instead of the six that follow.
    :param suffix: end of the path.
    :param glob: shell pattern on the last part of the path, or on all of it if the pattern has a ``/``.
    :param regex: regular expression searched for in the path.
    :param min_size: bytes a file must have.
    :param ignore: shell patterns of names that are never reported; unfinished uploads by default.
    :param empty: ``"run"`` takes objects of 0 bytes as others, ``"skip"`` leaves them out and counts them; a later
        version with content is reported.
    :param start: what a watcher without a memory does: ``"now"`` reports what comes after its first listing, ``"all"``
        also what is there already, and a time (a datetime, or ISO 8601) what was modified since then.
    :param poll_interval: seconds (or a timedelta) between listings.
    :param quiet_period: seconds (or a timedelta) a file must look the same before it is reported; by default 0 for
        stores that show an object when its upload is over (``gs``, ``abfs``…) and 10 for all others.
    :param algorithm: what is remembered; ``"snapshot"``, all versions, is the only one, since these file systems do not
        tell their time.
    :param sentinel: a name such as ``_SUCCESS``, which says that the files of its directory are complete, or an
        ending such as ``.done``, which says so of the file without it; they are reported when it is there.
    :param notifications: for datasets of Rucio, where its messages are, so that the dataset is listed at once: a
        :class:`Notifications` or a dictionary such as ``{"kind": "rucio", "topic": "/topic/rucio.events"}``.
    :raises DefinitionError: in the DAG file, for an argument that cannot be used.
    """

    def __init__(
        self,
        *,
        asset_name: str,
        url: str,
        conn_id: str = "",
        recursive: bool = False,
        max_directories: int = 1000,
        filter: FilterArgument = None,
        suffix: str = "",
        glob: str | None = None,
        regex: str | None = None,
        min_size: int = 0,
        ignore: Sequence[str] | None = None,
        empty: str = "run",
        start: StartArgument = "now",
        poll_interval: timedelta | float = 10.0,
        quiet_period: timedelta | float | None = None,
        algorithm: Literal["snapshot"] = "snapshot",
        sentinel: str = "",
        notifications: Notifications | Mapping[str, Any] | None = None,
    ) -> None:
        conditions = ObjectFilter.from_argument(
            filter, suffix=suffix, glob=glob, regex=regex, min_size=min_size, ignore=ignore, empty=empty
        )
        if quiet_period is None:
            quiet_period = 0.0 if url.partition("://")[0] in WHOLE_FILES else _QUIET_PERIOD
        arguments = FileSystemArguments(
            asset_name=asset_name,
            conn_id=conn_id,
            url=url,
            recursive=recursive,
            max_directories=max_directories,
            filter=conditions,
            start=start.isoformat() if isinstance(start, datetime) else start,
            poll_interval=seconds(poll_interval),
            quiet_period=seconds(quiet_period),
            algorithm=algorithm,
            sentinel=sentinel,
            notifications=notifications,
        )
        super().__init__(arguments)


async def _one_behind(producer: WatchProducer) -> AsyncIterator[Page]:
    """Yield the pages of a producer; acknowledge each when the one after it was dealt with.

    Without a shared stream nobody tells when events are stored; by then they usually are.
    """
    waiting: list[AdvanceItem] = []
    async for page, payload in producer.open_stream():
        waiting.append(AdvanceItem(payload, AdvanceOutcome(acked=1, failed=0)))
        yield page
        if page.unfinished:
            producer.request_page()
        if len(waiting) > 1:
            await producer.advance(waiting[:-1])
            del waiting[:-1]
