# SPDX-License-Identifier: Apache-2.0
"""Sensors that wait for a new object once; a watcher (:mod:`~airflow_provider_oscar.triggers.objects`) reports all.

They hold no worker while they wait (unless ``deferrable=False``), and they look at times of modification instead of
remembering what they saw: new is what the store dates at or after the second in which the sensor started, by the
store's own clock. HTTP and most stores tell whole seconds, so what came in that second just before the sensor counts as
new rather than being missed. A sensor that is retried starts anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.core.checks import seconds
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.filters import ObjectFilter, Sentinels
from airflow_provider_oscar.core.times import read_clock
from airflow_provider_oscar.triggers.objects import FilterArgument, ObjectsTrigger
from airflow_provider_oscar.watch.strategies import Start

#: Seconds that one look of a sensor that pokes may take.
_ONE_LOOK = 60.0
#: Where a sensor that pokes keeps the moment it started.
_STATE_KEY = "airflow_provider_oscar.since"


class NewObjectSensor(BaseSensorOperator):
    """What the sensors have in common; use one of its subclasses, which document the arguments.

    :param conn_id: Airflow connection of the store.
    :param filter: what an object must be like; the next five are short forms of it.
    :param suffix: end of the key.
    :param glob: pattern of the key.
    :param regex: regular expression that the whole key matches.
    :param min_size: bytes.
    :param ignore: patterns of keys that are left out; None for those of uploads under way.
    :param empty: ``run`` or ``skip``, for objects of 0 bytes.
    :param start: ``now``, ``all``, or a time in ISO 8601: which objects count as new.
    :param batch: whether all that is new is returned, not the first object.
    :param poll_interval: timedelta or seconds between two listings.
    :param sentinel: end of the name of the file that says that an object is complete; empty for none.
    :param deferrable: whether the triggerer waits; otherwise the worker does, by ``mode``.
    """

    #: The store's kind, as the trigger names it.
    kind: str

    def __init__(
        self,
        *,
        conn_id: str,
        filter: FilterArgument,
        suffix: str,
        glob: str | None,
        regex: str | None,
        min_size: int,
        ignore: Sequence[str] | None,
        empty: str,
        start: str,
        batch: bool,
        poll_interval: timedelta | float,
        sentinel: str,
        deferrable: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if start not in tuple(Start):
            raise DefinitionError(f"start of {self.task_id!r} is {quoted(start)}; expected 'now' or 'all'")
        self.conn_id = conn_id
        # The parts stay apart, since they may be templates that only a run can fill in.
        self.filter = filter
        self.suffix = suffix
        self.glob = glob
        self.regex = regex
        self.min_size = min_size
        self.ignore = ignore
        self.empty = empty
        self.start = start
        self.batch = batch
        self.poll_interval = seconds(poll_interval)
        self.sentinel = sentinel
        self.deferrable = deferrable
        if sentinel:
            Sentinels(sentinel)
        if not self.poll_interval > 0:
            raise DefinitionError(f"poll_interval of {self.task_id!r} is {poll_interval}; expected seconds above 0")
        self.object_filter()

    def object_filter(self) -> ObjectFilter:
        """Return the conditions on an object.

        :raises DefinitionError: if they cannot be used.
        """
        return ObjectFilter.from_argument(
            self.filter,
            suffix=self.suffix,
            glob=self.glob,
            regex=self.regex,
            min_size=self.min_size,
            ignore=self.ignore,
            empty=self.empty,
        )

    def execute(self, context: Context) -> object:
        """Note the store's time and wait."""
        if not self.deferrable:
            return super().execute(context)
        with airflow_errors():
            trigger = self._trigger(self._since())
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> list[dict[str, object]]:
        """Return the objects, for XCom."""
        objects: list[dict[str, object]] = event["objects"]
        self.log.info("%d new objects, the first is %s", len(objects), quoted(objects[0]["uri"]))
        return objects

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once; what is new counts from the first look on, also after the task was rescheduled."""
        with airflow_errors():
            trigger = self._trigger(self._remembered_since(context))
            event = asyncio.run(_first_event(trigger))
        if event is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self.execute_complete(context, event))

    def _since(self) -> datetime | None:
        return self.store_time() if self.start == "now" else None

    def _remembered_since(self, context: Context) -> datetime | None:
        store = context.get("task_state_store")
        kept = None if store is None else store.get(_STATE_KEY)
        if isinstance(kept, str) and kept:
            return datetime.fromisoformat(kept)
        since = self._since()
        if store is not None and since is not None:
            store.set(_STATE_KEY, since.isoformat())
        return since

    def _trigger(self, since: datetime | None) -> ObjectsTrigger:
        return ObjectsTrigger(
            kind=self.kind,
            place=self.place(),
            filter=self.object_filter(),
            poll_interval=self.poll_interval,
            since=since.isoformat() if since else None,
            batch=self.batch,
            sentinel=self.sentinel,
        )

    def place(self) -> Mapping[str, object]:
        """Return where to look."""
        raise NotImplementedError

    def store_time(self) -> datetime:
        """Return what the store's clock shows, or ours where it shows none."""
        raise NotImplementedError


