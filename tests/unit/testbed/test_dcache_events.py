# SPDX-License-Identifier: Apache-2.0
"""Channels, subscriptions, replay and losses of the embedded dCache's events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oscar_testbed.fakes.dcache.events import Channel, Connection, EventHub
from oscar_testbed.fakes.dcache.namespace import Namespace
from oscar_testbed.fakes.dcache.selectors import EventError
from oscar_testbed.faults import DCacheFaults

FLAGS = ["IN_CLOSE_WRITE", "IN_MOVED_TO", "IN_CREATE"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    namespace = Namespace(tmp_path, DCacheFaults())
    namespace.mkdir("/in")
    yield namespace
    namespace.close()


@pytest.fixture
def hub(namespace: Namespace, clock: Clock) -> EventHub:
    hub = EventHub(namespace, lambda: "http://frontend/api/v1", clock=clock)
    namespace.listener = hub.hear
    return hub


async def _received(connection: Connection) -> list[tuple[str, str, Any]]:
    """What the connection holds now, as (event, id, data); the end of the stream as ("END", "", None)."""
    await asyncio.sleep(0)
    messages: list[tuple[str, str, Any]] = []
    while not connection._queue.empty():
        text = await connection.receive()
        if text is None:
            messages.append(("END", "", None))
            continue
        fields = dict(line.split(": ", 1) for line in text.strip().splitlines())
        messages.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return messages


def _names(messages: list[tuple[str, str, Any]]) -> list[str]:
    return [f"{data['event']['name']} {data['event']['mask'][0]}" for kind, _, data in messages if kind == "inotify"]


def _system(messages: list[tuple[str, str, Any]]) -> list[str]:
    return [data["type"] for kind, _, data in messages if kind == "SYSTEM"]


async def _listen(hub: EventHub, channel: Channel, last_id: str | None = None) -> Connection:
    connection = Connection()
    hub.attach(channel, connection, last_id)
    return connection


async def test_events_of_a_watched_directory_arrive_numbered(hub: EventHub, namespace: Namespace):
    channel = hub.create("airflow", "")
    listening = await _listen(hub, channel)
    hub.subscribe_inotify(channel, {"path": "/in", "flags": FLAGS})
    namespace.put("/in/a", b"x")
    namespace.put("/other/b", b"x")
    messages = await _received(listening)
    assert _system(messages) == ["NEW_SUBSCRIPTION"]
    assert _names(messages) == ["a IN_CREATE", "a IN_CLOSE_WRITE"]
    assert [number for kind, number, _ in messages if kind == "inotify"] == ["0", "1"]


async def test_a_reconnect_with_the_last_id_gets_the_rest(hub: EventHub, namespace: Namespace):
    channel = hub.create("airflow", "")
    hub.subscribe_inotify(channel, {"path": "/in", "flags": ["IN_CREATE"]})
    for name in "abc":
        namespace.put(f"/in/{name}", b"")
    assert _names(await _received(await _listen(hub, channel, "0"))) == ["b IN_CREATE", "c IN_CREATE"]


async def test_a_reconnect_without_id_replays_nothing(hub: EventHub, namespace: Namespace):
    channel = hub.create("airflow", "")
    hub.subscribe_inotify(channel, {"path": "/in"})
    namespace.put("/in/a", b"")
    assert await _received(await _listen(hub, channel)) == []


async def test_a_wrong_id_empties_the_buffer_and_says_so(hub: EventHub, namespace: Namespace):
    channel = hub.create("airflow", "")
    hub.subscribe_inotify(channel, {"path": "/in", "flags": ["IN_CREATE"]})
    namespace.put("/in/a", b"")
    assert _system(await _received(await _listen(hub, channel, "17"))) == ["EVENT_LOSS"]
    again = await _received(await _listen(hub, channel, "0"))
    assert _names(again) == []
    assert _system(again) == ["EVENT_LOSS"]


async def test_a_small_ring_loses_the_oldest(hub: EventHub, namespace: Namespace):
    namespace.faults.ring_size = 2
    channel = hub.create("airflow", "")
    hub.subscribe_inotify(channel, {"path": "/in", "flags": ["IN_CREATE"]})
    for name in "abcd":
        namespace.put(f"/in/{name}", b"")
    assert _system(await _received(await _listen(hub, channel, "0"))) == ["EVENT_LOSS"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 30), ring=st.integers(1, 12), last=st.integers(0, 30))
def test_replay_is_complete_or_a_loss_is_announced(count: int, ring: int, last: int):
    async def play() -> None:
        channel = Channel(cid="c", user="u", client_id="", url="", ring_size=ring, now=0.0)
        for number in range(count):
            channel.publish("inotify", {"n": number})
        connection = Connection()
        channel.attach(connection, str(last))
        messages = await _received(connection)
        numbers = [data["n"] for kind, _, data in messages if kind == "inotify"]
        if "EVENT_LOSS" in _system(messages):
            assert numbers == []
            assert not (last < count and last >= count - ring)
        else:
            assert numbers == list(range(last + 1, count))

    asyncio.run(play())


async def test_a_second_listener_displaces_the_first(hub: EventHub):
    channel = hub.create("airflow", "")
    first = await _listen(hub, channel)
    second = await _listen(hub, channel)
    messages = await _received(first)
    assert _system(messages) == ["COMPETING_CLIENT"]
    assert messages[-1][0] == "END"
    assert await _received(second) == []


async def test_watching_the_same_directory_again_replaces_the_flags(hub: EventHub, namespace: Namespace):
    channel = hub.create("airflow", "")
    first, new = hub.subscribe_inotify(channel, {"path": "/in", "flags": ["IN_CREATE"]})
    second, again = hub.subscribe_inotify(channel, {"path": "/in", "flags": ["IN_MASK_ADD", "IN_CLOSE_WRITE"]})
    assert (new, again) == (True, False)
    assert first.url == second.url
    assert second.selector["flags"] == ["IN_CLOSE_WRITE", "IN_CREATE", "IN_MASK_ADD"]
    listening = await _listen(hub, channel)
    namespace.put("/in/a", b"")
    assert _names(await _received(listening)) == ["a IN_CLOSE_WRITE"]


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ({}, "Bad selector"),
        ([], "Bad selector"),
        ({"path": "elsewhere"}, "No such file or directory /elsewhere"),
        ({"path": "/in", "colour": 1}, "Unrecognized field"),
        ({"path": "/in", "flags": "IN_CREATE"}, "Bad selector value"),
        ({"path": "/in", "flags": ["IN_MOVE_FROM"]}, "Bad selector value"),
        ({"path": "/in", "flags": ["IN_DONT_FOLLOW"]}, "Unsupported flags"),
        ({"path": "/in", "flags": ["IN_EXCL_UNLINK"]}, "Unsupported flags"),
        ({"path": "/nowhere"}, "Not found: "),
        ({"path": "/file", "flags": ["IN_ONLYDIR"]}, "Failed condition: "),
    ],
)
def test_a_bad_selector_is_400_with_dcaches_words(hub: EventHub, namespace: Namespace, selector: Any, message: str):
    namespace.put("/file", b"")
    with pytest.raises(EventError, match=message) as refused:
        hub.subscribe_inotify(hub.create("airflow", ""), selector)
    assert refused.value.status == 400


async def test_a_deleted_directory_ends_its_watch(hub: EventHub, namespace: Namespace):
    channel = hub.create("airflow", "")
    listening = await _listen(hub, channel)
    hub.subscribe_inotify(channel, {"path": "/in", "flags": ["IN_DELETE_SELF"]})
    namespace.delete("/in")
    messages = await _received(listening)
    masks = [data["event"]["mask"] for kind, _, data in messages if kind == "inotify"]
    assert masks == [["IN_DELETE_SELF", "IN_ISDIR"], ["IN_IGNORED"]]
    assert _system(messages) == ["NEW_SUBSCRIPTION", "SUBSCRIPTION_CLOSED"]
    assert channel.subscriptions == {}


async def test_lost_events_are_announced_to_every_watch(hub: EventHub, namespace: Namespace):
    namespace.mkdir("/other")
    channel = hub.create("airflow", "")
    listening = await _listen(hub, channel)
    for path in ("/in", "/other"):
        hub.subscribe_inotify(channel, {"path": path, "flags": ["IN_CREATE"]})
    namespace.faults.drop_events = 1
    namespace.put("/in/a", b"")
    messages = await _received(listening)
    assert [d["event"]["mask"] for k, _, d in messages if k == "inotify"] == [["IN_Q_OVERFLOW"]] * 2


async def test_a_metronome_ticks_and_ends(hub: EventHub):
    channel = hub.create("airflow", "")
    listening = await _listen(hub, channel)
    hub.subscribe_metronome(channel, {"delay": 0.001, "message": "${username} ${count}", "count": 2})
    ticks: list[str] = []
    async with asyncio.timeout(5):
        while len(ticks) < 2:
            text = await listening.receive()
            assert text is not None
            if text.startswith("event: metronome"):
                ticks.append(json.loads(text.split("data: ")[1])["event"])
    assert ticks == ["airflow 1", "airflow 2"]


@pytest.mark.parametrize(
    "selector", [{}, {"delay": 0}, {"delay": 1, "frequency": 1}, {"delay": "x"}, {"delay": 301}, 7]
)
async def test_a_bad_metronome_is_refused(hub: EventHub, selector: Any):
    with pytest.raises(EventError, match="Bad selector"):
        hub.subscribe_metronome(hub.create("airflow", ""), selector)


def test_a_channel_is_its_owners_alone(hub: EventHub):
    channel = hub.create("airflow", "")
    with pytest.raises(EventError) as refused:
        hub.channel(channel.cid, "mallory")
    assert refused.value.status == 403


def test_channels_are_limited_per_user(hub: EventHub):
    for _ in range(128):
        hub.create("airflow", "")
    with pytest.raises(EventError) as refused:
        hub.create("airflow", "")
    assert refused.value.status == 429
    hub.create("other", "")


async def test_a_channel_is_collected_only_while_nobody_listens(hub: EventHub, clock: Clock):
    channel = hub.create("airflow", "")
    listening = await _listen(hub, channel)
    clock.now = 10_000
    assert hub.channel(channel.cid, "airflow") is channel
    hub.release(channel, listening)
    clock.now = 10_299
    assert hub.channel(channel.cid, "airflow") is channel
    clock.now = 10_301
    with pytest.raises(EventError) as refused:
        hub.channel(channel.cid, "airflow")
    assert refused.value.status == 404
