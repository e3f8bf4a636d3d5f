# SPDX-License-Identifier: Apache-2.0
"""What a watcher may choose: how it remembers, what says that files are complete, and listing in parallel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.filters import ObjectFilter
from airflow_provider_oscar.hooks.connections import Connections
from airflow_provider_oscar.hooks.s3.listing import ListingPage
from airflow_provider_oscar.triggers.objects import DCacheNewObjectTrigger, Notifications, S3NewObjectTrigger
from airflow_provider_oscar.watch.sources.notified import NotifiedSource
from airflow_provider_oscar.watch.sources.s3 import S3Source
from tests.unit.watch.conftest import NOON, FakeBucket, FakeStore, FakeTriggerer, listed, use_fakes


def watcher(asset: str = "inbox", **arguments: Any) -> S3NewObjectTrigger:
    defaults = {"conn_id": "store", "bucket": "bucket", "start": "all"}
    defaults |= {} if "filter" in arguments else {"ignore": ()}
    return S3NewObjectTrigger(asset_name=asset, **defaults | arguments)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


class OrderedBucket(FakeBucket):
    """Lists after a key when it is asked to."""

    after = ""

    def resume_after(self, key: str) -> None:
        self.after = key

    async def full_listing(self) -> Any:
        whole, after = self.objects, self.after
        self.objects = {key: event for key, event in whole.items() if key > after}
        async for page in super().full_listing():
            page.after = after
            self.objects = whole
            yield page


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, store: FakeStore) -> OrderedBucket:
    bucket = OrderedBucket({})
    use_fakes(monkeypatch, bucket, store)
    return bucket


def fill(bucket: FakeBucket, *keys: str, version: int = 0) -> None:
    bucket.objects.update({key: listed(key, version) for key in keys})


@pytest.mark.parametrize("regex", ["", ".*"])
async def test_what_a_former_asset_was_told_last_is_reported_once_more(
    bucket: OrderedBucket, store: FakeStore, regex: str
) -> None:
    bucket.objects |= {"old": listed("old", second=-1), "late": listed("late", second=1)}
    async with FakeTriggerer(bucket, watcher()) as triggerer:
        await triggerer.list_once()
    store.former = "inbox"
    async with FakeTriggerer(bucket, watcher("other", regex=regex)) as successor:
        fill(bucket, "new")
        await successor.list_once()
        await successor.list_once()
    assert triggerer.keys() == ["old", "late"]
    assert successor.keys("other") == ["late", "new"]


@pytest.mark.parametrize("other", ["inbox", "other"], ids=["in one asset", "with an asset for each filter"])
@pytest.mark.parametrize("algorithm", ["timestamp", "snapshot", "cursor"])
async def test_a_filter_that_comes_back_hides_nothing_that_came_meanwhile(
    bucket: OrderedBucket, store: FakeStore, algorithm: str, other: str
) -> None:
    store.former = "inbox"
    fill(bucket, "a.h5")
    async with FakeTriggerer(bucket, watcher(suffix=".h5", algorithm=algorithm)) as first:
        await first.list_once()
        await first.list_once()
    fill(bucket, "b.h5", "x.h5")
    async with FakeTriggerer(bucket, watcher(other, regex="[ab][.]h5$", algorithm=algorithm)) as second:
        await second.list_once()
        await second.list_once()
    fill(bucket, "z.h5")
    async with FakeTriggerer(bucket, watcher(suffix=".h5", algorithm=algorithm)) as third:
        await third.list_once()
        await third.list_once()
    assert first.keys() == ["a.h5"]
    assert "b.h5" in second.keys(other)
    assert "x.h5" not in second.keys(other)
    # b.h5 had its run, by which the DAG knows it; x.h5 only this filter wants.
    assert third.keys() == ["b.h5", "x.h5", "z.h5"]


@pytest.mark.parametrize("algorithm", ["timestamp", "snapshot", "cursor"])
async def test_each_version_is_reported_once_whatever_the_memory(
    bucket: OrderedBucket, store: FakeStore, algorithm: str
) -> None:
    fill(bucket, "a", "b")
    async with FakeTriggerer(bucket, watcher(algorithm=algorithm)) as triggerer:
        fill(bucket, "c")
        fill(bucket, "b", version=1)
        await triggerer.list_once()
    fill(bucket, "d")
    async with FakeTriggerer(bucket, watcher(algorithm=algorithm)) as successor:
        await successor.list_once()
    assert (triggerer.keys(), successor.keys()) == (["a", "b", "b", "c"], ["d"])
    headers = [json.loads(value) for value in store.values.values()]
    assert {header["strategy"] for header in headers if "strategy" in header} == {algorithm}


async def test_a_cursor_begins_listings_near_the_end_and_a_newcomer_gets_a_whole_one(bucket: OrderedBucket) -> None:
    bucket.page_size = 2000
    fill(bucket, *(f"{number:05}" for number in range(1500)))
    early, late = watcher("early", algorithm="cursor"), watcher("late", algorithm="cursor")
    async with FakeTriggerer(bucket, early) as triggerer:
        await triggerer.list_once()
        assert bucket.after == "00499"
        fill(bucket, "01500")
        await triggerer.list_once()
        assert len(triggerer.keys("early")) == 1501
    async with FakeTriggerer(bucket, early, late) as both:
        for _ in range(3):
            await both.list_once()
        assert both.keys("early") == []
        assert len(both.keys("late")) == 1501
        assert bucket.after == "00500"


async def test_files_wait_for_the_sentinel_of_their_directory(bucket: OrderedBucket) -> None:
    fill(bucket, "run1/a", "run1/b", "run2/c")
    async with FakeTriggerer(bucket, watcher(sentinel="_SUCCESS")) as triggerer:
        await triggerer.list_once()
        assert triggerer.keys() == []
        fill(bucket, "run1/_SUCCESS")
        await triggerer.list_once()
        assert triggerer.keys() == ["run1/a", "run1/b"]
        fill(bucket, "run1/late", "run2/_SUCCESS")
        await triggerer.list_once()
        await triggerer.list_once()
    assert triggerer.keys() == ["run1/a", "run1/b", "run1/late", "run2/c"]


async def test_a_file_waits_for_its_own_sentinel_even_if_it_was_there_first(bucket: OrderedBucket) -> None:
    fill(bucket, "old.h5", "old.h5.done", "waiting.h5")
    choices = {"sentinel": ".done", "suffix": ".h5", "start": "now"}
    async with FakeTriggerer(bucket, watcher(**choices)) as triggerer:
        fill(bucket, "waiting.h5.done", "new.h5")
        await triggerer.list_once()
    assert triggerer.keys() == ["waiting.h5"]


@pytest.mark.parametrize("algorithm", ["timestamp", "snapshot", "cursor"])
async def test_what_a_sentinel_releases_at_once_is_handed_over_and_remembered_in_parts(
    bucket: OrderedBucket, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    monkeypatch.setattr("airflow_provider_oscar.watch.watcher.OBJECTS_PER_PAGE", 3)
    names = [f"run/{number:02}" for number in range(10)]
    fill(bucket, *names, "run/_SUCCESS")
    choices = {"sentinel": "_SUCCESS", "algorithm": algorithm}
    unstored = FakeTriggerer(bucket, watcher(**choices))
    unstored.storing = False
    async with unstored:
        assert unstored.emitted == 3, "Airflow need not store more at a time than one page leads to"
    async with FakeTriggerer(bucket, watcher(**choices)) as triggerer:
        assert (triggerer.keys(), bucket.listings) == (names, 2), "without another listing"
        fill(bucket, "run/late")
        await triggerer.list_once()
        assert triggerer.keys() == [*names, "run/late"]
    async with FakeTriggerer(bucket, watcher(**choices)) as successor:
        await successor.list_once()
    assert successor.keys() == []


async def test_what_waits_for_its_part_when_the_place_is_listed_again_is_reported_once(
    bucket: OrderedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_oscar.watch.watcher.OBJECTS_PER_PAGE", 3)
    bucket.request_page = lambda: None  # type: ignore[method-assign]  # a listing is always sooner
    names = [f"run/{number:02}" for number in range(10)]
    fill(bucket, *names, "run/_SUCCESS")
    async with FakeTriggerer(bucket, watcher(sentinel="_SUCCESS")) as triggerer:
        assert triggerer.keys() == names[:3]
        del bucket.objects["run/05"]
        for _ in range(4):
            await triggerer.list_once()
    assert triggerer.keys() == [each for each in names if each != "run/05"]


async def test_a_hint_of_a_sentinel_calls_for_a_listing(bucket: OrderedBucket) -> None:
    called: list[bool] = []
    bucket.request_full_listing = lambda: called.append(True)  # type: ignore[method-assign]
    fill(bucket, "a.h5")
    async with FakeTriggerer(bucket, watcher(sentinel=".done")) as triggerer:
        for key, calls in (("b.h5", 0), ("a.h5.done", 1)):
            fill(bucket, key)
            bucket.notification = bucket.objects[key]
            await triggerer.list_once()
            assert (len(called), triggerer.keys()) == (calls, [])
        await triggerer.list_once()
    assert triggerer.keys() == ["a.h5"]


class FanOutHook:
    """Lists in parts, and may fail in between."""

    def __init__(self, *, fail: bool = False) -> None:
        self.fail = fail
        self.closed = False

    def close(self) -> None:
        """Nothing is held."""

    def list_fan_out(self, bucket: str, prefix: str, *, workers: int) -> Iterator[ListingPage]:
        try:
            yield ListingPage([listed("b")], [], "", NOON)
            if self.fail:
                raise TransientError("the store went away")
            yield ListingPage([listed("a")], [], "", NOON)
        finally:
            self.closed = True


async def test_a_fanned_out_listing_is_one_sweep() -> None:
    hook = FanOutHook()
    source = S3Source(
        conn_id="s", bucket="b", prefix="", interval=1, workers=4, connections=Connections("s3", lambda _: hook)
    )
    pages = [page async for page in source.full_listing()]
    assert [(len(page.events), page.first, page.last) for page in pages] == [
        (1, True, False), (1, False, False), (0, False, True),
    ]  # fmt: skip
    assert hook.closed


async def test_a_fanned_out_listing_that_breaks_off_is_no_sweep() -> None:
    hook = FanOutHook(fail=True)
    source = S3Source(
        conn_id="s", bucket="b", prefix="", interval=1, workers=4, connections=Connections("s3", lambda _: hook)
    )
    pages = source.full_listing()
    assert not (await anext(pages)).last
    with pytest.raises(TransientError, match="went away"):
        await anext(pages)
    assert hook.closed


def test_a_filter_says_the_same_as_the_keywords() -> None:
    chosen = ObjectFilter(suffix=".h5", min_size=5)
    one = S3NewObjectTrigger(asset_name="inbox", conn_id="store", bucket="b", filter=chosen)
    other = S3NewObjectTrigger(asset_name="inbox", conn_id="store", bucket="b", suffix=".h5", min_size=5)
    assert one.serialize() == other.serialize()


async def test_notifications_survive_the_database_and_choose_the_source() -> None:
    told = Notifications(kind="sqs", queue_url="https://sqs.eu-west-1.amazonaws.com/1/q")
    trigger = watcher(notifications=told)
    again = S3NewObjectTrigger(**json.loads(json.dumps(trigger.serialize()[1])))
    short = watcher(notifications={"queue_url": told.queue_url, "kind": "sqs"})
    assert again.arguments == trigger.arguments == short.arguments
    assert again.shared_stream_key() == short.shared_stream_key() != watcher().shared_stream_key()
    assert type(trigger.arguments.source()) is NotifiedSource
    assert type(watcher(fan_out=3).arguments.source()) is S3Source


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda: watcher(algorithm="guess"), "timestamp", id="odd algorithm"),
        pytest.param(
            lambda: DCacheNewObjectTrigger(asset_name="i", conn_id="d", path="/in", algorithm="cursor"),
            "expected 'timestamp' or 'snapshot'",
            id="cursor without order",
        ),
        pytest.param(lambda: watcher(algorithm="cursor", fan_out=2), "key order", id="cursor in parallel"),
        pytest.param(lambda: watcher(sentinel="a/b"), "without '/'", id="sentinel with path"),
        pytest.param(lambda: watcher(fan_out=0), "expected 1 to 16", id="no worker"),
        pytest.param(lambda: watcher(notifications={"kind": "pigeon"}), "expected 'sqs', 'minio", id="odd kind"),
        pytest.param(lambda: watcher(notifications={"kind": "sqs"}), "queue_url", id="no queue"),
        pytest.param(lambda: watcher(notifications={"queue": "q"}), "dictionary with kind", id="odd key"),
        pytest.param(lambda: watcher(notifications="sqs"), "dictionary with kind", id="no dictionary"),
        pytest.param(lambda: watcher(filter=ObjectFilter(prefix="in/")), "prefix", id="filter with prefix"),
        pytest.param(lambda: watcher(filter=ObjectFilter(), suffix=".h5"), "give one of both", id="filter twice"),
    ],
)
def test_a_wrong_choice_fails_in_the_dag_file(make: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        make()
