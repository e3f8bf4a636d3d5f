# SPDX-License-Identifier: Apache-2.0
"""What watchers of objects and the triggers of the sensors are told, and the sources that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import partial
from typing import Any

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.filters import DEFAULT_IGNORED, ObjectFilter, Sentinels
from airflow_provider_oscar.watch.dcache import DCacheSource, Place
from airflow_provider_oscar.watch.inotify import InotifySource
from airflow_provider_oscar.watch.pages import Source
from airflow_provider_oscar.watch.s3 import S3Source
from airflow_provider_oscar.watch.s3_channels import Notifications
from airflow_provider_oscar.watch.s3_hints import NotifiedS3Source
from airflow_provider_oscar.watch.strategies import ALGORITHMS, Start, WatchOptions
from airflow_provider_oscar.watch.view import Policy


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
    :param algorithm: what is remembered: ``"timestamp"`` (all versions, or when they are many the young ones),
        ``"snapshot"`` (all versions, however many), or, for S3, ``"cursor"`` (the last keys, for prefixes where each
        new key sorts after almost all others; listings then begin near the end).
    :param sentinel: a name such as ``_SUCCESS``, which says that the files of its directory are complete, or an
        ending such as ``.done``, which says so of the file without it; they are reported when it is there.
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
    algorithm: str = "timestamp"
    sentinel: str = ""

    def __post_init__(self) -> None:
        for name in ("asset_name", "conn_id"):
            if not getattr(self, name):
                raise DefinitionError(f"{name} of a watcher is empty; give the name of its asset and of a connection")
        if self.start not in tuple(Start):
            raise DefinitionError(f"start of a watcher is {quoted(self.start)}; expected 'now' or 'all'")
        if self.algorithm not in self.algorithms:
            raise DefinitionError(
                f"algorithm of a watcher is {quoted(self.algorithm)}; expected one of {', '.join(self.algorithms)}"
            )
        if self.sentinel:
            Sentinels(self.sentinel)
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
    algorithms = tuple(name for name in ALGORITHMS if name != "cursor")
    """Names of the algorithms that fit the kind of store."""

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
            accepts=self.filter().accepts,
            start=Start(self.start),
            options=options,
            quiet_period=quiet_period,
            algorithm=self.algorithm,
            sentinel=self.sentinel,
        )


@dataclass(frozen=True, kw_only=True)
class S3Arguments(WatchArguments):
    """What an S3 watcher is told.

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
    notifications: Mapping[str, Any] | None = None
    personal = frozenset({"lookback"})
    algorithms = tuple(ALGORITHMS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bucket:
            raise DefinitionError("bucket of an S3 watcher is empty; name the bucket to list")
        if not 1 <= self.fan_out <= _MOST_WORKERS:
            raise DefinitionError(f"fan_out of an S3 watcher is {self.fan_out}; expected 1 to {_MOST_WORKERS}")
        if self.fan_out > 1 and self.algorithm == "cursor":
            raise DefinitionError("algorithm='cursor' needs listings in key order; leave fan_out at 1")
        if self.notifications is not None:
            told = Notifications.from_argument(self.notifications).to_dict()
            object.__setattr__(self, "notifications", told)

    def place(self) -> dict[str, Any]:
        """Return what decides how the prefix is listed; cursors need a listing of their own."""
        return {**super().place(), "cursor": self.algorithm == "cursor"}

    def source(self) -> Source:
        """Return the listing of the prefix."""
        place = {"conn_id": self.conn_id, "bucket": self.bucket, "prefix": self.prefix}
        options: dict[str, Any] = {**place, "interval": self.poll_interval, "workers": self.fan_out}
        if self.notifications is None:
            return S3Source(**options)
        told = Notifications.from_argument(self.notifications)
        return NotifiedS3Source(
            open_channel=partial(told.channel, **place), reconcile_interval=told.reconcile_interval, **options
        )

    def about(self) -> str:
        """Return bucket, prefix and connection."""
        return f"s3 bucket {self.bucket!r} prefix {self.prefix!r} (connection {self.conn_id!r})"

    def policy(self) -> Policy:
        """Return what the watcher wants to see."""
        return self._policy(WatchOptions(lookback=timedelta(seconds=self.lookback)))


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
        return self._policy(
            WatchOptions(lookback=timedelta(days=1), remember=200_000),
            quiet_period=timedelta(seconds=self.quiet_period),
        )


_MODES = ("auto", "sse", "webdav")
_MOST_WORKERS = 16


@dataclass(frozen=True, kw_only=True)
class ObjectsArguments:
    """What the trigger of a sensor is told.

    :param kind: ``s3`` or ``dcache``; decides which of the other arguments count.
    :param since: ISO 8601 time of the store from which on objects are new; None to take all.
    :param batch: return all new objects of a listing, not the oldest alone.
    :param fan_out: as for watchers; for ``s3``.
    :param sentinel: as for watchers; an object is new if it or its sentinel is.
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
    fan_out: int = 1
    sentinel: str = ""

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
            "sentinel": self.sentinel,
        }
        if self.kind == "s3":
            return S3Arguments(bucket=self.bucket, prefix=self.prefix, fan_out=self.fan_out, **same)
        return DCacheArguments(path=self.path, recursive=self.recursive, **same)
