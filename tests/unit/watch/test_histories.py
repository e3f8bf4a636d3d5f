# SPDX-License-Identifier: Apache-2.0
"""The promise of a watcher, over any history of a store; it is the production watcher and its state store that run.

A history is a random interleaving of uploads, overwrites, deletions, re-creations, equal timestamps, clock steps
of up to a day, listings that break off, changes of the filter, and crashes before or after the events of a page were
stored.

Promise: a version that two consecutive complete polls list has been emitted by the second; it is emitted again
after a crash until it was stored; and no version is emitted twice unless it was not stored before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from airflow_provider_oscar.core.filters import ObjectFilter
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.watch.policy import Policy
from airflow_provider_oscar.watch.source import Page
from airflow_provider_oscar.watch.state_store import StateIdentity, WatchStateStore
from airflow_provider_oscar.watch.strategies import Start, WatchOptions
from airflow_provider_oscar.watch.watcher import Watcher
from tests.unit.watch.conftest import FakeStore

START = datetime(2026, 3, 1, tzinfo=UTC)
PLACE = ("s3", "c", "b", "")


class History(RuleBasedStateMachine):
    """A store, a watcher, and what the watcher owes."""

    strategy = "timestamp"
    options = WatchOptions(lookback=timedelta(hours=1), max_entries=20_000)
    exactly_once = True
    key_names = st.sampled_from([f"in/{name}" for name in "abcdefgh"])

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.states = FakeStore()
        self.clock = START
        self.store: dict[str, ObjectEvent] = {}
        self.writes = 0
        self.emitted: Counter[str] = Counter()
        self.unstored: set[str] = set()
        self.listed_before: set[str] = set()
        self.baseline: set[str] = set()
        self.filters = 0
        self.start = Start.ALL

    def teardown(self) -> None:
        self.runner.close()

    @initialize(start=st.sampled_from([Start.NOW, Start.ALL]), names=st.sets(key_names, max_size=4))
    def begin(self, start: Start, names: Any) -> None:
        for name in names:
            self.upload(name, 0)
        self.start = start
        self.baseline = {event.id for event in self.store.values()} if start is Start.NOW else set()
        self.open()
        self.poll(pages=1)

    def open(self) -> None:
        """Start a watcher from what is stored."""
        # The filters differ in words and not in what they let pass.
        accepts: Callable[[ObjectEvent], bool] = ObjectFilter(regex="in/" + "(|x)" * self.filters).accepts
        policy = Policy(accepts, self.start, self.options, strategy=self.strategy)
        identity = StateIdentity(location=PLACE, choice=f"filter {self.filters}")
        state_store = WatchStateStore("inbox", identity, store=self.states.accessor(name="inbox"))
        self.watcher = Watcher("a watcher", policy, state_store)

    @rule(name=key_names, age=st.sampled_from([0, 0, 0, 5, 3000, 100_000, -100_000]))
    def upload(self, name: str, age: int) -> None:
        """Write or overwrite; multipart uploads are dated back, and a few dates lie in the future."""
        self.writes += 1
        modified = self.clock - timedelta(seconds=age)
        self.store[name] = ObjectEvent(StoreType.S3, "c", "b", name, self.writes, f"e{self.writes}", "", modified)

    @rule(count=st.integers(4, 6), age=st.sampled_from([0, 4000, 8000]))
    def upload_many(self, count: int, age: int) -> None:
        """Write several at once, some with equal times."""
        for number, name in enumerate("abcdef"[:count]):
            self.upload(f"in/{name}", age + number // 2)

    @rule(name=key_names)
    def touch(self, name: str) -> None:
        """Only the time of an object changes, which does not make another version."""
        if name in self.store:
            old = self.store[name]
            self.store[name] = ObjectEvent(StoreType.S3, "c", "b", name, old.size, old.etag, "", self.clock)

    @rule(name=key_names)
    def delete(self, name: str) -> None:
        self.store.pop(name, None)

    @rule(step=st.sampled_from([0.1, 1, 10, 600, 7200]))
    def time_passes(self, step: float) -> None:
        self.clock += timedelta(seconds=step)

    @rule(step=st.sampled_from([1, 600, 3600, 3 * 3600, 86400]))
    def clock_steps_back(self, step: float) -> None:
        self.clock -= timedelta(seconds=step)

    @rule(pages=st.integers(1, 4))
    def poll(self, pages: int) -> None:
        """List page by page; all is stored."""
        self.listing(pages, None)
        listed = {event.id for event in self.store.values()}
        missed = (listed & self.listed_before) - self.emitted.keys() - self.baseline
        assert not missed, f"never emitted: {missed}"
        assert not self.unstored & listed, "what was not stored was not emitted again"
        self.listed_before = listed
        self.baseline &= (
            listed  # a version that disappears is forgotten; if the very same one came back it would be new
        )

    @rule(pages=st.integers(1, 4), crash=st.integers(0, 3), stored=st.booleans())
    def crash_in_a_listing(self, pages: int, crash: int, stored: bool) -> None:
        """The triggerer dies after a page, whose events were stored or not."""
        self.listing(pages, crash, stored=stored)
        self.open()

    @rule(pages=st.integers(1, 4), cut=st.integers(0, 3))
    def listing_breaks_off(self, pages: int, cut: int) -> None:
        self.listing(pages, cut)

    @rule()
    def restart(self) -> None:
        self.open()

    @rule()
    def change_a_word_of_the_filter(self) -> None:
        self.filters += 1
        self.open()

    @rule(names=st.lists(key_names, min_size=1, max_size=3), filter_changes=st.booleans())
    def poll_upload_and_poll_twice(self, names: list[str], filter_changes: bool) -> None:
        """What a watcher mostly sees; the promise is about the second of two polls."""
        self.poll(pages=1)
        for name in names:
            self.upload(name, 0)
        if filter_changes:
            self.change_a_word_of_the_filter()
        self.poll(pages=2)
        self.poll(pages=3)

    @rule(step=st.sampled_from([1, 3600, 3 * 3600, 86400]), name=key_names)
    def clock_steps_back_between_polls(self, step: float, name: str) -> None:
        self.poll(pages=1)
        self.clock_steps_back(step)
        self.poll_upload_and_poll_twice([name], False)

    def listing(self, pages: int, end_after: int | None, *, stored: bool = True) -> None:
        """Run the watcher over a listing, or over its first pages; ``stored`` is about the last of those."""
        shown = sorted(self.store.values(), key=lambda event: event.key)
        size = max(1, -(-len(shown) // pages))
        batches = [shown[at : at + size] for at in range(0, len(shown), size)] or [[]]
        for number, batch in enumerate(batches):
            if end_after is not None and number > end_after:
                return
            last = number == len(batches) - 1 and end_after is None
            page = Page(batch, first=number == 0, last=last, server_time=self.clock)
            keeps = stored or number != end_after
            self._note(self.runner.run(self._process(page, keeps)), keeps)

    async def _process(self, page: Page, stored: bool) -> list[ObjectEvent]:
        events = list(await self.watcher.process(page))
        await self.watcher.commit(page)
        if stored:
            for commit in page.commits.values():
                await commit()
        return events

    def _note(self, events: list[ObjectEvent], stored: bool) -> None:
        for event in events:
            if self.exactly_once and event.id in self.emitted:
                assert event.id in self.unstored, f"emitted twice: {event.key}"
            self.emitted[event.id] += 1
            (self.unstored.discard if stored else self.unstored.add)(event.id)


class SnapshotHistory(History):
    strategy = "snapshot"


class CrowdedHistory(History):
    """More objects than may be remembered: everything dated within the look-back of the poll's clock is still owed."""

    options = WatchOptions(lookback=timedelta(hours=1), max_entries=1)
    exactly_once = False

    @rule(pages=st.integers(1, 4))
    def poll(self, pages: int) -> None:
        limit = self.clock - self.options.lookback
        owed = {event.id for event in self.store.values() if event.modified > limit}
        self.listed_before = owed & self.listed_before
        self.unstored &= owed
        super().poll(pages)
        self.listed_before = owed


