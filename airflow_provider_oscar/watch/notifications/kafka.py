# SPDX-License-Identifier: Apache-2.0
"""A Kafka topic that tells of new objects: dCache's own, MinIO's, or any JSON through a mapping.

The client is that of Airflow's Apache Kafka provider, librdkafka behind it. Offsets are committed when all that follows
from a message is stored, in the order of each partition. A topic forgets by its retention and a consumer may be parted
from it for longer, so the place is listed after each connection as for every channel that may lose something.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from airflow_provider_oscar.core.errors import DefinitionError, TransientError, quoted
from airflow_provider_oscar.core.notification_formats import detect, from_pointers
from airflow_provider_oscar.core.notifications import Notification
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.hooks.kafka.messages import TopicMessage
from airflow_provider_oscar.watch.notifications.choice import Notifications
from airflow_provider_oscar.watch.notifications.listener import Channel, Delivery, SkipCounter

if TYPE_CHECKING:
    from airflow_provider_oscar.core.objects import Reason

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds one call waits for messages; a triggerer that stops waits for it to end.
_WAIT = 1.0
#: Messages of one call.
_BATCH = 200
#: Messages whose offsets are not committed yet; no more are read then.
_MOST_OPEN = 2000


class TopicReader(Protocol):
    """What reads a topic; blocking."""

    def read(self, most: int, seconds: float) -> list[TopicMessage]:
        """Return the next messages, waiting so many seconds for the first."""

    def commit(self, positions: Mapping[int, int]) -> None:
        """Have the group go on behind these offsets, by partition."""

    def close(self) -> None:
        """Leave the group."""


@dataclass
class Offsets:
    """Which offsets of a partition are dealt with; pure.

    A commit says that everything before it is done, so it waits for the slowest.
    """

    waiting: dict[int, dict[int, bool]] = field(default_factory=dict)

    def read(self, partition: int, offset: int) -> None:
        """Take note of a message, in the order of its partition."""
        self.waiting.setdefault(partition, {})[offset] = False

    def done(self, partition: int, offset: int) -> int | None:
        """Take note that all that follows from a message is stored; return the offset to go on from, if it changes."""
        open_ = self.waiting.get(partition, {})
        if offset not in open_:
            return None
        open_[offset] = True
        last = None
        for first in list(open_):
            if not open_[first]:
                break
            del open_[first]
            last = first
        return None if last is None else last + 1

    @property
    def count(self) -> int:
        """Messages that are not dealt with, and those behind them."""
        return sum(map(len, self.waiting.values()))


def open_reader(conn_id: str, topic: str, group: str) -> TopicReader:
    """Join the topic with Airflow's connection; blocking.

    :raises DefinitionError: if the provider for Apache Kafka is not installed, or the connection cannot be used.
    """
    try:
        from airflow_provider_oscar.hooks.kafka.topic import KafkaTopic
    except ImportError as error:
        raise DefinitionError(
            f"notifications of the Kafka topic {quoted(topic)} need Airflow's provider for Apache Kafka; install "
            "airflow-provider-oscar[kafka]"
        ) from error
    return KafkaTopic(conn_id, topic, group=group)


class KafkaChannel(Channel):
    """Reads a topic as one consumer group; watchers of several places have a group each.

    :param topic: name of the topic.
    :param conn_id: Airflow connection of type ``kafka``.
    :param group: consumer group, where the connection's extra names no ``group.id``.
    :param keys: takes what belongs to the place from a message's notifications.
    :param directory: watched directory, for dCache's own topic; else empty.
    :param pointers: JSON pointers for messages of a form of one's own.
    :param open_reader: joins the topic; called again after a failure.
    """

    lossy = True

    def __init__(  # noqa: PLR0913 - each is one fact
        self,
        topic: str,
        *,
        conn_id: str,
        group: str,
        keys: Callable[[list[Notification]], dict[str, Reason]],
        directory: str = "",
        pointers: Mapping[str, str] | None = None,
        open_reader: Callable[[str, str, str], TopicReader] = open_reader,
    ) -> None:
        self._topic = topic
        self._conn_id = conn_id
        self._group = group
        self._keys = keys
        self._directory = directory
        self._pointers = dict(pointers or {})
        self._open_reader = open_reader
        self._reader: TopicReader | None = None
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka")
        self._offsets = Offsets()
        self._ready: dict[int, int] = {}
        self._failed = False
        self._fewer = asyncio.Event()
        self.skipped = SkipCounter(self.about)

    @property
    def about(self) -> str:
        """Topic and connection."""
        return f"messages of the Kafka topic {quoted(self._topic)} (connection {self._conn_id!r})"

    async def listen(self) -> AsyncGenerator[Delivery | None, None]:
        """Read messages for ever."""
        self._offsets, self._ready, self._failed = Offsets(), {}, False
        try:
            self._reader = await self._blocking(partial(self._open_reader, self._conn_id, self._topic, self._group))
            while True:
                while self._offsets.count >= _MOST_OPEN and not self._failed:
                    self._fewer.clear()
                    await self._fewer.wait()
                if self._failed:
                    raise TransientError(f"{self.about}: events could not be stored; the messages are read once more")
                for message in await self._blocking(self._next):
                    self._offsets.read(message.partition, message.offset)
                    ack = partial(self._settle, self._offsets, message)
                    keys = self._keys_of(message.value)
                    if keys:
                        yield Delivery(keys, ack=ack)
                    else:
                        ack(True)
                yield None
        finally:
            reader, self._reader = self._reader, None
            if reader is not None:
                self._threads.submit(reader.close)

    def _next(self) -> list[TopicMessage]:
        """Commit what is due, and read on, in the reader's own thread."""
        assert self._reader is not None
        ready, self._ready = self._ready, {}
        if ready:
            self._reader.commit(ready)
        return self._reader.read(_BATCH, _WAIT)

    def _keys_of(self, value: bytes) -> dict[str, Reason]:
        try:
            pointed = bool(self._pointers)
            found = from_pointers(value, self._pointers) if pointed else detect(value, directory=self._directory)
        except DefinitionError as error:
            self.skipped.add("messages that are not a notification", quoted(error))
            return {}
        keys = self._keys(found)
        if not keys:
            self.skipped.add("messages without a new object of this place", quoted(value[:200]))
        return keys

    def _settle(self, offsets: Offsets, message: TopicMessage, stored: bool) -> None:
        if offsets is not self._offsets:
            return  # of a connection that is gone; its messages come again
        if not stored:
            self._failed = True
        elif (position := offsets.done(message.partition, message.offset)) is not None:
            self._ready[message.partition] = position
        self._fewer.set()

    async def _blocking(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def aclose(self) -> None:
        """Leave; what is not committed is read again."""
        self._threads.shutdown(wait=False)


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
