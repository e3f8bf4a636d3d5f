# SPDX-License-Identifier: Apache-2.0
"""A Kafka topic that tells of new objects: dCache's own, MinIO's, or any JSON through a mapping.

The client is that of Airflow's Apache Kafka provider, librdkafka behind it. Offsets are committed when all that follows
from a message is stored, in the order of each partition. A topic forgets by its retention and a consumer may be parted
from it for longer, so the place is listed after each connection as for every channel that may lose something.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import ClassVar, Protocol

from airflow_provider_oscar.core.errors import DefinitionError, TransientError, quoted
from airflow_provider_oscar.core.notification_formats import detect
from airflow_provider_oscar.core.notification_pointers import from_pointers
from airflow_provider_oscar.core.notifications import Notification
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.hooks.kafka.messages import TopicMessage
from airflow_provider_oscar.watch.notifications.choice import Notifications
from airflow_provider_oscar.watch.notifications.listener import (
    BlockingChannel,
    Delivery,
    Detect,
    KeyReader,
)

log = logging.getLogger(__name__)

#: Seconds one call waits for messages; a triggerer that stops waits for it to end.
_WAIT = 1.0
#: Messages of one call.
_BATCH = 200
#: Messages whose offsets are not committed yet; no more are read then.
_MOST_OPEN = 2000


class TopicReader(Protocol):
    """What reads a topic; blocking."""

    def read(self, most: int, seconds: float) -> list[TopicMessage]:
        """Return the next messages, waiting so many seconds for the first; none for 0, which only keeps in touch."""

    def acknowledge(self, message: TopicMessage, position: int) -> None:
        """Have the group go on from this offset of the message's partition; called in any thread."""

    def close(self) -> None:
        """Leave the group."""


@dataclass
class Offsets:
    """Which offsets of a partition are dealt with; pure.

    A commit says that everything before it is done, so it waits for the slowest. When a partition comes back after it
    was taken away, it is read from the group's place, and what was open before counts no more.
    """

    waiting: dict[int, dict[int, bool]] = field(default_factory=dict)
    assignments: dict[int, int] = field(default_factory=dict)

    def read(self, message: TopicMessage) -> None:
        """Take note of a message, in the order of its partition."""
        if self.assignments.get(message.partition) != message.assignment:
            self.assignments[message.partition] = message.assignment
            self.waiting[message.partition] = {}
        self.waiting[message.partition][message.offset] = False

    def done(self, message: TopicMessage) -> int | None:
        """Take note that all that follows from a message is stored; return the offset to go on from, if it changes."""
        open_ = self.waiting.get(message.partition, {})
        if message.offset not in open_ or self.assignments[message.partition] != message.assignment:
            return None
        open_[message.offset] = True
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


@dataclass(eq=False)
class KafkaChannel(BlockingChannel):
    """Reads a topic as one consumer group; watchers of several places have a group each.

    :param topic: name of the topic.
    :param conn_id: Airflow connection of type ``kafka``.
    :param group: consumer group, where the connection's extra names no ``group.id``.
    :param keys: takes what belongs to the place from a message's notifications.
    :param directory: watched directory, for dCache's own topic; else empty.
    :param base: what comes before it in dCache's namespace.
    :param pointers: JSON pointers for messages of a form of one's own.
    :param open_reader: joins the topic; called again after a failure.
    """

    lossy: ClassVar[bool] = True
    # Never reached: the channel itself reads no more before, and stays in touch.
    most_pending: ClassVar[int] = _MOST_OPEN + _BATCH

    topic: str
    _: KW_ONLY
    conn_id: str
    group: str
    keys: Callable[[list[Notification]], dict[str, Reason]]
    directory: str = ""
    base: str = ""
    pointers: Mapping[str, str] | None = None
    open_reader: Callable[[str, str, str], TopicReader] = open_reader

    def __post_init__(self) -> None:
        super().__init__("kafka")
        self._reader: TopicReader | None = None
        #: Of the thread: those it opened and has not closed.
        self._open: list[TopicReader] = []
        self._offsets = Offsets()
        self._failed = False
        read: Detect = partial(detect, directory=self.directory, base=self.base)
        if self.pointers:
            read = partial(from_pointers, pointers=self.pointers)
        self._keys = KeyReader(self.skipped, self.keys, read=read)

    @property
    def display_name(self) -> str:
        """Topic and connection."""
        return f"messages of the Kafka topic {quoted(self.topic)} (connection {self.conn_id!r})"

    async def listen(self) -> AsyncGenerator[Delivery | None, None]:
        """Read messages forever."""
        self._offsets, self._failed = Offsets(), False
        try:
            self._reader = reader = await self._blocking(self._join)
            while True:
                # Where too much is open, none are read, but brokers hear of us: who is silent for long is put out.
                most = _BATCH if self._offsets.count < _MOST_OPEN else 0
                messages = await self._blocking(partial(self._receive, reader, most))
                if self._failed:
                    raise TransientError(
                        f"{self.display_name}: events could not be stored; the messages are read once more"
                    )
                for message, _ in messages:
                    self._offsets.read(message)
                for message, keys in messages:
                    ack = partial(self._acknowledge, reader, message)
                    if keys:
                        yield Delivery(keys, ack=ack)
                    else:
                        ack(True)
                yield None
        finally:
            self._reader = None
            # Behind what the thread is at, which may be joining: whoever is not heard of keeps its partitions for
            # minutes, and nobody else of the group gets a message meanwhile.
            self._threads.submit(self._leave)

    def _receive(self, reader: TopicReader, most: int) -> list[tuple[TopicMessage, dict[str, Reason]]]:
        """Return the next messages and their keys, which are read here and not on the event loop."""
        return [(message, self._keys(message.value)) for message in reader.read(most, _WAIT)]

    def _join(self) -> TopicReader:
        reader = self.open_reader(self.conn_id, self.topic, self.group)
        self._open.append(reader)
        return reader

    def _leave(self) -> None:
        while self._open:
            self._open.pop().close()

    async def aclose(self) -> None:
        """End the thread when it has left the group; it is not waited for."""
        self._threads.shutdown(wait=False)

    def _acknowledge(self, reader: TopicReader, message: TopicMessage, stored: bool) -> None:
        if reader is not self._reader:
            return  # of a connection that is gone; its messages come again
        if not stored:
            self._failed = True
        elif (position := self._offsets.done(message)) is not None:
            reader.acknowledge(message, position)


def kafka_channel(
    chosen: Notifications,
    digest: str,
    keys: Callable[[list[Notification]], dict[str, Reason]],
    *,
    directory: str = "",
    base: str = "",
) -> KafkaChannel:
    """Return the channel of a topic; each watcher is a consumer group of its own, so that each gets every message."""
    return KafkaChannel(
        chosen.topic,
        conn_id=chosen.conn_id or "kafka_default",
        group=f"airflow-provider-oscar-{digest}",
        keys=keys,
        directory=directory,
        base=base,
        pointers=chosen.pointers,
    )
