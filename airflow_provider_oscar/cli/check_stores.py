# SPDX-License-Identifier: Apache-2.0
"""What ``airflow oscar check`` looks at in S3 and dCache."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError  # noqa: TID253 - the hook has loaded it

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.objects import split_uri
from airflow_provider_oscar.hooks.checks import FILE, Check, clock_difference
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.s3.errors import s3_error
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

if TYPE_CHECKING:
    from airflow.sdk import Connection


#: Entries of a directory among which a file to read is looked for, and the largest one that is read.
_LOOKS = 100
_READ_LIMIT = 1024 * 1024
_NOTHING = "not tried: nothing is there to read"


def s3_checks(connection: Connection, options: argparse.Namespace) -> Iterator[Check]:
    """Return what an S3 connection is used for; most of it needs ``--place s3://bucket/prefix``."""
    store = _Store(connection.conn_id, options.place)
    yield Check("latency and login", store.login, gate=True)
    if not options.place:
        yield Check("rights", store.rights, needed=False)
        return
    yield Check("list", store.listing)
    yield Check("clock difference", store.clock, needed=False)
    yield Check("read", store.reading, needed=bool(store.key))
    yield Check("notifications", store.notifications, needed=False)
    if options.write:
        yield Check("write", store.write)


class _Store:
    """The checks of an S3 connection."""

    def __init__(self, conn_id: str, place: str) -> None:
        self._conn_id = conn_id
        self._bucket, self._prefix = split_uri(place)[1:] if place else ("", "")
        self._date = ""
        #: The first object of the place, once it was listed.
        self.key = ""

    @cached_property
    def _hook(self) -> OscarS3Hook:
        return OscarS3Hook(self._conn_id)

    @contextmanager
    def _asked(self, action: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            endpoint = self._hook.settings.endpoint_url
            raise s3_error(
                error, conn_id=self._conn_id, endpoint=endpoint, action=action, bucket=self._bucket
            ) from error

    def login(self) -> str:
        done, words = self._hook.test_connection()
        if not done:
            raise DefinitionError(words)
        return words

    def rights(self) -> str:
        raise DefinitionError("not tried: say where by --place s3://bucket/prefix")

    def listing(self) -> str:
        with self._asked(f"list {quoted(self._prefix or '/')}"):
            answer = self._hook.client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        self._date = str(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
        self.key = next((str(each["Key"]) for each in answer.get("Contents", [])), "")
        return f"{quoted(self.key)} is the first" if self.key else "allowed; there is no object yet"

    def clock(self) -> str:
        return clock_difference(self._date, datetime.now(UTC))

    def reading(self) -> str:
        if not self.key:
            raise DefinitionError(_NOTHING)
        with self._asked(f"read {quoted(self.key)}"):
            # By a GET, since a HEAD that is refused has no reason in it.
            got = self._hook.client.get_object(Bucket=self._bucket, Key=self.key, Range="bytes=0-0")
            got["Body"].read()
        return f"the first byte of {quoted(self.key)}"

    def notifications(self) -> str:
        with self._asked("see the notifications"):
            found = self._hook.client.get_bucket_notification_configuration(Bucket=self._bucket)
        kinds = [key for key in found if key.endswith("Configurations") or key == "EventBridgeConfiguration"]
        return ", ".join(kinds) or "none are set up; listings find new objects"

    def write(self) -> str:
        key = f"{self._prefix}{FILE}-{uuid.uuid4().hex[:8]}"
        self._hook.put_bytes(self._bucket, key, b"check")
        self._hook.delete(self._bucket, key)
        return f"{quoted(key)} was written and deleted"


def dcache_checks(connection: Connection, options: argparse.Namespace) -> Iterator[Check]:
    """Return what a dCache connection is used for; ``--place dcache://conn_id/path`` says where."""
    dcache = _DCache(connection.conn_id, options.place)
    yield Check("latency and login", dcache.login, gate=True)
    yield Check("clock difference", dcache.clock, needed=False)
    yield Check("list", dcache.listing)
    yield Check("read", dcache.reading, needed=bool(dcache.file))
    yield Check("notifications", dcache.notifications, needed=False)
    if options.write:
        yield Check("write", dcache.write)


class _DCache:
    """The checks of a dCache connection."""

    def __init__(self, conn_id: str, place: str) -> None:
        self._conn_id = conn_id
        self._path = split_uri(place)[2] if place else "/"
        #: A file of the place, once it was listed.
        self.file = ""

    @cached_property
    def _hook(self) -> DCacheHook:
        return DCacheHook(self._conn_id)

    def login(self) -> str:
        done, words = self._hook.test_connection()
        if not done:
            raise DefinitionError(words)
        return words

    def clock(self) -> str:
        answer = self._hook.client.request("OPTIONS", self._hook.settings.webdav_url)
        return clock_difference(answer.headers.get("date", ""), datetime.now(UTC))

    def listing(self) -> str:
        entries = list(islice(self._hook.iter_entries(self._path), _LOOKS))
        self.file = next((entry.path for entry in entries if not entry.is_directory), "")
        return f"{quoted(entries[0].name)} is the first" if entries else "allowed; the directory is empty"

    def reading(self) -> str:
        if not self.file:
            raise DefinitionError(_NOTHING)
        self._hook.read_bytes(f"dcache://{self._conn_id}{quote(self.file, errors='surrogateescape')}", _READ_LIMIT)
        return quoted(self.file)

    def notifications(self) -> str:
        if not self._hook.settings.frontend_url:
            raise DefinitionError("no frontend_url, so nothing is heard of new files before a listing shows them")
        return "server-sent events of the REST frontend"

    def write(self) -> str:
        name = f"{FILE}-{uuid.uuid4().hex[:8]}"
        self._hook.put_bytes(self._path, name, b"check")
        self._hook.delete(self._path, name)
        return f"{quoted(name)} was written and deleted"
