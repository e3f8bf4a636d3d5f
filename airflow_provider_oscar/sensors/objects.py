# SPDX-License-Identifier: Apache-2.0
"""Sensors that wait for a new object once; a watcher (:mod:`~airflow_provider_oscar.triggers.objects`) reports all.

They hold no worker while they wait, and they look at times of modification instead of remembering what they
saw: new is what the store dates at or after the second in which the sensor started, by the store's own
clock. HTTP and most stores tell whole seconds, so what came in that second just before the sensor counts as
new rather than being missed. A sensor that is retried starts anew.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NoReturn

from airflow.sdk import BaseSensorOperator, Context

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.filters import DEFAULT_IGNORED, Sentinels
from airflow_provider_oscar.core.times import read_clock
from airflow_provider_oscar.triggers.objects import ObjectsTrigger
from airflow_provider_oscar.watch.strategies import Start


class NewObjectSensor(BaseSensorOperator):
    """What the sensors have in common; use one of its subclasses.

    :param suffix: end of the key.
    :param glob: shell pattern on the last part of the key, or on all of it if the pattern has a ``/``.
    :param regex: regular expression searched for in the key.
    :param min_size: bytes an object must have.
    :param ignore: shell patterns of names that do not count; unfinished uploads by default.
    :param start: ``"now"`` waits for what comes from the second on in which the sensor started, ``"all"`` takes what
        is there as well.
    :param mode: ``"first"`` returns the oldest new object, ``"batch"`` all that the first successful listing shows,
        at most 1000 and the oldest first; both as a list of ``ObjectEvent.to_dict()``.
    :param poll_interval: seconds between listings.
    :param sentinel: a name such as ``_SUCCESS``, which says that the files of its directory are complete, or an
        ending such as ``.done``, which says so of the file without it; objects are waited for until it is there.
    """

    def __init__(
        self,
        *,
        suffix: str = "",
        glob: str | None = None,
        regex: str | None = None,
        min_size: int = 0,
        ignore: Sequence[str] = DEFAULT_IGNORED,
        start: Literal["now", "all"] = "now",
        mode: Literal["first", "batch"] = "first",
        poll_interval: float = 10.0,
        sentinel: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(mode="reschedule", **kwargs)
        if mode not in ("first", "batch"):
            raise DefinitionError(f"mode of {self.task_id!r} is {quoted(mode)}; expected 'first' or 'batch'")
        if start not in tuple(Start):
            raise DefinitionError(f"start of {self.task_id!r} is {quoted(start)}; expected 'now' or 'all'")
        self.suffix = suffix
        self.glob = glob
        self.regex = regex
        self.min_size = min_size
        self.ignore = tuple(ignore)
        self.start = start
        self.batch = mode == "batch"
        self.poll_interval = poll_interval
        self.sentinel = sentinel
        if sentinel:
            Sentinels(sentinel)

    def execute(self, context: Context) -> NoReturn:
        """Note the store's time and defer."""
        with airflow_errors():
            since = self.store_time() if self.start == "now" else None
            trigger = ObjectsTrigger(
                **self.place(),
                suffix=self.suffix,
                glob=self.glob,
                regex=self.regex,
                min_size=self.min_size,
                ignore=self.ignore,
                poll_interval=self.poll_interval,
                since=since.isoformat() if since else None,
                batch=self.batch,
                sentinel=self.sentinel,
            )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the objects, for XCom."""
        objects: list[dict[str, Any]] = event["objects"]
        self.log.info("%d new objects, the first is %s", len(objects), quoted(objects[0]["uri"]))
        return objects

    def place(self) -> dict[str, Any]:
        """Return the arguments of the trigger that say where to look."""
        raise NotImplementedError

    def store_time(self) -> datetime:
        """Return what the store's clock shows, or ours where it shows none."""
        raise NotImplementedError


class S3NewObjectSensor(NewObjectSensor):
    """Waits for a new object below a prefix of a bucket.

    :param bucket: bucket to list.
    :param prefix: start of the key.
    :param conn_id: connection of type ``oscar_s3`` or ``aws``.
    :param fan_out: requests at a time; above 1, the parts of the first level below the prefix are listed at the same
        time, which helps where the store answers slowly.
    """

    template_fields = ("bucket", "prefix", "conn_id", "suffix", "glob", "regex")

    def __init__(
        self, *, bucket: str, prefix: str = "", conn_id: str = "oscar_s3_default", fan_out: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.fan_out = fan_out
        self.bucket = bucket
        self.prefix = prefix
        self.conn_id = conn_id

    def place(self) -> dict[str, Any]:
        """Return bucket, prefix and connection."""
        return {
            "kind": "s3",
            "conn_id": self.conn_id,
            "bucket": self.bucket,
            "prefix": self.prefix,
            "fan_out": self.fan_out,
        }

    def store_time(self) -> datetime:
        """Return the time of a listing, by which a wrong bucket or key shows at once."""
        from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

        with closing(OscarS3Hook(self.conn_id)) as hook:
            page = hook.list_page(self.bucket, self.prefix, page_size=1)
        return page.server_time or datetime.now(tz=UTC)


class DCacheNewObjectSensor(NewObjectSensor):
    """Waits for a new file in a directory of dCache or of a WebDAV server.

    A file that is moved in keeps its time of modification; it is noticed by dCache's notification only.

    :param path: absolute directory.
    :param conn_id: connection of type ``dcache``.
    :param recursive: whether the directories below it are looked at as well.
    """

    template_fields = ("path", "conn_id", "suffix", "glob", "regex")

    def __init__(self, *, path: str, conn_id: str = "dcache_default", recursive: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.conn_id = conn_id
        self.recursive = recursive

    def place(self) -> dict[str, Any]:
        """Return directory and connection."""
        return {"kind": "dcache", "conn_id": self.conn_id, "path": self.path, "recursive": self.recursive}

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
