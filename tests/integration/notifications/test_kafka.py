# SPDX-License-Identifier: Apache-2.0
"""A topic of librdkafka's own mock cluster, which speaks Kafka's protocol over sockets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Producer
from oscar_testbed.process import wait_until

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.hooks.kafka.messages import TopicMessage
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

    def send(self, topic: str, *values: str, partitions: int = 1) -> None:
        for number, value in enumerate(values):
            self.producer.produce(topic, value.encode(), partition=number % partitions)
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
    assert not first.read(0, 0.1)
    first.acknowledge(TopicMessage(0, 1, b"b", 1), 2)
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


def test_a_partition_that_goes_to_another_is_left_at_what_is_settled(cluster, connection):
    name, conn_id = cluster.topic(), connection()
    cluster.send(name, *map(str, range(40)), partitions=4)
    first = KafkaTopic(conn_id, name, group="moving")
    found: list[TopicMessage] = []
    wait_until(lambda: len(found.extend(first.read(100, 0.2)) or found) == 40, what="all are read", timeout=60)
    half = [message for message in found if message.offset == 4]  # of ten in each partition, five are done
    for message in half:
        first.acknowledge(message, 5)
    second = KafkaTopic(conn_id, name, group="moving")
    moved: list[TopicMessage] = []

    def both() -> bool:
        first.read(10, 0.1)
        moved.extend(second.read(100, 0.1))
        return bool(moved)

    wait_until(both, what="a partition has moved", timeout=60)
    # Nothing that was not settled is passed over; all is read again only if a busy machine let the first seem dead.
    assert min(message.offset for message in moved) in (0, 5)
    taken = {message.partition for message in moved}
    for message in found:  # too late for those that are gone
        first.acknowledge(message, 10)
    first.read(0, 0.2)
    first.close()
    second.close()
    third = KafkaTopic(conn_id, name, group="moving")
    again: list[TopicMessage] = []
    wait_until(
        lambda: {message.partition for message in again.extend(third.read(100, 0.2)) or again} >= taken,
        what="what the second did not acknowledge is read again", timeout=60,
    )  # fmt: skip
    assert min(message.offset for message in again if message.partition in taken) in (0, 5)
    third.close()


def test_nothing_is_lost_when_one_of_two_triggerers_is_killed(cluster, connection, tmp_path):
    name = cluster.topic()
    connection()
    keys = [f"in/{number:04d}" for number in range(600)]
    values = [json.dumps({"bucket": "inbox", "key": key}) for key in keys]
    cluster.send(name, *values[:300], partitions=4)
    files = [tmp_path / f"member-{number}" for number in range(2)]

    def start(path: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.integration.notifications.kafka_member", name, str(path)]
        return subprocess.Popen(command, env={**os.environ, "PYTHONWARNINGS": "ignore"})

    def stored() -> list[str]:
        # A line that the kill cut short was not stored.
        texts = [path.read_text() if path.exists() else "" for path in files]
        return [line for text in texts for line in text.splitlines(keepends=True) if line.endswith("\n")]

    members = [start(path) for path in files]
    try:
        wait_until(lambda: len(set(stored())) >= 50, what="some are stored", timeout=120, interval=0.1)
        members[0].kill()
        cluster.send(name, *values[300:], partitions=4)
        wait_until(lambda: len(set(stored())) == len(keys), what="all are stored", timeout=180, interval=0.2)
        assert {line.strip() for line in stored()} == set(keys)
    finally:
        for member in members:
            member.kill()
            member.wait(120)
