# SPDX-License-Identifier: Apache-2.0
"""What holds when a store hangs, a filter changes, an answer cannot be read, or there is much to remember."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from airflow_provider_oscar._airflow import set_gauge
from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.filters import ObjectFilter
from airflow_provider_oscar.hooks.connections import Connections, StoreConnection
from airflow_provider_oscar.triggers.objects import S3NewObjectTrigger
from airflow_provider_oscar.watch import metrics, state_store
from airflow_provider_oscar.watch.policy import Policy
from airflow_provider_oscar.watch.source import Page
from airflow_provider_oscar.watch.state_shapes import arrange
from airflow_provider_oscar.watch.state_store import StateIdentity, WatchStateStore
from airflow_provider_oscar.watch.status import (
    IDLE_WRITE_INTERVAL,
    KEY_PREFIX,
    WRITE_INTERVAL,
    WatcherStatus,
    status_key,
)
from airflow_provider_oscar.watch.strategies import Fingerprints, SnapshotState, Start, WatchOptions
from airflow_provider_oscar.watch.watcher import Watcher
from tests.unit.watch.conftest import NOON, FakeBucket, FakeStore, FakeTriggerer, listed, use_fakes


def watcher(asset: str = "inbox", **arguments: Any) -> S3NewObjectTrigger:
    return S3NewObjectTrigger(asset_name=asset, conn_id="store", bucket="bucket", **{"start": "all", **arguments})


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, store: FakeStore) -> FakeBucket:
    bucket = FakeBucket({})
    use_fakes(monkeypatch, bucket, store)
    return bucket


def fill(bucket: FakeBucket, *keys: str, version: int = 0, **fields: Any) -> None:
    bucket.objects.update({key: listed(key, version, **fields) for key in keys})


class FakeHook:
    """Hangs until it is told not to."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.calls = 0
        self.closed = False

    def list(self) -> str:
        self.calls += 1
        self.released.wait(30)
        return "listed"

    def close(self) -> None:
        self.closed = True


async def test_six_watchers_of_a_hung_store_do_not_delay_a_healthy_one() -> None:
    hung, healthy = FakeHook(), FakeHook()
    healthy.released.set()
    connections: Connections[FakeHook] = Connections("s3", {"hung": hung, "healthy": healthy}.__getitem__)
    sick = [connections.acquire("hung") for _ in range(6)]
    waiting = [asyncio.create_task(each.call(hung.list)) for each in sick for _ in range(6)]
    await asyncio.sleep(0)
    well = connections.acquire("healthy")
    for _ in range(50):
        assert await asyncio.wait_for(well.call(healthy.list), 20) == "listed"
    assert not any(task.done() for task in waiting)
    hung.released.set()
    assert set(await asyncio.gather(*waiting)) == {"listed"}


async def test_a_call_that_hangs_ends_with_an_error_that_names_the_connection() -> None:
    hook = FakeHook()
    connection = StoreConnection("s3 connection 'slow'", lambda: hook, workers=2, deadline=0.05)
    for hanging in (1, 2):
        with pytest.raises(TransientError, match=f"'slow': no answer within 0.05 s; {hanging} of 2 calls to it hang"):
            await connection.call(hook.list)
    with pytest.raises(TransientError, match="'slow': all 2 calls to it hang, and no further one is begun"):
        await connection.call(hook.list)
    assert hook.calls == 2
    hook.released.set()
    async with asyncio.timeout(20):
        while True:
            try:
                assert await connection.call(hook.list) == "listed"
                break
            except TransientError:
                continue
    connection.close()


async def test_a_hook_is_not_closed_under_a_thread_that_uses_it() -> None:
    hook = FakeHook()
    connections: Connections[FakeHook] = Connections("s3", lambda _: hook)
    connection = connections.acquire("store")

    async def list_once() -> None:
        async with connection.hook() as lent:
            await connection.call(lent.list)

    task = asyncio.create_task(list_once())
    async with asyncio.timeout(20):
        while not hook.calls:  # noqa: ASYNC110 - a thread calls it
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    connections.release("store")
    assert any(each.name == "close-store" for each in threading.enumerate()), "it waits for the thread"
    assert not hook.closed
    hook.released.set()
    async with asyncio.timeout(20):
        while not hook.closed:  # noqa: ASYNC110 - a thread closes it
            await asyncio.sleep(0.01)


