# SPDX-License-Identifier: Apache-2.0
"""The promise of the memories, over any history of a store.

A history is a random interleaving of uploads, overwrites, deletions, re-creations, equal timestamps, clock steps
of up to a day, listings that break off, restarts from the stored state, and acknowledgements that are lost or late.

Promise: a version that two consecutive complete polls list has been emitted by the second; it is emitted again
at every poll until it is acknowledged; and no version is emitted twice unless its acknowledgement was lost.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from airflow_provider_oscar.core.objects import ObjectEvent, Source
from airflow_provider_oscar.watch.strategies import CursorState, WatchOptions, from_chunks, initial

START = datetime(2026, 3, 1, tzinfo=UTC)
#: Which acknowledgements are lost: none, all, every second one.
LOSSES = st.sampled_from([0, 0, 1, 2])


class History(RuleBasedStateMachine):
    """A store, a watcher, and what the watcher owes."""

    algorithm = "timestamp"
    options = WatchOptions(lookback=timedelta(hours=1), remember=20_000)
    exactly_once = True
    key_names = st.sampled_from([f"in/{name}" for name in "abcdefgh"])

    def __init__(self) -> None:
        super().__init__()
        self.clock = START
        self.store: dict[str, ObjectEvent] = {}
        self.writes = 0
        self.emitted: Counter[str] = Counter()
        self.unacknowledged: set[str] = set()
        self.listed_before: set[str] = set()
        self.baseline: set[str] = set()
        self.late: list[ObjectEvent] = []
        self.lost: set[str] = set()

    @initialize(policy=st.sampled_from(["now", "all"]), names=st.sets(key_names, max_size=4))
    def begin(self, policy, names):
        for name in names:
            self.upload(name, 0)
        listing = list(self.store.values())
        self.state = initial(self.algorithm, start=policy, listing=listing, now=self.clock, options=self.options)
        self.baseline = {event.id for event in listing} if policy == "now" else set()

    @rule(name=key_names, age=st.sampled_from([0, 0, 0, 5, 3000, 100_000, -100_000]))
    def upload(self, name, age):
        """Write or overwrite; multipart uploads are dated back, and a few dates lie in the future."""
        self.writes += 1
        modified = self.clock - timedelta(seconds=age)
        self.store[name] = ObjectEvent(Source.S3, "c", "b", name, 1, f"e{self.writes}", "", modified)

    @rule(count=st.integers(4, 6), age=st.sampled_from([0, 4000, 8000]))
    def upload_many(self, count, age):
        """Write several at once, some with equal times."""
        for number, name in enumerate("abcdef"[:count]):
            self.upload(f"in/{name}", age + number // 2)

    @rule(name=key_names)
    def touch(self, name):
        """Write the same content again: only the time differs."""
        if name in self.store:
            old = self.store[name]
            self.store[name] = ObjectEvent(Source.S3, "c", "b", name, 1, old.etag, "", self.clock)

    @rule(name=key_names)
    def delete(self, name):
        self.store.pop(name, None)

    @rule(step=st.sampled_from([0.1, 1, 10, 600, 7200]))
    def time_passes(self, step):
        self.clock += timedelta(seconds=step)

    @rule(step=st.sampled_from([1, 600, 3600, 3 * 3600, 86400]))
    def clock_steps_back(self, step):
        self.clock -= timedelta(seconds=step)

    @rule(lost=LOSSES, late=st.booleans(), pages=st.integers(1, 4))
    def poll(self, lost, late, pages):
        """List page by page, emit, acknowledge now, later or never."""
        listing = sorted(self.store.values(), key=lambda event: event.key)
        size = max(1, -(-len(listing) // pages))
        fresh, sighted, owed_again = [], {}, self.lost
        for start in range(0, len(listing), size):
            page = listing[start : start + size]
            fresh += self.state.candidates(page, now=self.clock, options=self.options)
            sighted |= self.state.sight(page)
        acknowledged = self._emit(fresh, lost=lost, late=late)
        self.state = self.state.advance(sighted, acknowledged, now=self.clock, options=self.options)
        listed = {event.id for event in listing}
        assert not (owed_again & listed) - {event.id for event in fresh}, "an unacknowledged version was given up"
        missed = (listed & self.listed_before) - self.emitted.keys() - self.baseline
        assert not missed, f"never emitted: {missed}"
        self.listed_before = listed
        # A version that disappears is forgotten; if the very same one came back it would be new.
        for gone in self.baseline - listed:
            self.baseline.discard(gone)

    @rule(lost=LOSSES, late=st.booleans(), names=st.lists(key_names, min_size=1, max_size=3))
    def poll_upload_and_poll_twice(self, lost, late, names):
        """What a watcher mostly sees; the promise is about the second of two polls."""
        self.poll(lost=0, late=False, pages=1)
        for name in names:
            self.upload(name, 0)
        self.poll(lost=lost, late=late, pages=2)
        self.poll(lost=0, late=False, pages=3)

    @rule(count=st.integers(4, 6), age=st.sampled_from([0, 4000, 8000]), lost=LOSSES)
    def many_objects_and_lost_acknowledgements(self, count, age, lost):
        self.upload_many(count, age)
        self.poll(lost=lost, late=False, pages=2)
        self.poll(lost=0, late=False, pages=1)

    @rule(step=st.sampled_from([1, 3600, 3 * 3600, 86400]), name=key_names)
    def clock_steps_back_between_polls(self, step, name):
        self.poll(lost=0, late=False, pages=1)
        self.clock_steps_back(step)
        self.poll_upload_and_poll_twice(0, False, [name])

    @rule(cut=st.integers(0, 8), lost=LOSSES)
    def listing_breaks_off(self, cut, lost):
        listing = sorted(self.store.values(), key=lambda event: event.key)[:cut]
        fresh = self.state.candidates(listing, now=self.clock, options=self.options)
        acknowledged = self._emit(fresh, lost=lost, late=False)
        self.state = self.state.advance(listing, acknowledged, now=self.clock, options=self.options, complete=False)

    @rule()
    def restart(self):
        """The triggerer is killed: what was not stored is gone, late acknowledgements with it."""
        self.unacknowledged |= {event.id for event in self.late}
        self.late = []
        self.state = from_chunks(self.state.to_chunks(limit=1000))

    @precondition(lambda self: self.late)
    @rule()
    def late_acknowledgements_arrive(self):
        self.state = self.state.with_emitted(self.late)
        # What was emitted a second time meanwhile, and lost then, is acknowledged by the first.
        self.lost -= {event.id for event in self.late}
        self.late = []

    def _emit(self, fresh, *, lost, late):
        for event in fresh:
            waiting = {other.id for other in self.late}
            if self.exactly_once and event.id in self.emitted:
                assert event.id in self.unacknowledged | waiting, f"emitted twice: {event.key}"
            self.emitted[event.id] += 1
        missing = fresh[::lost] if lost else []
        fresh = [event for event in fresh if event not in missing]
        ids = {event.id for event in missing}
        self.unacknowledged |= ids
        self.lost = (self.lost | ids) - {event.id for event in fresh}
        if late:
            self.late += fresh
            return []
        return fresh


class SnapshotHistory(History):
    algorithm = "snapshot"


class CrowdedHistory(History):
    """More objects than may be remembered: everything dated within the look-back of the poll's clock is still owed."""

    options = WatchOptions(lookback=timedelta(hours=1), remember=1)
    exactly_once = False

    @rule(lost=LOSSES, late=st.booleans(), pages=st.integers(1, 4))
    def poll(self, lost, late, pages):
        limit = self.clock - self.options.lookback
        owed = {event.id for event in self.store.values() if event.modified > limit}
        kept = self.listed_before
        self.listed_before = owed & kept
        super().poll(lost, late, pages)
        self.listed_before = owed


