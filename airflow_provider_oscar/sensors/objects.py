# SPDX-License-Identifier: Apache-2.0
"""Sensors that wait for a new object once; a watcher (:mod:`~airflow_provider_oscar.triggers.objects`) reports all.

They hold no worker while they wait (unless ``deferrable=False``), and they look at times of modification instead of
remembering what they saw: new is what the store dates at or after the second in which the sensor started, by the
store's own clock. HTTP and most stores tell whole seconds, so what came in that second just before the sensor counts as
new rather than being missed. A sensor that is retried starts over.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Unpack

from airflow_provider_oscar.base_arguments import SensorArguments, checks_arguments
from airflow_provider_oscar.core.filters import FilterArgument
from airflow_provider_oscar.core.times import read_clock
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.dcache.webdav import propfind_request
from airflow_provider_oscar.sensors.new_object import NewObjectSensor


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

    @checks_arguments
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
        **kwargs: Unpack[SensorArguments],
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

    def location(self) -> Mapping[str, object]:
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

    @checks_arguments
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
        **kwargs: Unpack[SensorArguments],
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

    def location(self) -> Mapping[str, object]:
        """Return directory and connection."""
        return {"conn_id": self.conn_id, "path": self.path, "recursive": self.recursive}

    def store_time(self) -> datetime:
        """Return the time of an answer about the directory."""
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
    :param filter: conditions on a file as one value; instead of the six that follow.
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

    @checks_arguments
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
        **kwargs: Unpack[SensorArguments],
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

    def location(self) -> Mapping[str, object]:
        """Return directory and connection."""
        return {"conn_id": self.conn_id, "url": self.url, "recursive": self.recursive}

    def store_time(self) -> datetime:
        """Return our time, since fsspec does not tell another."""
        return datetime.now(tz=UTC)