async def _first_event(trigger: ObjectsTrigger) -> dict[str, object] | None:
    """Return the trigger's event, or None if a look shows nothing new."""
    found = await trigger.look_once(_ONE_LOOK)
    return None if not found else {"objects": found}


class S3NewObjectSensor(NewObjectSensor):
    """Waits for a new object below a prefix of a bucket; returns a list of ``ObjectEvent.to_dict()``.

    ``timeout`` is that of every sensor; ``mode`` and ``poke_interval`` count with ``deferrable=False``.

    :param bucket: bucket to list (templated).
    :param prefix: start of the key (templated).
    :param conn_id: connection of type ``oscar_s3`` or ``aws`` (templated).
    :param filter: conditions on an object as one value; instead of the six that follow.
    :param suffix: end of the key (templated).
    :param glob: shell pattern on the last part of the key, or on all of it if the pattern has a ``/`` (templated).
    :param regex: regular expression searched for in the key (templated).
    :param min_size: bytes an object must have.
    :param ignore: shell patterns of names that do not count; unfinished uploads by default.
    :param empty: ``"run"`` takes objects of 0 bytes as others, ``"skip"`` waits for content.
    :param start: ``"now"`` waits for what comes from the second on in which the sensor started, ``"all"`` takes what
        is there as well.
    :param batch: return all that the first listing with something new shows, at most 1000, the oldest first, instead
        of the oldest alone.
    :param poll_interval: seconds (or a timedelta) between listings in the triggerer.
    :param sentinel: a name such as ``_SUCCESS``, which says that the files of its directory are complete, or an
        ending such as ``.done``, which says so of the file without it; objects are waited for until it is there.
    :param fan_out: requests at a time; above 1, the parts of the first level below the prefix are listed at the same
        time, which helps where the store answers slowly.
    :param deferrable: wait in the triggerer (default) instead of poking on a worker.
    :raises DefinitionError: in the DAG file, for an argument that cannot be used.
    """

    template_fields = ("bucket", "prefix", "conn_id", "suffix", "glob", "regex")
    kind = "s3"

    def __init__(
        self,
        *,
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
        start: Literal["now", "all"] = "now",
        batch: bool = False,
        poll_interval: timedelta | float = 10.0,
        sentinel: str = "",
        fan_out: int = 1,
        deferrable: bool = True,
        **kwargs: object,
    ) -> None:
        super().__init__(
            conn_id=conn_id,
            filter=filter,
            suffix=suffix,
            glob=glob,
            regex=regex,
            min_size=min_size,
            ignore=ignore,
            empty=empty,
            start=start,
            batch=batch,
            poll_interval=poll_interval,
            sentinel=sentinel,
            deferrable=deferrable,
            **kwargs,
        )
        self.bucket = bucket
        self.prefix = prefix
        self.fan_out = fan_out

    def place(self) -> Mapping[str, object]:
        """Return bucket, prefix and connection."""
        return {"conn_id": self.conn_id, "bucket": self.bucket, "prefix": self.prefix, "fan_out": self.fan_out}

    def store_time(self) -> datetime:
        """Return the time of a listing, by which a wrong bucket or key shows at once."""
        from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

        with closing(OscarS3Hook(self.conn_id)) as hook:
            page = hook.list_page(self.bucket, self.prefix, page_size=1)
        return page.server_time or datetime.now(tz=UTC)