class CursorHistory(History):
    """Keys rise, up to a disorder smaller than the look-back."""

    algorithm = "cursor"
    options = WatchOptions(lookback_keys=6)

    @initialize(policy=st.sampled_from(["now", "all"]), names=st.just(()))
    def begin(self, policy, names):
        self.counter = 0
        super().begin(policy, names)

    @rule(name=History.key_names, age=st.sampled_from([0, 3000, -100_000]), disorder=st.integers(0, 3))
    def upload(self, name, age, disorder=0):
        self.counter += 2
        key = f"in/{self.counter - 2 * disorder + (1 if disorder else 0):08}"
        if key not in self.store:
            super().upload(key, age)

    @rule(back=st.integers(0, 3))
    def overwrite_a_recent_key(self, back):
        if len(self.store) > back:
            super().upload(sorted(self.store)[-1 - back], 0)

    @rule(count=st.just(4), age=st.just(0))
    def upload_many(self, count, age):
        for _ in range(count):
            self.upload("", 0)

    @rule()
    def touch(self):
        """Old keys are not written again in such a layout."""

    @rule(oldest=st.booleans())
    def delete(self, oldest):
        if self.store:
            self.store.pop(sorted(self.store)[0 if oldest else -1])


HISTORIES = [History, SnapshotHistory, CrowdedHistory, CursorHistory]


@pytest.mark.parametrize("history", HISTORIES, ids=[history.__name__ for history in HISTORIES])
def test_no_version_is_lost_and_none_repeated_without_a_lost_acknowledgement(history):
    test_case = history.TestCase
    test_case.settings = settings(
        max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
    test_case("runTest").runTest()


def test_the_cursor_really_moves_in_these_histories():
    history = CursorHistory()
    history.begin(policy="all", names=())
    for _ in range(12):
        history.upload("", 0)
    history.poll(lost=0, late=False, pages=3)
    assert isinstance(history.state, CursorState)
    assert history.state.start_after
