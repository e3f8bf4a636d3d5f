# SPDX-License-Identifier: Apache-2.0
"""The one object that a DAG author needs: new objects of some places, and the schedules made of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, unquote, urlsplit

from airflow.sdk import Asset, AssetAny, AssetWatcher
from fsspec import available_protocols

from airflow_provider_oscar.core.errors import DefinitionError, bare_url, quoted
from airflow_provider_oscar.core.filters import DEFAULT_IGNORED
from airflow_provider_oscar.core.fsspec_urls import OWN_SCHEMES, FsspecUrl
from airflow_provider_oscar.core.objects import DEFAULT_DCACHE_CONNECTION, DEFAULT_S3_CONNECTION, ObjectEvent, utf8
from airflow_provider_oscar.core.words import nearest
from airflow_provider_oscar.ingest.policies import Batch, Each, Group, Policy
from airflow_provider_oscar.rucio_fs import schemes

if TYPE_CHECKING:
    from airflow.sdk.definitions.asset import BaseAsset
    from airflow.triggers.base import BaseEventTrigger

    from airflow_provider_oscar.ingest.timetable import NewObjectsTimetable

_FORMS = (
    "s3://bucket/prefix, dcache://conn_id/path, webdav://conn_id/path, oscar://conn_id/service, or a URL of fsspec "
    "such as gs://bucket/prefix"
)
#: What an asset's name can say readably; everything else is named by a digest.
_PATTERN = re.compile(r"[A-Za-z0-9*?_.,@+=~/-]+")
_SERVICE = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
DEFAULT_OSCAR_CONNECTION = "oscar_default"


@dataclass(frozen=True)
class _Location:
    """Where to look.

    :param scheme: ``s3``, ``dcache``, ``webdav``, ``oscar``, or one of fsspec.
    :param conn_id: connection of the store.
    :param container: bucket, service, URL of a directory of fsspec, or empty.
    :param path: raw prefix, or absolute directory.
    """

    scheme: str
    conn_id: str
    container: str
    path: str

    @classmethod
    def parse(cls, uri: str, conn_id: str | None) -> _Location:
        scheme, told, rest = uri.partition("://")
        if told and "*" in rest:
            _refuse_pattern(uri)
        if scheme not in OWN_SCHEMES and (scheme in available_protocols() or scheme in schemes):
            url = FsspecUrl.parse(uri, encoded=True)
            return cls(scheme, conn_id or url.conn_id, url.url, url.path)
        parts = urlsplit(uri, allow_fragments=False)
        known = parts.scheme in ("s3", "dcache", "webdav", "oscar")
        if not known or parts.query or (parts.scheme == "s3" and not parts.netloc):
            meant = "" if known else nearest(parts.scheme, ("s3", "dcache", "webdav", "oscar", "file"))
            raise DefinitionError(f"cannot watch {quoted(bare_url(uri))}; expected {_FORMS}, percent-encoded{meant}")
        named, _, authority = parts.netloc.rpartition("@")
        if ":" in named or (named and parts.scheme != "s3"):
            raise DefinitionError(
                f"{quoted(bare_url(uri))} is given with a login, which everybody would see in the asset's name; put it "
                "into a connection"
            )
        path = unquote(parts.path, errors="surrogateescape")
        if parts.scheme == "s3":
            # As ObjectStoragePath writes it, a connection may stand before the bucket.
            return cls("s3", conn_id or named or DEFAULT_S3_CONNECTION, authority, path.removeprefix("/"))
        if parts.scheme == "oscar":
            if not _SERVICE.fullmatch(path.strip("/")):
                raise DefinitionError(f"{quoted(uri)} names no service; expected {_FORMS}")
            return cls("oscar", conn_id or parts.netloc or DEFAULT_OSCAR_CONNECTION, path.strip("/"), "")
        if not path.strip("/") and parts.netloc and "/" not in uri.partition("://")[2]:
            raise DefinitionError(f"{quoted(uri)} names no directory; expected {_FORMS}")
        return cls(parts.scheme, conn_id or parts.netloc or DEFAULT_DCACHE_CONNECTION, "", path or "/")

    @property
    def uri(self) -> str:
        if "://" in self.container:
            return FsspecUrl.parse(self.container).uri
        path = quote(utf8(self.path), safe="/~")
        if self.scheme == "oscar":
            return f"oscar://{self.conn_id}/{self.container}"
        return f"s3://{self.container}/{path}" if self.scheme == "s3" else f"{self.scheme}://{self.conn_id}{path}"

    def named(self, conditions: str) -> str:
        """Return the name of the asset, which is a URI as well.

        :param conditions: readable text of the filter.
        """
        is_root = "://" in self.container and not self.path
        name = (self.uri if is_root else self.uri.rstrip("/")) + conditions
        # Airflow drops what stands before an "@" in an asset's URI.
        return f"{name}?conn_id={quote(self.conn_id)}" if "://" in self.container and self.conn_id else name


class NewObjects:
    """New objects of one or several places, as a source of DAG runs.

    ::

        incoming = NewObjects("s3://incoming/raw/", suffix=".h5", start="all")


        @dag(schedule=incoming.each())
        def infer(): ...  # get_object(context) is the object of this run

    Each place is one asset, named by its URI and its filter, with a watcher. The same may be said in several DAG files;
    refer to the asset elsewhere as ``Asset.ref(name=incoming.asset.name)``.

    :param uris: places to watch: ``s3://bucket/prefix``, ``dcache://conn_id/path``, ``webdav://conn_id/path``, or any
        file system that fsspec knows, such as ``gs://conn_id@bucket/prefix``, ``sftp://conn_id@/path`` or
        ``file:///path``; percent-encoded. ``dcache:///path`` means the connection ``dcache_default``.
        ``oscar://conn_id/service`` stands for the jobs that OSCAR starts by itself when a file comes to the service's
        own input: one object per job that has succeeded, whose ``key`` is the name of the job. Or an ``Asset``
        whose events tell of objects without anybody watching: the outlet of a job operator in another DAG, what the
        receiver for notifications gets, what is posted to Airflow's REST API. It is taken as it is, with its own
        watchers, if any.
    :param conn_id: connection of the places; by default ``oscar_s3_default`` or what the URI says.
    :param suffix: ending of the keys.
    :param glob: pattern of the keys.
    :param regex: regular expression that the keys match.
    :param min_size: least size in bytes.
    :param ignore: patterns of names that are passed over; unfinished uploads by default.
    :param empty: ``"run"`` takes objects of 0 bytes as others, ``"skip"`` leaves them out and counts them; a later
        version with content is reported. Directory markers (``key/``) are never objects.
    :param start: what a watcher does that looks for the first time: ``"now"`` takes what is there as known, ``"all"``
        reports it, and a time reports what is not older.
    :param poll_interval: seconds between two listings.
    :param sentinel: report files when this file is in their directory (``"_SUCCESS"``), or ``.done`` is added to their
        name (``".done"``).
    :param name: of the asset, for a single place; by default made of URI and filter.
    :param watch: further arguments of the trigger, such as ``{"notifications": {"kind": "sqs", …}}``; see
        ``S3NewObjectTrigger`` and ``DCacheNewObjectTrigger``.
    :raises DefinitionError: if an argument cannot be used.
    """

    def __init__(
        self,
        *uris: str | Asset,
        conn_id: str | None = None,
        suffix: str = "",
        glob: str | None = None,
        regex: str | None = None,
        min_size: int = 0,
        ignore: Sequence[str] = DEFAULT_IGNORED,
        empty: str = "run",
        start: str | datetime = "now",
        poll_interval: float = 10.0,
        sentinel: str = "",
        name: str | None = None,
        watch: Mapping[str, object] | None = None,
    ) -> None:
        if not uris:
            raise DefinitionError(f"NewObjects watches nothing; give at least one place: {_FORMS}")
        if name is not None and len(uris) > 1:
            raise DefinitionError("name is for a single place; each of several places is named by its URI")
        self._conditions = {
            "suffix": suffix,
            "glob": glob,
            "regex": regex,
            "min_size": min_size,
            "ignore": tuple(ignore),
            "empty": empty,
            "sentinel": sentinel,
        }
        self._options = {"start": start, "poll_interval": poll_interval, **(watch or {})}
        given = [uri.name for uri in uris if isinstance(uri, Asset)]
        if given and _readable_filter(self._conditions):
            raise DefinitionError(
                f"asset {quoted(given[0])} gets events that others make, so a filter has nothing to choose from; give "
                "the filter to what makes the events"
            )
        self.assets: tuple[Asset, ...] = tuple(
            uri if isinstance(uri, Asset) else self._asset(_Location.parse(uri, conn_id), name) for uri in uris
        )

    def _asset(self, location: _Location, name: str | None) -> Asset:
        if location.scheme == "oscar" and _readable_filter(self._conditions):
            raise DefinitionError(
                f"{location.uri} stands for the jobs of a service, whose names OSCAR makes up, so there is nothing to "
                "filter; OscarServiceJobsTrigger takes a filter of names"
            )
        name = name or location.named(_readable_filter(self._conditions))
        asset = Asset(name, uri=name if "://" in name else location.named(""), extra={"watches": location.uri})
        # A place and filter make one watcher; Airflow gives it back its state under the name of the asset.
        asset.watchers = [AssetWatcher(name="new objects", trigger=self._trigger(location, asset.name))]
        return asset

    def _trigger(self, location: _Location, asset_name: str) -> BaseEventTrigger:
        from airflow_provider_oscar.triggers.objects import (
            DCacheNewObjectTrigger,
            FileSystemNewObjectTrigger,
            S3NewObjectTrigger,
        )
        from airflow_provider_oscar.triggers.service_jobs import OscarServiceJobsTrigger

        arguments: dict[str, Any] = {"asset_name": asset_name, "conn_id": location.conn_id, **self._conditions}
        arguments.update(self._options)
        if location.scheme == "oscar":
            chosen: dict[str, Any] = dict(self._options)
            return OscarServiceJobsTrigger(
                asset_name=asset_name, conn_id=location.conn_id, service=location.container, **chosen
            )
        if location.scheme == "s3":
            return S3NewObjectTrigger(bucket=location.container, prefix=location.path, **arguments)
        if location.container:
            return FileSystemNewObjectTrigger(url=location.container, **arguments)
        if location.scheme == "webdav":
            arguments.setdefault("notifications", "none")
        return DCacheNewObjectTrigger(path=location.path, **arguments)

    @property
    def asset(self) -> BaseAsset:
        """The asset of the place, for ``schedule=[incoming.asset]``; of several places, any of their assets."""
        return self.assets[0] if len(self.assets) == 1 else AssetAny(*self.assets)

    def __or__(self, other: NewObjects) -> NewObjects:
        """Return the objects of both; their filters may differ."""
        if not isinstance(other, NewObjects):
            return NotImplemented
        both = object.__new__(NewObjects)
        both.assets = tuple({asset.name: asset for asset in (*self.assets, *other.assets)}.values())
        return both

    def each(
        self, *, history: timedelta | float = timedelta(days=1), min_interval: timedelta | float = 0.0
    ) -> NewObjectsTimetable:
        """Return a schedule with one run per object; tasks learn theirs from ``get_object(context)``.

        The run's ``partition_key`` names the version of the object, its ``partition_date`` is the object's time of
        modification. An object that was overwritten is another version and makes another run.

        :param history: a DAG that is new gets also the objects that came so long (seconds) before it was seen first.
        :param min_interval: seconds between the starts of two runs at least, to spare what they call; what came
            meanwhile waits.
        """
        return self._timetable(Each(), history, min_interval)

    def batch(
        self,
        *,
        size: int = 100,
        wait: timedelta | float = 60.0,
        max_bytes: int | None = None,
        history: timedelta | float = timedelta(days=1),
        min_interval: timedelta | float = 0.0,
    ) -> NewObjectsTimetable:
        """Return a schedule with one run per batch, for ``get_objects(context)``; whatever comes first ends a batch.

        :param size: most objects of a run, 1 to 1000.
        :param wait: seconds after the first object of a batch.
        :param max_bytes: sum of the objects' sizes; the object that reaches it is the last.
        :param history: as for :meth:`each`.
        :param min_interval: as for :meth:`each`.
        """
        policy = Batch(size=size, wait=_seconds("wait", wait), max_bytes=max_bytes)
        return self._timetable(policy, history, min_interval)

    def group(
        self,
        *,
        key: str | Callable[[ObjectEvent], str | None],
        complete: Sequence[str] | int | str,
        timeout: timedelta | float | None = timedelta(days=1),
        on_timeout: str = "drop",
        history: timedelta | float = timedelta(days=1),
        min_interval: timedelta | float = 0.0,
    ) -> NewObjectsTimetable:
        """Return a schedule with one run per complete group of objects, for ``get_objects(context)``.

        ::

            incoming.group(key=r"(run_\\d+)", complete=[".h5", ".json"], timeout=timedelta(hours=6))

        :param key: regular expression, searched in ``bucket/key`` or ``directory/name``; its groups name the group of
            objects. Or a function of a module that the triggerer can import, which takes an ``ObjectEvent``.
        :param complete: endings of which each must be there, a number of members, or a glob for the name of a file that
            completes the group.
        :param timeout: seconds after the first member, when an incomplete group is given up; None for never.
        :param on_timeout: ``"drop"`` it, with a warning in the log and an entry in the audit log, or ``"run"`` it.
        :param history: as for :meth:`each`.
        :param min_interval: as for :meth:`each`.
        """
        arguments: dict[str, Any] = {"key": key if isinstance(key, str) else _import_path(key)}
        if isinstance(complete, str):
            arguments["sentinel"] = complete
        elif isinstance(complete, int):
            arguments["count"] = complete
        else:
            arguments["suffixes"] = tuple(complete)
        seconds = None if timeout is None else _seconds("timeout", timeout)
        return self._timetable(Group(timeout=seconds, on_timeout=on_timeout, **arguments), history, min_interval)

    def _timetable(
        self, policy: Policy, history: timedelta | float, min_interval: timedelta | float
    ) -> NewObjectsTimetable:
        from airflow_provider_oscar.ingest.timetable import NewObjectsTimetable

        return NewObjectsTimetable(
            self.assets,
            policy=policy,
            history=_seconds("history", history),
            min_interval=_seconds("min_interval", min_interval),
        )

    def __repr__(self) -> str:
        """Say what makes a schedule of it, which is what Airflow shows of one that it refuses."""
        locations = ", ".join(repr(asset.name) for asset in self.assets)
        return f"NewObjects of {locations} (its schedules are .each(), .batch(), .group() and [.asset])"


def _refuse_pattern(uri: str) -> NoReturn:
    """Refuse a place that is written as assets are named; taken as it is, it would be a prefix that nothing has."""
    location, _, pattern = bare_url(uri.partition("*")[0] + "*").rpartition("/")
    pattern = pattern.removesuffix("*") + "*" + uri.partition("*")[2]
    better = "glob=…" if "/" in pattern else f"glob={pattern!r}"
    raise DefinitionError(
        f"{quoted(bare_url(uri))} is a place with a pattern; give them apart: NewObjects({f'{location}/'!r}, "
        f"{better}). A * that is part of a name is written %2A"
    )


def _seconds(name: str, duration: object) -> float:
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, (int, float)) and not isinstance(duration, bool):
        return float(duration)
    raise DefinitionError(f"{name} is {duration!r}; expected seconds or a timedelta")


def _import_path(function: Callable[..., object]) -> str:
    name = getattr(function, "__qualname__", "")
    module = getattr(function, "__module__", "") or ""
    if not name.isidentifier() or module == "__main__" or module.startswith("unusual_prefix_"):
        raise DefinitionError(
            f"key={quoted(name or function)} cannot be imported by Airflow's triggerer; use a regular expression, or a "
            "function at the top of a module on its path (not of a DAG file)"
        )
    return f"{module}:{name}"


def _readable_filter(conditions: Mapping[str, Any]) -> str:
    """Return what tells the filters of one place apart in the name of an asset: ``/*.h5`` for a suffix."""
    chosen = {name: value for name, value in conditions.items() if value}
    if tuple(chosen.get("ignore", ())) == DEFAULT_IGNORED:
        del chosen["ignore"]
    if chosen.get("empty") == "run":
        del chosen["empty"]
    if not chosen:
        return ""
    for name, text in (("suffix", f"/*{chosen.get('suffix')}"), ("glob", f"/{chosen.get('glob')}")):
        if chosen.keys() == {name} and _PATTERN.fullmatch(text) and "?" not in text:
            return text
    digest = hashlib.sha256(json.dumps(chosen, sort_keys=True, default=list).encode()).hexdigest()[:8]
    return f"/~{digest}"
