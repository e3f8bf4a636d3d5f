# SPDX-License-Identifier: Apache-2.0
"""The Kafka channel over a reader in memory: what is delivered, what is committed, and when it is read again."""

from __future__ import annotations

import asyncio
import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.hooks.kafka.messages import TopicMessage
from airflow_provider_oscar.triggers.objects import DCacheNewObjectTrigger, Notifications, S3NewObjectTrigger
from airflow_provider_oscar.watch.notifications.kafka import KafkaChannel, Offsets
from airflow_provider_oscar.watch.notifications.listener import Delivery, NotificationListener, new_keys


class Topic:
    """A topic of one partition."""

    def __init__(self, *values: object) -> None:
        self.values = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
        self.committed = 0
        self.opened: list[tuple[str, str, str]] = []
        self.closed = 0
        self.assignment = 1
        self.asked: list[int] = []

    def open(self, conn_id: str, topic: str, group: str) -> Reader:
        self.opened.append((conn_id, topic, group))
        return Reader(self)


class Reader:
    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._next = topic.committed

    def read(self, most: int, seconds: float) -> list[TopicMessage]:
        self._topic.asked.append(most)
        at, self._next = self._next, min(self._next + most, len(self._topic.values))
        return [
            TopicMessage(0, offset, self._topic.values[offset], self._topic.assignment)
            for offset in range(at, self._next)
        ]

    def acknowledge(self, message: TopicMessage, position: int) -> None:
        self._topic.committed = position

    def close(self) -> None:
        self._topic.closed += 1


def channel(topic: Topic, **options: object) -> KafkaChannel:
    keys = partial(new_keys, bucket="inbox", prefix="in/")
    arguments = {"conn_id": "kafka_default", "group": "g", "keys": keys, "open_reader": topic.open, **options}
    return KafkaChannel("objects", **arguments)


def record(key: str) -> dict[str, object]:
    s3 = {"bucket": {"name": "inbox"}, "object": {"key": key, "size": 1}}
    return {"Records": [{"eventSource": "minio:s3", "eventName": "s3:ObjectCreated:Put", "s3": s3}]}


