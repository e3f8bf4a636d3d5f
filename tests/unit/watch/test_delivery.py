# SPDX-License-Identifier: Apache-2.0
"""What watchers report and remember, over Airflow's own shared streams and a fake store."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_oscar.core import patterns
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.triggers.objects import S3NewObjectTrigger
from airflow_provider_oscar.watch import producer
from airflow_provider_oscar.watch.watcher import Watcher
from tests.unit.watch.conftest import FakeBucket, FakeStore, FakeTriggerer, listed, quiet, use_fakes


def watcher(asset: str = "inbox", **arguments: Any) -> S3NewObjectTrigger:
    return S3NewObjectTrigger(
        asset_name=asset, **{"conn_id": "store", "bucket": "bucket", "start": "all", "ignore": (), **arguments}
    )


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, store: FakeStore) -> FakeBucket:
    bucket = FakeBucket({})
    use_fakes(monkeypatch, bucket, store)
    return bucket


def fill(bucket: FakeBucket, *keys: str, version: int = 0) -> None:
    bucket.objects.update({key: listed(key, version) for key in keys})


async def test_each_version_is_reported_once(bucket: FakeBucket) -> None:
    fill(bucket, "a", "b", "c")
    async with FakeTriggerer(bucket, watcher()) as triggerer:
        await triggerer.list_once()
        fill(bucket, "b", version=1)
        await triggerer.list_once()
        await triggerer.list_once()
    assert triggerer.keys() == ["a", "b", "c", "b"]


async def test_a_successor_goes_on_from_what_was_stored(bucket: FakeBucket, store: FakeStore) -> None:
    fill(bucket, "a", "b", "c")
    async with FakeTriggerer(bucket, watcher()):
        pass
    fill(bucket, "d")
    async with FakeTriggerer(bucket, watcher()) as successor:
        await successor.list_once()
    assert successor.keys() == ["d"]


async def test_what_airflow_did_not_store_is_reported_again(bucket: FakeBucket) -> None:
    fill(bucket, *"abcdefghijklmnopqrst")
    unstored = FakeTriggerer(bucket, watcher())
    unstored.storing = False
    starting = asyncio.create_task(unstored.__aenter__())
    async with asyncio.timeout(120):
        while bucket.pages < 4:  # noqa: ASYNC110 - the bucket has no event for it
            await asyncio.sleep(0.001)
    await quiet()
    # Four pages wait for their events to be stored, the fifth for its turn, and no further is listed meanwhile.
    assert (bucket.pages, starting.done()) == (5, False)
    starting.cancel()
    await unstored.__aexit__()
    async with FakeTriggerer(bucket, watcher()) as successor:
        pass
    assert successor.keys() == [*"abcdefghijklmnopqrst"]


async def test_nothing_is_remembered_of_a_page_whose_events_were_never_stored(
    bucket: FakeBucket, store: FakeStore
) -> None:
    fill(bucket, "a")
    unstored = FakeTriggerer(bucket, watcher(), ack_timeout=0.1)
    unstored.storing = False
    async with unstored:
        async with asyncio.timeout(120):
            while not unstored.failed:  # noqa: ASYNC110 - Airflow gives up on the watcher
                await asyncio.sleep(0.02)
        await quiet()
    assert store.values == {}
    async with FakeTriggerer(bucket, watcher()) as successor:
        pass
    assert successor.keys() == ["a"]


async def test_start_now_takes_the_first_complete_listing_as_known(bucket: FakeBucket) -> None:
    bucket.objects.update({key: listed(key, second=-60) for key in "abc"})
    bucket.fail_after_pages = 1
    async with FakeTriggerer(bucket, watcher(start="now")) as triggerer:
        bucket.fail_after_pages = None
        await triggerer.list_once()
        fill(bucket, "d")
        await triggerer.list_once()
    assert triggerer.keys() == ["d"]


async def test_a_listing_that_breaks_off_forgets_and_repeats_nothing(bucket: FakeBucket) -> None:
    fill(bucket, "a", "b", "c", "d")
    async with FakeTriggerer(bucket, watcher()) as triggerer:
        for pages in (0, 1, None, 1, None):
            bucket.fail_after_pages = pages
            await triggerer.list_once()
    assert triggerer.keys() == ["a", "b", "c", "d"]
    assert triggerer.failed == []


async def test_watchers_with_other_filters_share_one_listing(bucket: FakeBucket) -> None:
    fill(bucket, "a.h5", "b.root")
    async with FakeTriggerer(bucket, watcher("h5", suffix=".h5"), watcher("root", glob="*.root")) as triggerer:
        await triggerer.list_once()
    assert (triggerer.keys("h5"), triggerer.keys("root")) == (["a.h5"], ["b.root"])
    assert bucket.listings == 2


async def test_a_watcher_that_joins_later_gets_everything(bucket: FakeBucket) -> None:
    fill(bucket, "a", "b")
    async with FakeTriggerer(bucket, watcher("early")):
        pass
    async with FakeTriggerer(bucket, watcher("early"), watcher("late")) as triggerer:
        await triggerer.list_once()
    assert (triggerer.keys("early"), triggerer.keys("late")) == ([], ["a", "b"])


async def test_a_hint_is_reported_at_once_and_not_again(bucket: FakeBucket) -> None:
    async with FakeTriggerer(bucket, watcher()) as triggerer:
        fill(bucket, "a")
        bucket.notification = bucket.objects["a"]
        await triggerer.list_once()
        assert triggerer.keys() == ["a"]
        await triggerer.list_once()
    async with FakeTriggerer(bucket, watcher()) as successor:
        await successor.list_once()
    assert (triggerer.keys(), successor.keys()) == (["a"], [])


async def test_poisoned_keys_are_skipped_and_told(bucket: FakeBucket, caplog: pytest.LogCaptureFixture) -> None:
    fill(bucket, "good", "with\0nul", "lone \udcff surrogate", "also good\n../'\"")
    async with FakeTriggerer(bucket, watcher()) as triggerer:
        await triggerer.list_once()
    assert sorted(triggerer.keys()) == ["also good\n../'\"", "good"]
    assert caplog.text.count("is skipped") == 2


async def test_a_key_that_takes_an_expression_too_long_hides_no_other(
    bucket: FakeBucket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "SEARCH_SECONDS", 0.01)
    hostile = "a" * 1000 + "!"
    fill(bucket, "aaa", hostile, "aab")
    async with FakeTriggerer(bucket, watcher("slow", regex="(a+)+$"), watcher("other")) as triggerer:
        await triggerer.list_once()
        await triggerer.list_once()
    assert (triggerer.keys("slow"), triggerer.keys("other")) == (["aaa"], ["aaa", hostile, "aab"])
    (told,) = (record.getMessage() for record in caplog.records if "is skipped" in record.getMessage())
    assert "regex '(a+)+$' takes more than 0.01 s" in told


async def test_keys_are_matched_a_few_at_a_time_so_that_other_watchers_have_their_turn(
    bucket: FakeBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[int] = []
    matched = Watcher._wanted

    def wanted(found: Watcher, new: Mapping[int, ObjectEvent]) -> dict[int, ObjectEvent]:
        parts.append(len(new))
        return matched(found, new)

    monkeypatch.setattr(Watcher, "_wanted", wanted)
    monkeypatch.setattr("airflow_provider_oscar.watch.threads._AT_ONCE", 2)
    bucket.page_size = 5
    fill(bucket, *"abcde")
    async with FakeTriggerer(bucket, watcher(regex="[a-d]")) as triggerer:
        await triggerer.list_once()
        await triggerer.list_once()
    assert (triggerer.keys(), parts) == ([*"abcd"], [2, 2, 1])


async def test_a_state_store_that_is_away_delays_and_loses_nothing(
    bucket: FakeBucket, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    fill(bucket, "a")
    store.failing = True
    async with FakeTriggerer(bucket, watcher(start="all")) as triggerer:
        assert triggerer.keys() == []
        store.failing = False
        await triggerer.list_once()
        assert triggerer.keys() == ["a"]
        store.failing = True
        fill(bucket, "b")
        await triggerer.list_once()
        store.failing = False
        await triggerer.list_once()
    async with FakeTriggerer(bucket, watcher()) as successor:
        pass
    assert (triggerer.keys(), successor.keys()) == (["a", "b"], [])
    assert "the API server is away" in caplog.text


async def test_a_large_page_is_dealt_with_in_parts(bucket: FakeBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_oscar.watch.producer.OBJECTS_PER_PAGE", 3)
    bucket.page_size = 100
    fill(bucket, *(f"{number:02}" for number in range(20)))
    async with FakeTriggerer(bucket, watcher()) as triggerer:
        await triggerer.list_once()
    assert triggerer.keys() == [f"{number:02}" for number in range(20)]


async def test_what_is_gone_is_forgotten(bucket: FakeBucket, store: FakeStore) -> None:
    fill(bucket, "a", "b", "c")
    async with FakeTriggerer(bucket, watcher()) as triggerer:
        assert store.remembered() == 3
        del bucket.objects["a"], bucket.objects["b"]
        for _ in range(3):
            await triggerer.list_once()
        assert store.remembered() == 1
    assert triggerer.keys() == ["a", "b", "c"]


@pytest.mark.parametrize("algorithm", ["timestamp", "snapshot", "cursor"])
async def test_a_place_that_is_empty_after_a_restart_is_not_believed_at_once(
    bucket: FakeBucket, store: FakeStore, algorithm: str
) -> None:
    fill(bucket, "a", "b")
    async with FakeTriggerer(bucket, watcher(algorithm=algorithm)) as before:
        assert sorted(before.keys()) == ["a", "b"]
    kept, bucket.objects = bucket.objects, {}  # a disk that is not mounted yet
    async with FakeTriggerer(bucket, watcher(algorithm=algorithm)) as after:
        await after.list_once()
        bucket.objects = {**kept, "c": listed("c")}
        await after.list_once()
        assert after.keys() == ["c"]
    bucket.objects = {}
    async with FakeTriggerer(bucket, watcher(algorithm=algorithm)) as emptied:
        for _ in range(2):
            await emptied.list_once()
        assert store.remembered() == 0, "the third time"


async def test_a_listing_without_news_writes_nothing(bucket: FakeBucket, store: FakeStore) -> None:
    fill(bucket, "a", "b")
    async with FakeTriggerer(bucket, watcher()) as triggerer:
        await triggerer.list_once()
        writes = store.writes
        await triggerer.list_once()
        await triggerer.list_once()
    assert store.writes == writes


async def test_a_watcher_without_state_says_what_it_does(bucket: FakeBucket, caplog: pytest.LogCaptureFixture) -> None:
    async with FakeTriggerer(bucket, watcher(start="now")):
        pass
    assert "no state in the store of asset 'inbox', so start='now' applies" in caplog.text


async def test_the_source_is_closed_with_the_last_watcher(bucket: FakeBucket) -> None:
    async with FakeTriggerer(bucket, watcher()):
        assert not bucket.closed
    assert bucket.closed


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 6), st.integers(0, 5)),
        st.tuples(st.just("delete"), st.integers(0, 6), st.just(0)),
        st.tuples(st.just("notification"), st.integers(0, 6), st.just(0)),
        st.tuples(st.just("listing"), st.just(0), st.just(0)),
        st.tuples(st.just("broken listing"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=14,
)


@pytest.mark.parametrize("algorithm", ["timestamp", "snapshot", "cursor"])
@given(steps=STEPS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_history_loses_or_repeats_a_version(
    monkeypatch: pytest.MonkeyPatch, algorithm: str, steps: list[Any]
) -> None:
    monkeypatch.setattr(logging.getLogger("airflow_provider_oscar"), "disabled", True)
    store = FakeStore()
    reported: Counter[str] = Counter()
    must: set[str] = set()

    async def history() -> None:
        bucket = FakeBucket({})
        serial = 0
        at = 0
        while True:
            bucket = FakeBucket(bucket.objects)
            use_fakes(monkeypatch, bucket, store)
            async with FakeTriggerer(bucket, watcher(algorithm=algorithm)) as triggerer:
                must.update(event.id for event in bucket.objects.values())
                restarted = False
                while at < len(steps) and not restarted:
                    what, number, second = steps[at]
                    at += 1
                    serial += 1
                    if what == "put":
                        bucket.objects[str(number)] = listed(str(number), serial, second=second)
                    elif what == "delete":
                        bucket.objects.pop(str(number), None)
                    elif what == "restart":
                        restarted = True
                    else:
                        bucket.notification = bucket.objects.get(str(number)) if what == "notification" else None
                        bucket.fail_after_pages = number if what == "broken listing" else None
                        await triggerer.list_once()
                        if what == "listing":
                            must.update(event.id for event in bucket.objects.values())
            reported.update(event.id for event in triggerer.stored["inbox"])
            if not restarted:
                return

    asyncio.run(history())
    assert must <= reported.keys()
    assert max(reported.values(), default=0) <= 1


async def test_what_the_process_held_before_is_left_out_of_garbage_collection(
    bucket: FakeBucket,
) -> None:
    producer._spare_collections.cache_clear()
    gc.unfreeze()
    try:
        async with FakeTriggerer(bucket, watcher()):
            assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
