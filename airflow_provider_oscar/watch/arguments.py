# SPDX-License-Identifier: Apache-2.0
"""The arguments of watchers and of the sensors' triggers as values, and the sources that follow from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import partial

from airflow_provider_oscar.core.checks import check_fields
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.filters import ObjectFilter, Sentinels
from airflow_provider_oscar.core.fsspec_urls import FsspecUrl
from airflow_provider_oscar.core.notifications import Notification
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.core.times import read_iso
from airflow_provider_oscar.watch.notifications.choice import NotificationKind, Notifications
from airflow_provider_oscar.watch.notifications.dcache_sse import DCacheEventChannel
from airflow_provider_oscar.watch.notifications.kafka import KafkaChannel
from airflow_provider_oscar.watch.notifications.listener import Channel
from airflow_provider_oscar.watch.notifications.minio import MinioChannel
from airflow_provider_oscar.watch.notifications.sqs import SqsChannel, new_keys
from airflow_provider_oscar.watch.source import Source
from airflow_provider_oscar.watch.sources.dcache import DCACHE_CONNECTIONS, DCacheSource
from airflow_provider_oscar.watch.sources.filesystem import FileSystemSource
from airflow_provider_oscar.watch.sources.notified import NotifiedSource
from airflow_provider_oscar.watch.sources.s3 import S3_CONNECTIONS, S3Source
from airflow_provider_oscar.watch.state_store import StateIdentity
from airflow_provider_oscar.watch.strategies import STRATEGIES, Start, WatchOptions
from airflow_provider_oscar.watch.watcher import Policy

#: Least seconds between listings of dCache that are called for; its notifications do not tell sizes.
_DCACHE_SPACING = 1.0


@dataclass(frozen=True, kw_only=True)
class WatchArguments:
    """What all watchers have; the triggers of :mod:`~airflow_provider_oscar.triggers.objects` say what each means."""

    asset_name: str
    conn_id: str
    filter: ObjectFilter = ObjectFilter()
    start: str = Start.NOW.value
    poll_interval: float = 10.0
    algorithm: str = "timestamp"
    sentinel: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "a watcher")
        for name in ("asset_name", "conn_id"):
            if not getattr(self, name) and name not in self.optional:
                raise DefinitionError(f"{name} of a watcher is empty; give the name of its asset and of a connection")
        if self.filter.prefix:
            raise DefinitionError(
                f"filter has prefix {self.filter.prefix!r}; say where to look by prefix or path of the watcher itself"
            )
        _ = self.begins
        if self.algorithm not in self.algorithms:
            raise DefinitionError(
                f"algorithm of a watcher is {quoted(self.algorithm)}; expected one of {', '.join(self.algorithms)}"
            )
        if self.sentinel:
            Sentinels(self.sentinel)
        if not self.poll_interval > 0:
            raise DefinitionError(f"poll_interval of a watcher is {self.poll_interval}; expected seconds above 0")

    @property
    def begins(self) -> Start | datetime:
        """What the watcher does when it knows nothing of the place."""
        if self.start in tuple(Start):
            return Start(self.start)
        try:
            return read_iso(self.start)
        except ValueError as error:
            raise DefinitionError(
                f"start of a watcher is {quoted(self.start)}; expected 'now' or 'all', or a time such as "
                "'2026-11-28T06:00:00Z'"
            ) from error

    def to_dict(self) -> dict[str, object]:
        """Return what the database holds: every argument, as JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "filter": self.filter.to_dict()}

    def place(self) -> dict[str, object]:
        """Return the arguments that decide what is listed and how; watchers that agree on them share one listing."""
        own = {field.name for field in fields(WatchArguments)} - {"conn_id", "poll_interval"}
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if name not in own and name not in self.personal}

    optional = frozenset[str]()
    """Arguments that may be empty."""
    personal = frozenset[str]()
    """Arguments of a subclass that each watcher applies for itself."""
    algorithms = tuple(name for name, kind in STRATEGIES.items() if not kind.needs_key_order)
    """Names of the algorithms that fit the kind of store."""

    def identity(self) -> StateIdentity:
        """Return whose state the watcher's is: it belongs to the place, and to what is chosen of it."""
        choice = {"filter": self.filter.to_dict(), "algorithm": self.algorithm, "sentinel": self.sentinel}
        return StateIdentity(place=self.state_place(), choice=json.dumps(choice, sort_keys=True))

    def identity_digest(self) -> str:
        """Return what tells this watcher from all others, short."""
        return hashlib.sha256(json.dumps([self.asset_name, *self.state_place()]).encode()).hexdigest()[:12]

    def state_place(self) -> tuple[str, ...]:
        """Return what makes the place another place; how it is listed does not."""
        raise NotImplementedError

    def source(self) -> Source:
        """Return what lists the place."""
        raise NotImplementedError

    def about(self) -> str:
        """Return words that name the place."""
        raise NotImplementedError

    def policy(self) -> Policy:
        """Return what the watcher wants to see."""
        return self._policy(WatchOptions())

    def _policy(self, options: WatchOptions, *, quiet_period: timedelta = timedelta(0)) -> Policy:
        return Policy(
            accepts=self.filter.accepts,
            start=self.begins,
            options=options,
            quiet_period=quiet_period,
            strategy=self.algorithm,
            sentinel=self.sentinel,
        )