class DCacheNewObjectSensor(NewObjectSensor):
    """Waits for a new file in a directory of dCache or of a WebDAV server; returns a list of ``ObjectEvent.to_dict()``.

    A file that is moved in keeps its time of modification; it is noticed by dCache's notification only.
    ``timeout`` is that of every sensor; ``mode`` and ``poke_interval`` count with ``deferrable=False``.

    :param path: absolute directory (templated).
    :param conn_id: connection of type ``dcache`` (templated).
    :param recursive: whether the directories below it are looked at as well.
    :param filter: conditions on a file as one value; instead of the six that follow.
    :param suffix: end of the path (templated).
    :param glob: shell pattern on the last part of the path, or on all of it if the pattern has a ``/`` (templated).
    :param regex: regular expression searched for in the path (templated).
    :param min_size: bytes a file must have.
    :param ignore: shell patterns of names that do not count; unfinished uploads by default.
    :param empty: ``"run"`` takes objects of 0 bytes as others, ``"skip"`` waits for content.
    :param start: ``"now"`` waits for what comes from the second on in which the sensor started, ``"all"`` takes what
        is there as well.
    :param batch: return all that the first listing with something new shows, at most 1000, the oldest first, instead
        of the oldest alone.
    :param poll_interval: seconds (or a timedelta) between listings in the triggerer.
    :param sentinel: a name such as ``_SUCCESS``, which says that the files of its directory are complete, or an
        ending such as ``.done``, which says so of the file without it; files are waited for until it is there.
    :param deferrable: wait in the triggerer (default) instead of poking on a worker.
    :raises DefinitionError: in the DAG file, for an argument that cannot be used.
    """

    template_fields = ("path", "conn_id", "suffix", "glob", "regex")
    kind = "dcache"

    def __init__(
        self,
        *,
        path: str,
        conn_id: str = "dcache_default",
        recursive: bool = False,
        filter: FilterArgument = None,
        suffix: str = "",
        glob: str | None = None,
        regex: str | None = None,
        min_size: int = 0,
        ignore: Sequence[str] | None = None,
        empty: str = "run",
        start: Literal["now", "all"] = "now",
        batch: bool = False,
        poll_interval: timedelta | float = 10.0,
        sentinel: str = "",
        deferrable: bool = True,
        **kwargs: object,
    ) -> None:
        super().__init__(
            conn_id=conn_id,
            filter=filter,
            suffix=suffix,
            glob=glob,
            regex=regex,
            min_size=min_size,
            ignore=ignore,
            empty=empty,
            start=start,
            batch=batch,
            poll_interval=poll_interval,
            sentinel=sentinel,
            deferrable=deferrable,
            **kwargs,
        )
        self.path = path
        self.recursive = recursive

    def place(self) -> Mapping[str, object]:
        """Return directory and connection."""
        return {"conn_id": self.conn_id, "path": self.path, "recursive": self.recursive}

    def store_time(self) -> datetime:
        """Return the time of an answer about the directory."""
        from airflow_provider_oscar.hooks.dcache import DCacheHook
        from airflow_provider_oscar.hooks.dcache.webdav import propfind_request

        hook = DCacheHook(self.conn_id)

        def date() -> Generator[Any, Any, str]:
            answer = yield propfind_request(hook.door, self.path, depth=0)
            return str(answer.headers.get("date", ""))

        try:
            return read_clock(hook.run(date())) or datetime.now(tz=UTC).replace(microsecond=0)
        finally:
            hook.close()


class FileSystemNewObjectSensor(NewObjectSensor):
    """Waits for a new file in a directory of any file system of fsspec; returns a list of ``ObjectEvent.to_dict()``.

    ``timeout`` is that of every sensor; ``mode`` and ``poke_interval`` count with ``deferrable=False``.

    :param url: of the directory, such as ``gs://bucket/prefix`` or ``file:///data/in`` (templated).
    :param conn_id: Airflow connection, as ``ObjectStoragePath`` takes it; empty for none (templated).
    :param recursive: whether the directories below it are looked at as well.
    :param filter: conditions on a file as one value; instead of the five that follow.
    :param suffix: end of the path (templated).
    :param glob: shell pattern on the last part of the path, or on all of it if the pattern has a ``/`` (templated).
    :param regex: regular expression searched for in the path (templated).
    :param min_size: bytes a file must have.
    :param ignore: shell patterns of names that do not count; unfinished uploads by default.
    :param empty: ``"run"`` takes objects of 0 bytes as others, ``"skip"`` waits for content.
    :param start: ``"now"`` waits for what was modified since the sensor started, by the clock of the worker, since
        these file systems do not tell theirs; ``"all"`` takes what is there as well.
    :param batch: return all that the first listing with something new shows, at most 1000, the oldest first, instead
        of the oldest alone.
    :param poll_interval: seconds (or a timedelta) between listings in the triggerer.
    :param sentinel: a name such as ``_SUCCESS``, which says that the files of its directory are complete, or an
        ending such as ``.done``, which says so of the file without it; files are waited for until it is there.
    :param deferrable: wait in the triggerer (default) instead of poking on a worker.
    :raises DefinitionError: in the DAG file, for an argument that cannot be used.
    """

    template_fields = ("url", "conn_id", "suffix", "glob", "regex")
    kind = "fsspec"

    def __init__(
        self,
        *,
        url: str,
        conn_id: str = "",
        recursive: bool = False,
        filter: FilterArgument = None,
        suffix: str = "",
        glob: str | None = None,
        regex: str | None = None,
        min_size: int = 0,
        ignore: Sequence[str] | None = None,
        empty: str = "run",
        start: Literal["now", "all"] = "now",
        batch: bool = False,
        poll_interval: timedelta | float = 10.0,
        sentinel: str = "",
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            conn_id=conn_id,
            filter=filter,
            suffix=suffix,
            glob=glob,
            regex=regex,
            min_size=min_size,
            ignore=ignore,
            empty=empty,
            start=start,
            batch=batch,
            poll_interval=poll_interval,
            sentinel=sentinel,
            deferrable=deferrable,
            **kwargs,
        )
        self.url = url
        self.recursive = recursive

    def place(self) -> Mapping[str, object]:
        """Return directory and connection."""
        return {"conn_id": self.conn_id, "url": self.url, "recursive": self.recursive}

    def store_time(self) -> datetime:
        """Return our time, since fsspec does not tell another."""
        return datetime.now(tz=UTC)