async def deliveries(found: KafkaChannel, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(120):
        async for delivery in found.listen():
            if delivery is not None:
                taken.append(delivery)
                if delivery.ack is not None:
                    delivery.ack(True)
            elif len(taken) >= count:
                break
    return taken


async def refuse_all(found: KafkaChannel) -> None:
    """Say of each delivery that what follows from it could not be stored."""
    async for delivery in found.listen():
        if delivery is not None and delivery.ack is not None:
            delivery.ack(False)


async def rounds(found: KafkaChannel, count: int) -> None:
    """Read on, so that what is due is committed."""
    stream = found.listen()
    async with asyncio.timeout(120):
        left = count
        async for delivery in stream:
            if delivery is not None and delivery.ack is not None:
                delivery.ack(True)
            left -= delivery is None
            if not left:
                break
    await stream.aclose()


async def test_what_belongs_to_the_place_is_delivered_and_the_rest_counted() -> None:
    topic = Topic(record("in/a.h5"), b"not json", record("elsewhere/b"), record("in/c.h5"))
    found = channel(topic)
    taken = await deliveries(found, 2)
    assert [dict(each.keys) for each in taken] == [{"in/a.h5": Reason.CREATED}, {"in/c.h5": Reason.CREATED}]
    assert found.skipped.counts == {
        "messages that are not a notification": 1,
        "messages without a new object of this place": 1,
    }
    assert topic.opened == [("kafka_default", "objects", "g")]
    await found.aclose()


async def test_offsets_are_committed_when_all_before_them_is_stored() -> None:
    topic = Topic(record("in/a"), record("in/b"))
    found = channel(topic)
    await rounds(found, 3)
    assert topic.committed == 2
    await found.aclose()


async def test_events_that_could_not_be_stored_are_read_again() -> None:
    topic = Topic(record("in/a"))
    found = channel(topic)
    with pytest.raises(TransientError, match="read once more"):
        await refuse_all(found)
    assert topic.committed == 0
    assert [dict(each.keys) for each in await deliveries(found, 1)] == [{"in/a": Reason.CREATED}]
    assert len(topic.opened) == 2
    await found.aclose()


async def test_messages_of_a_form_of_ones_own_are_read_by_pointers() -> None:
    topic = Topic({"data": {"store": "inbox", "path": "in/x.h5"}})
    found = channel(topic, pointers={"bucket": "/data/store", "key": "/data/path"})
    assert [dict(each.keys) for each in await deliveries(found, 1)] == [{"in/x.h5": Reason.CREATED}]
    await found.aclose()


async def test_dcaches_own_topic_tells_of_the_files_of_a_directory() -> None:
    def billing(path: str) -> dict[str, object]:
        return {
            "msgType": "transfer", "isWrite": "write", "isP2p": False, "status": {"code": 0, "msg": ""},
            "transferPath": path, "fileSize": 5, "date": "2026-11-28T12:00:00Z",
        }  # fmt: skip

    topic = Topic(billing("/data/in/a.h5"), billing("/other/b.h5"))
    found = channel(topic, keys=partial(new_keys, bucket="/data/in", prefix=""), directory="/data/in")
    assert [dict(each.keys) for each in await deliveries(found, 1)] == [{"a.h5": Reason.CREATED}]
    await found.aclose()


def message(offset: int, *, assignment: int = 1, partition: int = 0) -> TopicMessage:
    return TopicMessage(partition, offset, b"", assignment)


@given(done=st.permutations(range(12)))
def test_a_commit_never_passes_a_message_that_is_not_dealt_with(done):
    offsets = Offsets()
    for offset in range(12):
        offsets.read(message(offset))
    position = 0
    for count, offset in enumerate(done, start=1):
        position = offsets.done(message(offset)) or position
        assert set(range(position)) <= set(done[:count])
    assert (position, offsets.count) == (12, 0)


@given(before=st.sets(st.integers(0, 5)), after=st.permutations(range(3, 9)))
def test_a_partition_that_was_away_starts_anew_whatever_was_open_before(before, after):
    offsets = Offsets()
    for offset in range(6):
        offsets.read(message(offset))
    for offset in before:
        offsets.done(message(offset))
    for offset in range(3, 9):  # it comes back at the group's place
        offsets.read(message(offset, assignment=2))
    assert [offsets.done(message(offset)) for offset in range(6)] == [None] * 6  # late, of the time before
    position, processed = 3, set(range(3))
    for offset in after:
        processed.add(offset)
        position = offsets.done(message(offset, assignment=2)) or position
        assert set(range(position)) <= processed
    assert (position, offsets.count) == (9, 0)


async def test_more_messages_than_are_kept_wait_and_each_is_processed() -> None:
    count = 3000
    topic = Topic(*(record(f"in/{number}") for number in range(count)))
    found = channel(topic)
    listener = NotificationListener(found)
    listener.start()
    seen: set[str] = set()
    async with asyncio.timeout(120):
        while 0 not in topic.asked[1:]:  # noqa: ASYNC110 - as much is open as may be, and no message is asked for
            await asyncio.sleep(0)
        while topic.committed < count:
            for delivery in listener.drain(100):
                seen |= delivery.keys.keys()
                assert delivery.ack is not None
                delivery.ack(True)
            await asyncio.sleep(0)
    await listener.aclose()
    assert len(seen) == count


def test_a_trigger_keeps_its_topic_in_the_database():
    chosen = Notifications(kind="kafka", topic="objects", conn_id="bus", pointers={"uri": "/uri"})
    trigger = S3NewObjectTrigger(asset_name="inbox", bucket="inbox", notifications=chosen)
    _, values = trigger.serialize()
    assert json.loads(json.dumps(values))["notifications"]["topic"] == "objects"
    assert S3NewObjectTrigger(**values).serialize()[1] == values
    dcache = DCacheNewObjectTrigger(asset_name="d", path="/in", notifications={"kind": "kafka", "topic": "billing"})
    assert DCacheNewObjectTrigger(**dcache.serialize()[1]).serialize() == dcache.serialize()


@pytest.mark.parametrize(
    ("notifications", "words"),
    [
        ({"kind": "kafka"}, "name of the topic"),
        ({"kind": "minio-listen", "topic": "t"}, "neither topic nor pointers"),
        ({"kind": "kafka", "topic": "t", "pointers": {"key": "path"}}, "expected JSON pointers"),
    ],
)
def test_a_topic_that_cannot_be_used_is_refused_in_the_dag_file(notifications, words):
    with pytest.raises(DefinitionError, match=words):
        S3NewObjectTrigger(asset_name="inbox", bucket="inbox", notifications=notifications)


def test_dcache_has_no_other_queue():
    with pytest.raises(DefinitionError, match="expected 'kafka', or one of auto"):
        DCacheNewObjectTrigger(asset_name="d", path="/in", notifications={"kind": "minio-listen"})