class CursorHistory(History):
    """Keys rise, up to a disorder smaller than the look-back."""

    strategy = "cursor"
    options = WatchOptions(lookback_keys=6)

    @initialize(start=st.sampled_from([Start.NOW, Start.ALL]), names=st.just(()))
    def begin(self, start: Start, names: Any) -> None:
        self.counter = 0
        super().begin(start, names)

    @rule(name=History.key_names, age=st.sampled_from([0, 3000, -100_000]), disorder=st.integers(0, 3))
    def upload(self, name: str, age: int, disorder: int = 0) -> None:
        self.counter += 2
        key = f"in/{self.counter - 2 * disorder + (1 if disorder else 0):08}"
        if key not in self.store:
            super().upload(key, age)

    @rule(back=st.integers(0, 3))
    def overwrite_a_recent_key(self, back: int) -> None:
        if len(self.store) > back:
            super().upload(sorted(self.store)[-1 - back], 0)

    @rule(count=st.just(4), age=st.just(0))
    def upload_many(self, count: int, age: int) -> None:
        for _ in range(count):
            self.upload("", 0)

    @rule()
    def touch(self) -> None:  # type: ignore[override]
        """Old keys are not written again in such a layout."""

    @rule(oldest=st.booleans())
    def delete(self, oldest: bool) -> None:  # type: ignore[override]
        if self.store:
            self.store.pop(sorted(self.store)[0 if oldest else -1])


HISTORIES = [History, SnapshotHistory, CrowdedHistory, CursorHistory]


@pytest.mark.parametrize("history", HISTORIES, ids=[history.__name__ for history in HISTORIES])
def test_no_version_is_lost_and_none_repeated_that_was_stored(history: type[History]) -> None:
    test_case = history.TestCase
    test_case.settings = settings(stateful_step_count=25, suppress_health_check=list(HealthCheck))
    test_case("runTest").runTest()


def test_the_cursor_really_moves_in_these_histories() -> None:
    history = CursorHistory()
    history.begin(start=Start.ALL, names=())
    for _ in range(12):
        history.upload("", 0)
    for _ in range(3):
        history.poll(pages=3)
    assert any(value.get("start_after") for value in history.states.read().values())
    history.teardown()
