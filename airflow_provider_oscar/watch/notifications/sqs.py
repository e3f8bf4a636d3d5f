# SPDX-License-Identifier: Apache-2.0
"""The SQS queue that gets the event notifications of a bucket: directly, through SNS, or from EventBridge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_oscar.core.errors import quoted
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.watch.notifications.listener import (
    BlockingChannel,
    Delivery,
    KeyReader,
    new_keys,
)

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.s3.notifications import SqsQueue

log = logging.getLogger(__name__)

#: Seconds one receive call waits for a message; a triggerer that stops waits for it to end.
_WAIT = 10
#: Seconds until a message that was neither deleted nor given back is delivered again: longer than Airflow waits for
#: events to be stored (300 s), so that a message needs no extension.
_VISIBILITY = 360
#: Seconds until a message is delivered again whose events could not be stored.
_RETURN = 10
#: Messages received and not acknowledged: as many as are not invisible for longer than it takes to deal with them.
_MOST_OPEN = 50


def _open_queue(conn_id: str, queue_url: str) -> SqsQueue:
    """Make the queue where it is used, in the worker thread."""
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
    from airflow_provider_oscar.hooks.s3.notifications import SqsQueue

    return SqsQueue(OscarS3Hook(conn_id), queue_url)


@dataclass(eq=False)
class SqsChannel(BlockingChannel):
    """Receives messages, and deletes each when all that follows from it is stored.

    :param open_queue: makes the queue; called again after a failure, so that a corrected connection is used.
    :param queue_url: of the queue.
    :param conn_id: Airflow connection.
    :param bucket: whose records count.
    :param prefix: of the keys that count.
    :param wait: seconds of a long poll, 20 at most.
    """

    lossy: ClassVar[bool] = False

    queue_url: str
    _: KW_ONLY
    conn_id: str
    bucket: str
    prefix: str
    open_queue: Callable[[str, str], SqsQueue] = _open_queue
    wait: int = _WAIT

    def __post_init__(self) -> None:
        super().__init__("sqs", workers=2)
        self._queue: SqsQueue | None = None
        self._open: set[str] = set()
        self._done: list[str] = []
        self._failed: list[str] = []
        self._acknowledging: asyncio.Task[None] | None = None
        self._fewer = asyncio.Event()
        self._keys = KeyReader(self.skipped, partial(new_keys, bucket=self.bucket, prefix=self.prefix))

    @property
    def display_name(self) -> str:
        """Queue and connection."""
        return f"messages of the SQS queue {quoted(self.queue_url)} (connection {self.conn_id!r})"

    async def listen(self) -> AsyncGenerator[Delivery | None, None]:
        """Receive messages forever."""
        try:
            while True:
                while len(self._open) >= _MOST_OPEN:
                    self._fewer.clear()
                    await self._fewer.wait()
                for receipt, keys in await self._blocking(self._receive):
                    self._open.add(receipt)
                    ack = partial(self._acknowledge, receipt)
                    if keys:
                        yield Delivery(keys, ack=ack)
                    else:
                        ack(True)
                yield None
        except Exception:
            self._queue = None
            raise

    def _receive(self) -> list[tuple[str, dict[str, Reason]]]:
        """Return the receipts and keys of the next messages, which are read here and not on the event loop."""
        if self._queue is None:
            self._queue = self.open_queue(self.conn_id, self.queue_url)
        messages = self._queue.receive(wait=self.wait, visibility=_VISIBILITY)
        return [(message.receipt, self._keys(message.body)) for message in messages]

    def _acknowledge(self, receipt: str, stored: bool) -> None:
        (self._done if stored else self._failed).append(receipt)
        if self._acknowledging is None:
            self._acknowledging = asyncio.get_running_loop().create_task(self._acknowledge_all())

    async def _acknowledge_all(self) -> None:
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
                log.info("%s: %d could not be acknowledged: %s", self.display_name, len(done) + len(failed), error)
            self._open.difference_update(done, failed)
            self._fewer.set()
        self._acknowledging = None

    async def aclose(self) -> None:
        """Return what is not acknowledged, so that it is delivered again at once."""
        with suppress(Exception):
            if self._acknowledging is not None:
                async with asyncio.timeout(5):
                    await self._acknowledging
            if self._queue is not None and self._open:
                returned = partial(self._queue.give_back, list(self._open), seconds=0)
                async with asyncio.timeout(5):
                    await self._blocking(returned)
        await super().aclose()
