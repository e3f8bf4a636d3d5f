# SPDX-License-Identifier: Apache-2.0
"""A topic of librdkafka's own mock cluster, which speaks Kafka's protocol over sockets."""

from __future__ import annotations

import json
import uuid

import pytest
from confluent_kafka import Producer

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.hooks.kafka.topic import KafkaTopic


class Cluster:
    """A broker that lives as long as its producer."""

    def __init__(self) -> None:
        self.producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": ""})
        (broker,) = self.producer.list_topics(timeout=30).brokers.values()
        self.address = f"{broker.host}:{broker.port}"

    def topic(self) -> str:
        """Return the name of a new topic; it is made when it is written to."""
        return f"objects-{uuid.uuid4().hex[:8]}"

    def send(self, topic: str, *values: str) -> None:
        for value in values:
            self.producer.produce(topic, value.encode(), partition=0)
        assert self.producer.flush(60) == 0


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def connection(cluster, monkeypatch):
    def of(**extra):
        # This broker forgets a member that left no sooner than its session ends.
        settings = {
            "bootstrap.servers": cluster.address, "auto.offset.reset": "earliest", "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 1000, **extra,
        }  # fmt: skip
        monkeypatch.setenv("AIRFLOW_CONN_KAFKA", json.dumps({"conn_type": "kafka", "extra": settings}))
        return "kafka"

    return of


def read(topic: KafkaTopic, count: int) -> list[str]:
    found: list[str] = []
    for _ in range(120):
        found += [message.value.decode() for message in topic.read(10, 0.5)]
        if len(found) >= count:
            break
    return found


def test_messages_are_read_and_only_what_is_committed_is_not_read_again(cluster, connection):
    name, conn_id = cluster.topic(), connection()
    cluster.send(name, "a", "b", "c")
    first = KafkaTopic(conn_id, name, group="g1")
    assert read(first, 3) == ["a", "b", "c"]
    first.commit({0: 2})
    first.close()
    second = KafkaTopic(conn_id, name, group="g1")
    assert read(second, 1) == ["c"]
    second.close()


def test_each_group_gets_every_message(cluster, connection):
    name, conn_id = cluster.topic(), connection()
    cluster.send(name, "a")
    for group in ("g2", "g3"):
        topic = KafkaTopic(conn_id, name, group=group)
        assert read(topic, 1) == ["a"]
        topic.close()


def test_the_connections_own_group_is_respected_and_nothing_commits_by_itself(cluster, connection):
    name, conn_id = cluster.topic(), connection(**{"group.id": "theirs", "enable.auto.commit": True})
    cluster.send(name, "a")
    for _ in range(2):
        topic = KafkaTopic(conn_id, name, group="ours")
        assert read(topic, 1) == ["a"]
        topic.close()


def test_brokers_that_are_away_are_said_to_be_so(connection):
    with pytest.raises(TransientError, match="Kafka connection 'kafka', topic 'objects' cannot be read now"):
        KafkaTopic(connection(**{"bootstrap.servers": "127.0.0.1:1"}), "objects", group="g")
