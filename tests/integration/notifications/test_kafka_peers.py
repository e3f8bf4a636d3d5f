# SPDX-License-Identifier: Apache-2.0
"""Kafka brokers that hang, drip, reset, or speak something else: the watcher says so, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.hooks.kafka import topic as kafka_topic
from airflow_provider_oscar.hooks.kafka.topic import KafkaTopic
from airflow_provider_oscar.watch.notifications.kafka import KafkaChannel, TopicReader
from airflow_provider_oscar.watch.notifications.listener import NotificationListener
from tests.support.accepting import accept_all
from tests.support.loop_watchdog import require_free_loop, watched_loop

SECRET = "hush-hush-secret"
BROKER = """
import sys
from confluent_kafka import Producer
producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": ""})
(broker,) = producer.list_topics(timeout=30).brokers.values()
for number in range(3):
    producer.produce("objects", b'{"bucket": "inbox", "key": "in/%d"}' % number, partition=0)
producer.flush(30)
print(f"{broker.host}:{broker.port}", flush=True)
sys.stdin.read()
"""


class Peer:
    """Accepts connections, and does with each what ``play`` says."""

    def __init__(self, play: Callable[[Peer, socket.socket], None]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._play = play
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.over = threading.Event()
        self.accepted = 0
        accept_all(self._socket, self._one)

    def _one(self, found: socket.socket) -> None:
        self.accepted += 1
        with found, contextlib.suppress(OSError):
            self._play(self, found)

    def close(self) -> None:
        self.over.set()
        self._socket.close()


def _drip(peer: Peer, found: socket.socket) -> None:
    while not peer.over.wait(0.02):
        found.sendall(b"\0")


def _reset(peer: Peer, found: socket.socket) -> None:
    found.recv(1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _endless(peer: Peer, found: socket.socket) -> None:
    found.sendall(b"\x05\xf0\x00\x00\x00\x00\x00\x01")
    # Without end, not without pause: the peer is a thread of the process whose loop is watched.
    while not peer.over.wait(0.005):
        found.sendall(b"x" * 65536)


PEERS: dict[str, Callable[[Peer, socket.socket], None]] = {
    "never answers": lambda peer, found: peer.over.wait() and None,
    "drips": _drip,
    "resets": _reset,
    "closes": lambda peer, found: None,
    "garbage": lambda peer, found: found.sendall(bytes(range(256)) * 4),
    "another protocol": lambda peer, found: found.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "a huge answer": lambda peer, found: found.sendall(b"\x7f\xff\xff\xff"),
    "an endless answer": _endless,
}


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def to(address: str) -> None:
        settings = {
            "bootstrap.servers": address, "auto.offset.reset": "earliest", "session.timeout.ms": 6000,
            "sasl.password": SECRET,
        }  # fmt: skip
        monkeypatch.setenv("AIRFLOW_CONN_KAFKA", json.dumps({"conn_type": "kafka", "extra": settings}))

    return to


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest, connect: Callable[[str], None]) -> Iterator[Peer]:
    made = Peer(PEERS[request.param])
    connect(made.address)
    yield made
    made.close()


def channel() -> KafkaChannel:
    return KafkaChannel(
        "objects", conn_id="kafka", group="g", keys=lambda found: {each.key: Reason.CREATED for each in found}
    )


def test_a_sick_broker_is_given_up_in_time_and_told_once(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kafka_topic, "_FIRST_ANSWER", 2.0)
    begun = time.monotonic()
    with pytest.raises(TransientError, match="Kafka connection 'kafka', topic 'objects' cannot be read now") as told:
        KafkaTopic("kafka", "objects", group="g")
    assert time.monotonic() - begun < 30
    assert SECRET not in str(told.value)
    # The client tries on all the time, and writes nothing past Airflow's log.
    assert peer.accepted <= 20
    assert "rdkafka" not in "".join(capfd.readouterr())


def test_the_reason_is_told(monkeypatch: pytest.MonkeyPatch, connect: Callable[[str], None]) -> None:
    monkeypatch.setattr(kafka_topic, "_FIRST_ANSWER", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    connect(f"127.0.0.1:{port}")
    with pytest.raises(TransientError, match="Connection refused"):
        KafkaTopic("kafka", "objects", group="g")


async def test_sick_brokers_keep_neither_the_event_loop_nor_the_threads_of_others(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kafka_topic, "_FIRST_ANSWER", 1.0)
    caplog.set_level(logging.WARNING)

    async def listen() -> None:
        listeners = [NotificationListener(channel()) for _ in range(12)]
        for each in listeners:
            each.start()
        async with asyncio.timeout(120):
            while not all(each.missed for each in listeners):  # each failed once, and the place is to be listed
                await asyncio.to_thread(lambda: None)  # what the triggerer shares is free
                await asyncio.sleep(0.02)
        await asyncio.gather(*(each.aclose() for each in listeners))

    await require_free_loop(listen)
    assert "messages of the Kafka topic 'objects' (connection 'kafka')" in caplog.text
    assert SECRET not in caplog.text


@pytest.fixture
def broker(connect: Callable[[str], None]) -> Iterator[subprocess.Popen[str]]:
    """librdkafka's own mock broker, in a process of its own."""
    command = [sys.executable, "-c", BROKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as made:
        assert made.stdout is not None
        connect(made.stdout.readline().strip())
        yield made
        made.kill()


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[KafkaTopic]:
    """Consumers that left their group."""
    found: list[KafkaTopic] = []
    close = KafkaTopic.close

    def noted(topic: KafkaTopic) -> None:
        close(topic)
        found.append(topic)

    monkeypatch.setattr(KafkaTopic, "close", noted)
    return found


async def _heard(listener: NotificationListener, count: int) -> set[str]:
    found: set[str] = set()
    async with asyncio.timeout(120):
        while len(found) < count:
            for delivery in listener.drain(100):
                found |= delivery.keys.keys()
                assert delivery.ack is not None
                delivery.ack(True)
            await asyncio.sleep(0.02)
    return found


def _join(prefix: str) -> None:
    for each in threading.enumerate():
        if each.name.startswith(prefix):
            each.join(120)
            assert not each.is_alive()


async def test_a_watcher_that_ends_leaves_its_group_so_that_the_next_one_hears_at_once(
    broker: subprocess.Popen[str], left: list[KafkaTopic]
) -> None:
    found, opened = channel(), list[object]()
    opening = found.open_reader

    def noted(conn_id: str, topic: str, group: str) -> TopicReader:
        opened.append(opening(conn_id, topic, group))
        return opened[-1]  # type: ignore[return-value]

    found.open_reader = noted  # type: ignore[assignment]
    listener = NotificationListener(found)
    async with watched_loop():
        listener.start()
        assert await _heard(listener, 3) == {"in/0", "in/1", "in/2"}
        await listener.aclose()
        await asyncio.to_thread(_join, "kafka")
    assert left[-1:] == opened[-1:] != []


async def test_a_watcher_that_ends_while_it_joins_leaves_as_well(
    broker: subprocess.Popen[str], left: list[KafkaTopic]
) -> None:
    joined, going_on = threading.Event(), threading.Event()
    found = channel()
    opening = found.open_reader

    def slowly(conn_id: str, topic: str, group: str) -> TopicReader:
        reader = opening(conn_id, topic, group)
        joined.set()
        going_on.wait(120)
        return reader

    found.open_reader = slowly  # type: ignore[assignment]
    listener = NotificationListener(found)
    listener.start()
    await asyncio.to_thread(joined.wait, 30)
    await listener.aclose()
    going_on.set()
    await asyncio.to_thread(_join, "kafka")
    assert left != []


async def test_a_broker_that_hangs_later_delays_neither_the_loop_nor_the_end_of_the_watcher(
    broker: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_topic, "_LEAVE", 0.5)
    listener = NotificationListener(channel())
    async with watched_loop():
        listener.start()
        await _heard(listener, 3)
        os.kill(broker.pid, signal.SIGSTOP)
        await asyncio.sleep(1.5)  # a commit is on its way
        begun = time.monotonic()
        await listener.aclose()
        assert time.monotonic() - begun < 60
        # The thread that read ends; a daemon, for which no process waits at its end, may still wait for the broker.
        await asyncio.to_thread(_join, "kafka_")
    assert all(each.daemon for each in threading.enumerate() if each.name == "kafka-leave")
