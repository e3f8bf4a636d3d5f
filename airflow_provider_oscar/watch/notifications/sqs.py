# SPDX-License-Identifier: Apache-2.0
"""The SQS queue that gets the event notifications of a bucket: directly, through SNS, or from EventBridge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.notification_formats import detect
from airflow_provider_oscar.core.notifications import Notification
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.watch.notifications.listener import Channel, Delivery, SkipCounter

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.s3.notifications import QueueMessage, SqsQueue

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Seconds one receive call waits for a message; a triggerer that stops waits for it to end.
_WAIT = 10
#: Seconds until a message that was neither deleted nor given back is delivered again: longer than Airflow waits for
#: events to be stored (300 s), so that a message needs no extension.
_VISIBILITY = 360
#: Seconds until a message is delivered again whose events could not be stored.
_RETURN = 10
#: Messages received and not settled: as many as are not invisible for longer than it takes to deal with them.
_MOST_OPEN = 50


def new_keys(notifications: list[Notification], *, bucket: str, prefix: str) -> dict[str, Reason]:
    """Return the keys of objects that may be there now and belong to the place, and how they came to be."""
    return {
        key: each.reason
        for each in notifications
        # Where a sender does not say whether it encodes the key, both are looked at.
        for key in (each.key, each.other_key)
        if key and each.reason is not None and each.container == bucket and key.startswith(prefix)
    }


def _open_queue(conn_id: str, queue_url: str) -> SqsQueue:
    """Make the queue where it is used, in the worker thread."""
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
    from airflow_provider_oscar.hooks.s3.notifications import SqsQueue

    return SqsQueue(OscarS3Hook(conn_id), queue_url)


class SqsChannel(Channel):
    """Receives messages, and deletes each when all that follows from it is stored.

    It has threads of its own, since a long poll keeps one busy.

    :param open_queue: makes the queue; called again after a failure, so that a corrected connection is used.
    :param queue_url: of the queue.
    :param conn_id: Airflow connection.
    :param bucket: whose records count.
    :param prefix: of the keys that count.
    :param wait: seconds of a long poll, 20 at most.
    """

    lossy = False

    def __init__(
        self,
        queue_url: str,
        *,
        conn_id: str,
        bucket: str,
        prefix: str,
        open_queue: Callable[[str, str], SqsQueue] = _open_queue,
        wait: int = _WAIT,
    ) -> None:
        self._url = queue_url
        self._conn_id = conn_id
        self._bucket = bucket
        self._prefix = prefix
        self._open_queue = open_queue
        self._wait = wait
        self._queue: SqsQueue | None = None
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sqs")
        self._open: set[str] = set()
        self._done: list[str] = []
        self._failed: list[str] = []
        self._settling: asyncio.Task[None] | None = None
        self._fewer = asyncio.Event()
        self.skipped = SkipCounter(self.about)

    @property
    def about(self) -> str:
        """Queue and connection."""
        return f"messages of the SQS queue {quoted(self._url)} (connection {self._conn_id!r})"

    async def listen(self) -> AsyncGenerator[Delivery | None, None]:
        """Receive messages forever."""
        try:
            while True:
                while len(self._open) >= _MOST_OPEN:
                    self._fewer.clear()
                    await self._fewer.wait()
                for message in await self._blocking(self._receive):
                    self._open.add(message.receipt)
                    ack = partial(self._acknowledge, message.receipt)
                    keys = self._keys(message.body)
                    if keys:
                        yield Delivery(keys, ack=ack)
                    else:
                        ack(True)
                yield None
        except Exception:
            self._queue = None
            raise

    def _receive(self) -> list[QueueMessage]:
        if self._queue is None:
            self._queue = self._open_queue(self._conn_id, self._url)
        return self._queue.receive(wait=self._wait, visibility=_VISIBILITY)

    def _keys(self, body: str) -> dict[str, Reason]:
        unread: list[str] = []
        try:
            found = detect(body, unread=unread)
        except DefinitionError as error:
            self.skipped.add("messages that are not a notification", quoted(error), unknown=True)
            return {}
        for each in unread:
            self.skipped.add("parts of messages that are not a notification", each, unknown=True)
        keys = new_keys(found, bucket=self._bucket, prefix=self._prefix)
        if not keys:
            self.skipped.add("messages without a new object of this place", quoted(body))
        return keys

    def _acknowledge(self, receipt: str, stored: bool) -> None:
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
            except Exception as error:  # noqa: BLE001 - at worst it is delivered twice
                log.info("%s: %d could not be settled: %s", self.about, len(done) + len(failed), error)
            self._open.difference_update(done, failed)
            self._fewer.set()
        self._settling = None

    async def _blocking(self, function: Callable[..., T], *values: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *values)

    async def aclose(self) -> None:
        """Return what is not settled, so that it is delivered again at once."""
        with suppress(Exception):
            if self._settling is not None:
                async with asyncio.timeout(5):
                    await self._settling
            if self._queue is not None and self._open:
                returned = partial(self._queue.give_back, list(self._open), seconds=0)
                async with asyncio.timeout(5):
                    await self._blocking(returned)
        self._threads.shutdown(wait=False, cancel_futures=True)
