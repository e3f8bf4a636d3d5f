# SPDX-License-Identifier: Apache-2.0
"""One Kafka topic, read by a consumer group through the connection of Airflow's provider for Apache Kafka."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from airflow.providers.apache.kafka.hooks.consume import KafkaConsumerHook
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from airflow_provider_oscar.core.errors import DefinitionError, TransientError, quoted
from airflow_provider_oscar.hooks.kafka.messages import TopicMessage

log = logging.getLogger(__name__)

#: Seconds the broker has for its first answer.
_FIRST_ANSWER = 10.0
#: Seconds in which a consumer leaves its group; one that waits for a hung broker goes on doing so by itself.
_LEAVE = 5.0
#: Milliseconds between two attempts to reach a broker that breaks off each connection.
_RECONNECT = 1000
_REFUSED = frozenset({
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
})  # fmt: skip


class _Hook(KafkaConsumerHook):
    """The provider's hook, with our group and without automatic commits."""

    def __init__(self, topic: str, conn_id: str, settings: Mapping[str, object]) -> None:
        super().__init__([topic], kafka_config_id=conn_id)
        self._settings = dict(settings)

    def _get_client(self, config: dict[str, Any]) -> Consumer:
        ours = {name: value for name, value in self._settings.items() if name not in config}
        return super()._get_client({**config, **ours, "enable.auto.commit": False})


class _ClientLog:
    """What librdkafka says; it would write twenty lines a second to the standard error of a triggerer.

    :param display_name: names the connection and topic.
    """

    def __init__(self, display_name: str) -> None:
        self._display_name = display_name
        #: What failed last; empty if nothing did.
        self.failure = ""

    def log(self, level: int, message: str, *values: object) -> None:
        """Called in the thread that reads.

        :param level: of Python's logging.
        :param message: with places for the values: the kind, the client's name, the text.
        """
        text = str(values[-1]).rpartition("]: ")[2]
        if values[0] == "FAIL":
            self.failure = text
        log.debug("%s: %s", self._display_name, text)


class KafkaTopic:
    """A consumer of one topic; use it from one thread, but for :meth:`acknowledge`.

    The group's offset moves to what was processed: before each read, when a partition goes to another consumer, and at
    the end. What was read before a partition was taken away says nothing about its place afterwards.

    :param conn_id: connection of type ``kafka``; its extra is librdkafka's configuration.
    :param topic: name of the topic.
    :param group: ``group.id``, where the connection names none.
    :raises DefinitionError: if the topic does not exist, or the brokers refuse the connection's credentials.
    :raises TransientError: if no broker answers.
    """

    def __init__(self, conn_id: str, topic: str, *, group: str) -> None:
        self._display_name = f"Kafka connection {conn_id!r}, topic {quoted(topic)}"
        self._topic = topic
        self._trouble: KafkaError | None = None
        self._lock = threading.Lock()
        self._assigned: dict[int, int] = {}
        self._assignments = 0
        self._processed: dict[int, int] = {}
        self._resting = False
        self._client_log = _ClientLog(self._display_name)
        settings = {
            "group.id": group, "auto.offset.reset": "latest", "error_cb": self._note, "logger": self._client_log,
            "reconnect.backoff.ms": _RECONNECT,
        }  # fmt: skip
        self._consumer: Consumer = _Hook(topic, conn_id, settings).get_conn
        try:
            found = self._consumer.list_topics(topic, timeout=_FIRST_ANSWER).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)
            # A consumer that was thought dead has lost its partitions: the group would refuse its commits.
            self._consumer.subscribe(
                [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        except KafkaException as error:
            self._consumer.poll(0)  # hands over what the client has to say
            self.close()
            raise self._worded(error.args[0]) from error

    def _note(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in (*_REFUSED, KafkaError._ALL_BROKERS_DOWN):
            self._trouble = error

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        with self._lock:
            for each in partitions:
                self._assignments += 1
                self._assigned[each.partition] = self._assignments
        self._resting = False  # new partitions are not paused

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Commit what is processed while the partitions are still ours, so that the next one begins behind it."""
        self._commit(wait=True)
        self._on_lost(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        with self._lock:
            for each in partitions:
                self._assigned.pop(each.partition, None)
                self._processed.pop(each.partition, None)

    def read(self, most: int, seconds: float) -> list[TopicMessage]:
        """Commit what is processed, and return the next messages.

        :param most: of them; 0 reads none and stays a member of the group.
        :param seconds: to wait for the first.
        :raises TransientError: if the brokers are away.
        :raises DefinitionError: if they refuse the topic.
        """
        self._commit(wait=False)
        self._rest(most == 0)
        found = []
        for message in self._consumer.consume(max(most, 1), timeout=seconds):
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    continue
                raise self._worded(error)
            partition = message.partition() or 0
            assignment = self._assigned.get(partition)
            if assignment is not None:  # else it was taken away meanwhile, and is read by another
                found.append(TopicMessage(partition, message.offset() or 0, message.value() or b"", assignment))
        if self._trouble is not None and not found:
            raise self._worded(self._trouble)
        self._trouble, self._client_log.failure = None, ""
        return found

    def acknowledge(self, message: TopicMessage, position: int) -> None:
        """Let the group go on from an offset of the message's partition, unless that was taken away meanwhile."""
        with self._lock:
            if self._assigned.get(message.partition) == message.assignment:
                self._processed[message.partition] = position

    def _commit(self, *, wait: bool) -> None:
        with self._lock:
            processed, self._processed = self._processed, {}
        if not processed:
            return
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in processed.items()]
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            log.info(
                "%s: the group's place could not be moved, so messages may be read again: %s", self._display_name, error
            )

    def _rest(self, resting: bool) -> None:
        if resting != self._resting:
            (self._consumer.pause if resting else self._consumer.resume)(self._consumer.assignment())
            self._resting = resting

    def close(self) -> None:
        """Leave the group, at the place that was reached.

        A hung broker may keep the client from that for minutes; it is then not waited for, neither by the caller nor
        by the end of the process.
        """
        leaving = threading.Thread(target=self._consumer.close, name="kafka-leave", daemon=True)
        leaving.start()
        leaving.join(_LEAVE)
        if leaving.is_alive():
            log.info(
                "%s: no broker answers a consumer that leaves its group; it leaves when one does", self._display_name
            )

    def _worded(self, error: KafkaError) -> DefinitionError | TransientError:
        if error.code() in _REFUSED:
            return DefinitionError(
                f"{self._display_name} cannot be read ({quoted(error.str())}); check the name and the connection's "
                "rights"
            )
        cause = f"; last: {quoted(self._client_log.failure)}" if self._client_log.failure else ""
        return TransientError(f"{self._display_name} cannot be read now ({quoted(error.str())}{cause})")