async def test_watchers_of_one_connection_share_one_hook_until_the_last_is_gone() -> None:
    made: list[FakeHook] = []

    def open_hook(conn_id: str) -> FakeHook:
        made.append(FakeHook())
        return made[-1]

    connections = Connections("s3", open_hook)
    for _ in range(100):
        async with connections.acquire("store").hook() as hook:
            assert hook is made[0]
    for _ in range(99):
        connections.release("store")
    assert not made[0].closed
    connections.release("store")
    async with asyncio.timeout(20):
        while not made[0].closed:  # noqa: ASYNC110 - a thread closes it
            await asyncio.sleep(0.01)
    assert len(made) == 1


async def test_a_word_of_the_filter_changes_and_nothing_is_lost_or_repeated(
    bucket: FakeBucket, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    fill(bucket, "a.h5", "b.txt")
    async with FakeTriggerer(bucket, watcher(suffix=".h5", start="now")):
        fill(bucket, "c.h5")
    fill(bucket, "d.h5", "e.txt")  # while no watcher runs
    with caplog.at_level(logging.WARNING):
        async with FakeTriggerer(bucket, watcher(regex="[.]h5$", start="now")) as successor:
            await successor.list_once()
    assert successor.keys() == ["c.h5", "d.h5"]
    assert "the choice of objects was changed" in caplog.text
    assert '"suffix": ".h5"' in caplog.text
    async with FakeTriggerer(bucket, watcher(start="now")) as wider:
        fill(bucket, "f.txt")
        await wider.list_once()
    assert wider.keys() == ["f.txt"]  # what was listed before is known, whether or not it was of interest


@pytest.mark.parametrize("algorithm", ["snapshot", "cursor"])
async def test_another_algorithm_goes_on_from_what_was_known(bucket: FakeBucket, algorithm: str) -> None:
    fill(bucket, "a", "b")
    async with FakeTriggerer(bucket, watcher()):
        pass
    fill(bucket, "c")
    async with FakeTriggerer(bucket, watcher(algorithm=algorithm)) as successor:
        await successor.list_once()
    assert successor.keys() == ["c"]


async def test_two_watchers_of_one_place_and_asset_do_not_disturb_each_other(bucket: FakeBucket) -> None:
    pair = watcher(suffix=".h5"), watcher(suffix=".txt")
    async with FakeTriggerer(bucket, *pair) as triggerer:
        fill(bucket, "a.h5", "b.txt")
        await triggerer.list_once()
    async with FakeTriggerer(bucket, *pair) as successors:
        fill(bucket, "c.h5", "d.txt")
        await successors.list_once()
    assert sorted(triggerer.keys()) == ["a.h5", "b.txt"]
    assert sorted(successors.keys()) == ["c.h5", "d.txt"]


async def test_states_that_nobody_uses_are_removed() -> None:
    fake, now = FakeStore(), [NOON]

    def opened(choice: str) -> WatchStateStore:
        identity = StateIdentity(location=("s3", "b"), choice=choice)
        return WatchStateStore("inbox", identity, store=fake.accessor(name="inbox"), clock=lambda: now[0])

    old, new = opened("old"), opened("new")
    await old.save(SnapshotState(seen=Fingerprints({1, 2})))
    state = await new.load()
    assert (state, new.predecessor) == (SnapshotState(seen=Fingerprints({1, 2})), "old")
    assert state is not None
    await new.save(state)
    assert old.key in fake.read()
    now[0] += state_store.UNUSED_AFTER + timedelta(minutes=1)
    await new.save(state)
    assert {key for key in fake.read() if key.startswith(old.key)} == set()
    assert await opened("new").load() == state


async def test_start_may_be_a_time(bucket: FakeBucket) -> None:
    fill(bucket, "old", second=-1)
    fill(bucket, "new", second=0)
    async with FakeTriggerer(bucket, watcher(start=NOON)) as triggerer:
        await triggerer.list_once()
        fill(bucket, "moved in", second=-5)
        await triggerer.list_once()
    async with FakeTriggerer(bucket, watcher(start=NOON.isoformat())) as successor:
        await successor.list_once()
    assert (triggerer.keys(), successor.keys()) == (["new", "moved in"], [])


async def test_what_is_written_is_proportional_to_what_is_new(bucket: FakeBucket, store: FakeStore) -> None:
    for count in (1000, 4000, 16_000):
        store.values.clear()
        store.written = 0
        bucket.page_size = 1000
        bucket.objects = {f"{number:05}": listed(f"{number:05}") for number in range(count)}
        async with FakeTriggerer(bucket, watcher()) as triggerer:
            async with asyncio.timeout(120):
                while len(triggerer.keys()) < count:  # noqa: ASYNC110 - the triggerer is at work
                    await asyncio.sleep(0.01)
            await triggerer.wait_idle()
        assert store.remembered() >= count
        assert store.written < 2.5 * sum(map(len, store.values.values()))


def test_chunks_hold_what_is_remembered_and_merge_when_they_are_many() -> None:
    chunks: list[frozenset[int]] = []
    seen = Fingerprints()
    stored: dict[int, frozenset[int]] = {}
    for step in range(60):
        held, seen = seen, seen.union(range(step * 100, step * 100 + 100))
        if step % 3 == 2:
            seen = seen.kept(frozenset(range(step * 20, 6000)))
        chunks, changed = arrange(chunks, seen, held, entries=1000)
        for number in changed:
            if number < len(chunks):
                stored[number] = chunks[number]
            else:
                stored.pop(number, None)
        assert [stored[number] for number in range(len(chunks))] == chunks
        assert seen == frozenset().union(*chunks)
        assert max(map(len, chunks)) <= 1000
        assert len(chunks) <= 8 + len(seen) // 500 + 1


class HalfReadable(FakeBucket):
    """Its listings hold entries that could not be read."""

    unreadable = 2

    async def full_listing(self) -> AsyncGenerator[Page, None]:
        async for page in super().full_listing():
            page.unreadable = self.unreadable if page.last else 0
            yield page


async def test_entries_that_cannot_be_read_are_told_once_and_nothing_is_taken_as_gone(
    monkeypatch: pytest.MonkeyPatch, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = HalfReadable({})
    use_fakes(monkeypatch, bucket, store)
    fill(bucket, "a", "b")
    async with FakeTriggerer(bucket, watcher()) as triggerer:
        hidden = bucket.objects.pop("a")
        for _ in range(3):
            await triggerer.list_once()
        bucket.objects["a"] = hidden
        await triggerer.list_once()
    assert triggerer.keys() == ["a", "b"]
    assert caplog.text.count("2 entries of the listing could not be read") == 1


async def test_an_object_that_is_another_one_at_every_look_does_not_run_for_ever(
    bucket: FakeBucket, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeTriggerer(bucket, watcher()) as triggerer:
        for number in range(12):
            fill(bucket, "flickering", version=number)
            fill(bucket, f"file-{number}")
            await triggerer.list_once()
    assert triggerer.keys().count("flickering") <= 4
    assert len(set(triggerer.keys())) == 13
    assert caplog.text.count("another version at every listing") == 1


async def seen(watcher: Watcher, page: Page) -> list[str]:
    """Pass a page by a watcher, and store all that follows from it."""
    events = [event.key for event in await watcher.process(page)]
    await watcher.commit(page)
    for commit in page.commits.values():
        await commit()
    return events


def status_of(store: FakeStore) -> WatcherStatus:
    (status,) = [WatcherStatus.from_dict(value) for key, value in store.read().items() if key.startswith(KEY_PREFIX)]
    return status


async def test_how_a_watcher_is_doing_is_a_small_value_beside_its_state(store: FakeStore) -> None:
    now = [0.0]
    reports: list[WatcherStatus] = []

    def opened() -> Watcher:
        identity = StateIdentity(location=("s3", "b"), choice="all")
        return Watcher(
            "watcher of asset 'inbox'",
            Policy(ObjectFilter(suffix=".h5").accepts, Start.NOW, WatchOptions()),
            WatchStateStore("inbox", identity, store=store.accessor(name="inbox")),
            report=lambda asset, status: reports.append(status),
            clock=lambda: now[0],
        )

    subject = opened()
    for _ in range(3):
        await seen(subject, Page((), incremental=True, failure="connection 'store': away " + "x" * 5000))
    failing = status_of(store)
    assert failing.failing_since
    assert failing.error.startswith("connection 'store': away")
    assert len(store.values["inbox", status_key(subject._store.key)]) < 2000

    there = [listed("a.h5", second=-60), listed("b.h5", second=-60), listed("c.txt", second=-60)]
    await seen(subject, Page(there, first=True, last=True, server_time=NOON))
    assert status_of(store).failing_since == ""
    now[0] += 61
    new = listed("d.h5", second=7)
    assert await seen(subject, Page([*there, new], first=True, last=True, server_time=NOON)) == ["d.h5"]
    status = status_of(store)
    assert (status.listed, status.known, status.emitted, status.skipped_at_start) == (4, 4, 1, 2)
    assert status.last_event == new.modified.isoformat()
    assert status.lag > 0
    assert reports[-1].emitted == 1

    successor = opened()
    await seen(successor, Page([*there, new], first=True, last=True, server_time=NOON))
    assert (successor.status.emitted, successor.status.skipped_at_start) == (1, 2)


async def test_a_quiet_watcher_writes_its_status_seldom(store: FakeStore) -> None:
    status = WatcherStatus(display_name="a", last_listing="1")
    later = WatcherStatus(display_name="a", last_listing="2")
    assert not later.is_due(status, IDLE_WRITE_INTERVAL - 1)
    assert later.is_due(status, IDLE_WRITE_INTERVAL)
    assert WatcherStatus(display_name="a", emitted=1).is_due(status, WRITE_INTERVAL)
    assert not WatcherStatus(display_name="a", emitted=1).is_due(status, WRITE_INTERVAL - 1)
    assert later.failed("away", NOON).is_due(status, 0)
    assert status.is_due(WatcherStatus(display_name="a"), 0)


def test_the_numbers_of_a_watcher_are_metrics_of_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    gauges: dict[str, float] = {}
    monkeypatch.setattr(metrics, "set_gauge", lambda name, value, tags: gauges.update({name: value}))
    metrics.report("inbox", WatcherStatus(display_name="a", emitted=3, waiting=2).failed("away", NOON))
    assert gauges["oscar.watcher.emitted"] == 3
    assert gauges["oscar.watcher.waiting"] == 2
    assert gauges["oscar.watcher.failing_seconds"] > 0
    set_gauge("oscar.watcher.emitted", 3.0, {"asset": "inbox"})  # Airflow takes it


async def test_empty_files_and_directory_markers_are_left_out_by_policy_and_counted(store: FakeStore) -> None:
    identity = StateIdentity(location=("s3", "b"), choice="all")
    policy = Policy(ObjectFilter(empty="skip").accepts, Start.ALL, WatchOptions())
    subject = Watcher("watcher", policy, WatchStateStore("inbox", identity, store=store.accessor(name="inbox")))
    there = [listed("dir/", size=0), listed("dir/a", size=0), listed("dir/b"), listed("x.part")]
    assert await seen(subject, Page(there, first=True, last=True, server_time=NOON)) == ["dir/b"]
    status = subject.status
    assert (status.filtered, status.empty, status.directories) == (3, 1, 1)
    # With content it is another version, and is reported.
    there[1] = listed("dir/a", version=2, size=5)
    assert await seen(subject, Page(there, first=True, last=True, server_time=NOON)) == ["dir/a"]


async def test_what_came_while_a_place_could_not_be_listed_is_reported_when_it_can_be(
    store: FakeStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that is made after its watcher, a connection that is mended: what came since it began is new."""
    monkeypatch.setattr(state_store, "AssetStateStoreAccessor", store.accessor)
    use = watcher(start="now").watcher()
    before = datetime.now(tz=UTC)
    assert await use.process(Page((), incremental=True, failure="NoSuchBucket")) == ()
    assert "NoSuchBucket" in use.status.error
    old = replace(listed("old"), modified=before - timedelta(hours=1))
    new = replace(listed("new"), modified=datetime.now(tz=UTC) + timedelta(seconds=1))
    page = Page([old, new], first=True, last=True)
    assert [found.key for found in await use.process(page)] == ["new"]
    await use.commit(page)
    again = Page([old, new], first=True, last=True)
    assert await use.process(again) == []
    assert "can be listed now" in caplog.text
    assert use.status.failing_since == ""
