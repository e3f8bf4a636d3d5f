# SPDX-License-Identifier: Apache-2.0
"""The channels on which S3 stores tell of new objects: an SQS queue, and MinIO's listen stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.notifications import Notification, detect, from_minio_listen
from airflow_provider_oscar.watch.channel import Channel, Heard, Tally

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Seconds one look at a queue waits for a message; a triggerer that stops waits for it to end.
_WAIT = 10
#: Seconds until a message that was neither deleted nor given back is delivered again: longer than Airflow waits for
#: events to be stored (300 s), so that a message needs no extension.
_VISIBILITY = 360
#: Seconds until a message is delivered again whose events could not be stored.
_RETURN = 10
#: Messages received and not settled: as many as are not invisible for longer than it takes to deal with them.
_MOST_OPEN = 50


class NotificationKind(StrEnum):
    """How a store tells of new objects."""

    SQS = "sqs"
    """An SQS queue that gets S3 event notifications, directly, through SNS, or from EventBridge."""
    MINIO_LISTEN = "minio-listen"
    """MinIO's ListenBucketNotification stream; needs no configuration of the store."""


@dataclass(frozen=True, kw_only=True)
class Notifications:
    """The value of a watcher's ``notifications``; a dictionary with these keys does as well.

    :param kind: ``"sqs"`` or ``"minio-listen"``.
    :param queue_url: URL of the SQS queue; give each watched place a queue of its own.
    :param conn_id: connection with the keys for the queue; that of the watcher if empty.
    :param reconcile_interval: seconds between listings while notifications arrive; ``poll_interval`` applies while
        they do not.
    """

    kind: str
    queue_url: str = ""
    conn_id: str = ""
    reconcile_interval: float = 300.0

    def __post_init__(self) -> None:
        if self.kind not in tuple(NotificationKind):
            raise DefinitionError(
                f"notifications of kind {quoted(self.kind)} are not known; expected one of "
                f"{', '.join(NotificationKind)}"
            )
        url = urlsplit(self.queue_url)
        if (self.kind == NotificationKind.SQS) is not bool(url.scheme in ("http", "https") and url.netloc):
            raise DefinitionError(
                f"notifications of kind {self.kind!r} have queue_url {quoted(self.queue_url)}; expected the URL of the "
                "queue for 'sqs', and none for 'minio-listen'"
            )
        if self.reconcile_interval <= 0:
            raise DefinitionError(
                f"reconcile_interval of notifications is {self.reconcile_interval}; expected seconds above 0"
            )

    @classmethod
    def from_argument(cls, value: Notifications | Mapping[str, Any]) -> Notifications:
        """Read what a DAG file or the database holds.

        :raises DefinitionError: if a key is not known or a value not usable.
        """
        if isinstance(value, Notifications):
            return value
        try:
            return cls(**value)
        except TypeError as error:
            raise DefinitionError(
                f"notifications is {quoted(value)} ({error}); expected a dictionary with kind, and queue_url, conn_id "
                "and reconcile_interval as needed"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return what the database holds."""
        return asdict(self)

    def channel(self, *, conn_id: str, bucket: str, prefix: str) -> Channel:
        """Return the channel for a watched place."""
        if self.kind == NotificationKind.SQS:
            return SqsChannel(self.queue_url, conn_id=self.conn_id or conn_id, bucket=bucket, prefix=prefix)
        return MinioChannel(conn_id=conn_id, bucket=bucket, prefix=prefix)


def keys_of(notifications: list[Notification], *, bucket: str, prefix: str) -> tuple[str, ...]:
    """Return the keys of objects that may be there now and belong to the place."""
    return tuple(
        each.key
        for each in notifications
        if each.reason is not None and each.container == bucket and each.key.startswith(prefix)
    )


def _open_queue(conn_id: str, queue_url: str) -> Any:
    """Make the queue where it is used, in the worker thread."""
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
    from airflow_provider_oscar.hooks.s3.notifications import SqsQueue

    return SqsQueue(OscarS3Hook(conn_id), queue_url)


class SqsChannel(Channel):
    """Receives messages, and deletes each when all that follows from it is stored.

    It has threads of its own, since a long poll would keep one of the few that all watchers share.

    :param open_queue: makes the queue; called again after a failure, so that a corrected connection is used.
    """

    lossy = False

    def __init__(
        self,
        queue_url: str,
        *,
        conn_id: str,
        bucket: str,
        prefix: str,
        open_queue: Callable[[str, str], Any] = _open_queue,
        wait: int = _WAIT,
    ) -> None:
        self._url = queue_url
        self._conn_id = conn_id
        self._bucket = bucket
        self._prefix = prefix
        self._open_queue = open_queue
        self._wait = wait
        self._queue: Any = None
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sqs")
        self._open: set[str] = set()
        self._done: list[str] = []
        self._failed: list[str] = []
        self._settling: asyncio.Task[None] | None = None
        self._fewer = asyncio.Event()
        self.tally = Tally(self.about)

    @property
    def about(self) -> str:
        """Queue and connection."""
        return f"messages of the SQS queue {quoted(self._url)} (connection {self._conn_id!r})"

    async def listen(self) -> AsyncGenerator[Heard | None, None]:
        """Receive messages for ever."""
        try:
            while True:
                while len(self._open) >= _MOST_OPEN:
                    self._fewer.clear()
                    await self._fewer.wait()
                for message in await self._blocking(self._receive):
                    self._open.add(message.receipt)
                    settle = partial(self._settle, message.receipt)
                    keys = self._keys(message.body)
                    if keys:
                        yield Heard(keys, settle)
                    else:
                        settle(True)
                yield None
        except Exception:
            self._queue = None
            raise

    def _receive(self) -> Any:
        if self._queue is None:
            self._queue = self._open_queue(self._conn_id, self._url)
        return self._queue.receive(wait=self._wait, visibility=_VISIBILITY)

    def _keys(self, body: str) -> tuple[str, ...]:
        try:
            found = detect(body)
        except DefinitionError as error:
            self.tally.add("messages that are no notification", quoted(error))
            return ()
        keys = keys_of(found, bucket=self._bucket, prefix=self._prefix)
        if not keys:
            self.tally.add("messages without a new object of this place", quoted(body))
        return keys

    def _settle(self, receipt: str, stored: bool) -> None:
        (self._done if stored else self._failed).append(receipt)
        if self._settling is None:
            self._settling = asyncio.get_running_loop().create_task(self._settle_all())

    async def _settle_all(self) -> None:
        """Delete and return what is due; what fails is delivered again by itself."""
        while self._done or self._failed:
            done, self._done = self._done, []
            failed, self._failed = self._failed, []
            try:
                if self._queue is not None and done:
                    await self._blocking(self._queue.delete, done)
                if self._queue is not None and failed:
                    await self._blocking(partial(self._queue.give_back, failed, seconds=_RETURN))
            except Exception as error:  # noqa: BLE001 - at worst it is heard twice
                log.info("%s: %d could not be settled: %s", self.about, len(done) + len(failed), error)
            self._open.difference_update(done, failed)
            self._fewer.set()
        self._settling = None

    async def _blocking(self, function: Callable[..., T], *values: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *values)

    async def aclose(self) -> None:
        """Return what is not settled, so that it is delivered again at once."""
        with suppress(Exception):
            if self._settling is not None:
                await asyncio.wait_for(self._settling, 5)
            if self._queue is not None and self._open:
                returned = partial(self._queue.give_back, list(self._open), seconds=0)
                await asyncio.wait_for(self._blocking(returned), 5)
        self._threads.shutdown(wait=False, cancel_futures=True)


def _open_stream(conn_id: str, bucket: str, prefix: str) -> tuple[Any, Any]:
    """Make client and request, in a worker thread."""
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
    from airflow_provider_oscar.hooks.s3.notifications import listen_client, listen_request

    hook = OscarS3Hook(conn_id)
    return listen_client(hook), listen_request(hook, bucket, prefix)


class MinioChannel(Channel):
    """Reads MinIO's listen stream; its server forgets what is not read."""

    lossy = True

    def __init__(self, *, conn_id: str, bucket: str, prefix: str) -> None:
        self._conn_id = conn_id
        self._bucket = bucket
        self._prefix = prefix
        self.tally = Tally(self.about)

    @property
    def about(self) -> str:
        """Bucket, prefix and connection."""
        return f"the listen stream of s3 bucket {self._bucket!r} prefix {self._prefix!r} (connection {self._conn_id!r})"

    async def listen(self) -> AsyncGenerator[Heard | None, None]:
        """Open the stream and read it to its end."""
        from airflow_provider_oscar.hooks.s3.notifications import listen

        client, request = await asyncio.to_thread(_open_stream, self._conn_id, self._bucket, self._prefix)
        async with client, aclosing(listen(client, request)) as lines:
            async for line in lines:
                keys = self._keys(line)
                yield Heard(keys) if keys else None

    def _keys(self, line: bytes) -> tuple[str, ...]:
        try:
            found = from_minio_listen(line)
        except DefinitionError as error:
            self.tally.add("lines that are no notification", quoted(error))
            return ()
        return keys_of(found, bucket=self._bucket, prefix=self._prefix)