@dataclass(frozen=True, kw_only=True)
class S3Arguments(WatchArguments):
    """What an S3 watcher has.

    :param bucket: bucket to list.
    :param prefix: start of the key; it is the store that selects by it.
    :param lookback: seconds an object may appear behind the store's clock: the longest multipart upload on AWS,
        which dates an object by the start of its upload.
    :param fan_out: requests at a time; above 1, the parts of the first level below the prefix are listed at the same
        time, which helps where the store answers slowly.
    :param notifications: how the store tells of new objects, so that they are seen at once and listings may be rare:
        a :class:`~airflow_provider_oscar.triggers.objects.Notifications` or a dictionary such as
        ``{"kind": "sqs", "queue_url": …}`` or ``{"kind": "minio-listen"}``.
    """

    bucket: str
    prefix: str = ""
    lookback: float = 3600.0
    fan_out: int = 1
    notifications: Mapping[str, object] | None = None
    personal = frozenset({"lookback"})
    algorithms = tuple(STRATEGIES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bucket:
            raise DefinitionError("bucket of an S3 watcher is empty; name the bucket to list")
        if not 1 <= self.fan_out <= _MOST_WORKERS:
            raise DefinitionError(f"fan_out of an S3 watcher is {self.fan_out}; expected 1 to {_MOST_WORKERS}")
        if self.fan_out > 1 and self.algorithm == "cursor":
            raise DefinitionError("algorithm='cursor' needs listings in key order; leave fan_out at 1")
        if self.notifications is not None:
            normal = Notifications.from_argument(self.notifications).to_dict()
            object.__setattr__(self, "notifications", normal)

    def to_dict(self) -> dict[str, object]:
        """Return what the database holds."""
        found = super().to_dict()
        return {**found, "notifications": None if self.notifications is None else dict(self.notifications)}

    def place(self) -> dict[str, object]:
        """Return what decides how the prefix is listed; cursors need a listing of their own."""
        return {**super().place(), "cursor": self.algorithm == "cursor"}

    def source(self) -> Source:
        """Return the listing of the prefix."""
        source = S3Source(
            conn_id=self.conn_id,
            bucket=self.bucket,
            prefix=self.prefix,
            interval=self.poll_interval,
            workers=self.fan_out,
        )
        if self.notifications is None:
            return source
        chosen = Notifications.from_argument(self.notifications)

        async def open_channel() -> Channel:
            return self._channel(chosen)

        return NotifiedSource(
            source,
            open_channel,
            source.look,
            reconcile_interval=chosen.reconcile_interval,
            spacing=self.poll_interval,
        )

    def _channel(self, chosen: Notifications) -> Channel:
        if chosen.kind == NotificationKind.SQS:
            return SqsChannel(
                chosen.queue_url, conn_id=chosen.conn_id or self.conn_id, bucket=self.bucket, prefix=self.prefix
            )
        if chosen.kind == NotificationKind.KAFKA:
            keys = partial(new_keys, bucket=self.bucket, prefix=self.prefix)
            return kafka_channel(chosen, self.identity_digest(), keys)
        return MinioChannel(connections=S3_CONNECTIONS, conn_id=self.conn_id, bucket=self.bucket, prefix=self.prefix)

    def state_place(self) -> tuple[str, ...]:
        """Return connection, bucket and prefix."""
        return ("s3", self.conn_id, self.bucket, self.prefix)

    def about(self) -> str:
        """Return bucket, prefix and connection."""
        return f"s3 bucket {self.bucket!r} prefix {self.prefix!r} (connection {self.conn_id!r})"

    def policy(self) -> Policy:
        """Return what the watcher wants to see."""
        return self._policy(WatchOptions(lookback=timedelta(seconds=self.lookback)))


@dataclass(frozen=True, kw_only=True)
class DCacheArguments(WatchArguments):
    """What a dCache watcher has.

    :param path: absolute directory to watch.
    :param recursive: whether the directories below it are watched as well.
    :param max_directories: more directories than that are an error, told once and tried again.
    :param reconcile_interval: seconds between listings while notifications are received.
    :param quiet_period: seconds a file must look the same before it is reported; for WebDAV servers that show
        unfinished uploads. dCache does not show a size before an upload is complete.
    :param notifications: ``"sse"`` receives them from dCache's REST frontend, ``"none"`` only lists, and ``"auto"``
        decides by whether the connection names a frontend.
    """

    path: str
    recursive: bool = False
    max_directories: int = 1000
    reconcile_interval: float = 300.0
    quiet_period: float = 0.0
    notifications: str | Mapping[str, object] = "auto"
    personal = frozenset({"quiet_period"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.startswith("/") or any(part in (".", "..") for part in self.path.split("/")):
            raise DefinitionError(f"path of a dCache watcher is {quoted(self.path)}; expected an absolute directory")
        if not isinstance(self.notifications, str):
            chosen = Notifications.from_argument(self.notifications)
            if chosen.kind != NotificationKind.KAFKA:
                raise DefinitionError(
                    f"notifications of a dCache watcher are of kind {quoted(chosen.kind)}; expected 'kafka', or one of "
                    f"{', '.join(DCACHE_NOTIFICATIONS)}"
                )
            object.__setattr__(self, "notifications", chosen.to_dict())
        elif self.notifications not in DCACHE_NOTIFICATIONS:
            raise DefinitionError(
                f"notifications of a dCache watcher is {quoted(self.notifications)}; expected one of "
                f"{', '.join(DCACHE_NOTIFICATIONS)}"
            )
        if self.reconcile_interval <= 0 or self.quiet_period < 0 or self.max_directories < 1:
            raise DefinitionError(
                "a dCache watcher needs reconcile_interval > 0, quiet_period >= 0 and max_directories >= 1; got "
                f"{self.reconcile_interval}, {self.quiet_period} and {self.max_directories}"
            )

    def source(self) -> Source:
        """Return the listing of the directory."""
        source = DCacheSource(
            conn_id=self.conn_id,
            path=self.path,
            recursive=self.recursive,
            max_directories=self.max_directories,
            interval=self.poll_interval,
        )
        if self.notifications == "none":
            return source
        digest = hashlib.sha256(json.dumps([*self.state_place(), self.max_directories]).encode()).hexdigest()[:12]

        async def open_channel() -> Channel | None:
            if not isinstance(self.notifications, str):
                chosen = Notifications.from_argument(self.notifications)
                keys = partial(new_keys, bucket=source.container, prefix="")
                return kafka_channel(chosen, self.identity_digest(), keys, directory=source.container)
            if self.notifications == "auto" and not await source.has_frontend():
                return None
            return DCacheEventChannel(
                source.about,
                connections=DCACHE_CONNECTIONS,
                conn_id=self.conn_id,
                client_id=f"airflow-provider-oscar-{digest}",
                root=source.container,
            )

        notified = NotifiedSource(
            source,
            open_channel,
            source.look,
            expand=source.expand,
            reconcile_interval=self.reconcile_interval,
            spacing=min(_DCACHE_SPACING, self.poll_interval),
        )

        async def watch(directory: str) -> None:
            if notified.channel is not None:  # watched first and listed afterwards, so that nothing falls between
                await notified.channel.watch(directory)

        source.before_listing = watch
        return notified

    def state_place(self) -> tuple[str, ...]:
        """Return connection, directory and whether it is the whole tree."""
        return ("dcache", self.conn_id, self.path.rstrip("/") or "/", str(self.recursive))

    def about(self) -> str:
        """Return directory and connection."""
        return f"dCache directory {self.path!r} (connection {self.conn_id!r})"

    def policy(self) -> Policy:
        """Return what the watcher wants to see.

        The memory is exact for 200 000 files, since a file moved in may be of any age.
        """
        return self._policy(
            WatchOptions(lookback=timedelta(days=1), max_entries=200_000),
            quiet_period=timedelta(seconds=self.quiet_period),
        )


@dataclass(frozen=True, kw_only=True)
class FileSystemArguments(WatchArguments):
    """What a watcher of a file system of fsspec has.

    :param url: of the directory to watch.
    :param recursive: whether the directories below it are watched as well.
    :param max_directories: more directories than that are an error, told once and tried again.
    :param quiet_period: seconds a file must look the same before it is reported; many file systems show uploads that
        are under way.
    """

    url: str
    recursive: bool = False
    max_directories: int = 1000
    quiet_period: float = 10.0
    algorithm: str = "snapshot"
    optional = frozenset({"conn_id"})
    personal = frozenset({"quiet_period"})
    algorithms = ("snapshot",)  # the others go by the store's clock, which fsspec does not tell

    def __post_init__(self) -> None:
        super().__post_init__()
        url = FsspecUrl.parse(self.url)
        if url.conn_id:
            raise DefinitionError(
                f"the url of a watcher holds a login or a connection ({quoted(self.url)}); give conn_id instead"
            )
        object.__setattr__(self, "url", url.place)
        if self.quiet_period < 0 or self.max_directories < 1:
            raise DefinitionError(
                "a watcher of a file system needs quiet_period >= 0 and max_directories >= 1; got "
                f"{self.quiet_period} and {self.max_directories}"
            )

    def source(self) -> Source:
        """Return the listing of the directory."""
        return FileSystemSource(
            url=self.url,
            conn_id=self.conn_id,
            recursive=self.recursive,
            max_directories=self.max_directories,
            interval=self.poll_interval,
        )

    def state_place(self) -> tuple[str, ...]:
        """Return connection, directory and whether it is the whole tree."""
        return ("fsspec", self.conn_id, self.url, str(self.recursive))

    def about(self) -> str:
        """Return directory and connection."""
        return f"directory {self.url!r}" + (f" (connection {self.conn_id!r})" if self.conn_id else "")

    def policy(self) -> Policy:
        """Return what the watcher wants to see."""
        return self._policy(WatchOptions(), quiet_period=timedelta(seconds=self.quiet_period))


DCACHE_NOTIFICATIONS = ("auto", "sse", "none")
_MOST_WORKERS = 16


def kafka_channel(
    chosen: Notifications,
    digest: str,
    keys: Callable[[list[Notification]], dict[str, Reason]],
    *,
    directory: str = "",
) -> KafkaChannel:
    """Return the channel of a topic; each watcher is a consumer group of its own, so that each gets every message."""
    return KafkaChannel(
        chosen.topic,
        conn_id=chosen.conn_id or "kafka_default",
        group=f"airflow-provider-oscar-{digest}",
        keys=keys,
        directory=directory,
        pointers=chosen.pointers,
    )
