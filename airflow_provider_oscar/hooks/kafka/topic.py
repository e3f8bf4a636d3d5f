# SPDX-License-Identifier: Apache-2.0
"""One Kafka topic, read by a consumer group through the connection of Airflow's provider for Apache Kafka."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.apache.kafka.hooks.consume import KafkaConsumerHook
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from airflow_provider_oscar.core.errors import DefinitionError, TransientError, quoted
from airflow_provider_oscar.hooks.kafka.messages import TopicMessage

#: Seconds the broker has for its first answer.
_FIRST_ANSWER = 10.0
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


class KafkaTopic:
    """A consumer of one topic; use it from one thread.

    :param conn_id: connection of type ``kafka``; its extra is librdkafka's configuration.
    :param topic: name of the topic.
    :param group: ``group.id``, where the connection names none.
    :raises DefinitionError: if the topic does not exist, or the brokers refuse the connection's credentials.
    :raises TransientError: if no broker answers.
    """

    def __init__(self, conn_id: str, topic: str, *, group: str) -> None:
        self._where = f"Kafka connection {conn_id!r}, topic {quoted(topic)}"
        self._topic = topic
        self._trouble: KafkaError | None = None
        settings = {"group.id": group, "auto.offset.reset": "latest", "error_cb": self._note}
        self._consumer: Consumer = _Hook(topic, conn_id, settings).get_conn
        try:
            found = self._consumer.list_topics(topic, timeout=_FIRST_ANSWER).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)
            self._consumer.subscribe([topic])
        except KafkaException as error:
            self.close()
            raise self._worded(error.args[0]) from error

    def _note(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in (*_REFUSED, KafkaError._ALL_BROKERS_DOWN):
            self._trouble = error

    def read(self, most: int, seconds: float) -> list[TopicMessage]:
        """Return the next messages.

        :param most: of them.
        :param seconds: to wait for the first.
        :raises TransientError: if the brokers are away.
        :raises DefinitionError: if they refuse the topic.
        """
        found = []
        for message in self._consumer.consume(most, timeout=seconds):
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    continue
                raise self._worded(error)
            found.append(TopicMessage(message.partition() or 0, message.offset() or 0, message.value() or b""))
        if self._trouble is not None and not found:
            raise self._worded(self._trouble)
        self._trouble = None
        return found

    def commit(self, positions: Mapping[int, int]) -> None:
        """Have the group go on from these offsets, by partition; what fails is read again at worst."""
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in positions.items()]
        self._consumer.commit(offsets=offsets, asynchronous=True)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _worded(self, error: KafkaError) -> DefinitionError | TransientError:
        if error.code() in _REFUSED:
            return DefinitionError(
                f"{self._where} cannot be read ({quoted(error.str())}); check the name and the connection's rights"
            )
        return TransientError(f"{self._where} cannot be read now ({quoted(error.str())})")
