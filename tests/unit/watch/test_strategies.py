# SPDX-License-Identifier: Apache-2.0
"""The strategies, rule by rule; whole histories of a watcher are in ``test_histories.py``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.watch.strategies import (
    STRATEGIES,
    CursorState,
    TimestampState,
    WatchOptions,
    WatchState,
    fingerprint,
)
from airflow_provider_oscar.watch.strategies.stability import (
    MOST_CHANGES,
    ChangeDetector,
    ReleaseQueue,
    StabilityFilter,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KINDS = [pytest.param(kind, id=name) for name, kind in STRATEGIES.items()]


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def written(key: str, modified: datetime = NOON, etag: str = "a", size: int | None = 1) -> ObjectEvent:
    return ObjectEvent(StoreType.S3, "c", "bucket", key, size, etag, "", modified)


def digests(events: list[ObjectEvent]) -> dict[int, ObjectEvent]:
    return {fingerprint(event): event for event in events}


class Poll:
    """One complete listing: what is new, and the state after all or some of it was emitted."""

    def __init__(
        self,
        state: WatchState,
        listing: list[ObjectEvent],
        *,
        now: datetime = NOON,
        options: WatchOptions | None = None,
        emit: Any = None,
    ) -> None:
        options = options or WatchOptions()
        listed: dict[int, object] = {}
        new, self.known = state.unknown(
            listing, [fingerprint(event) for event in listing], now=now, options=options, listed=listed
        )
        self.new = [event.key for event in new.values()]
        emitted = [digest for digest, event in new.items() if emit is None or emit(event.key)]
        self.state: Any = state.remembering(emitted).pruned(listed, now=now, options=options)


@pytest.mark.parametrize("kind", KINDS)
class TestEveryStrategy:
    def test_a_key_seen_twice_is_new_once(self, kind: type[WatchState]) -> None:
        first = Poll(kind(), [written("a")])
        assert first.new == ["a"]
        second = Poll(first.state, [written("a")])
        assert (second.new, second.known) == ([], 1)

    def test_an_object_on_two_pages_is_new_once(self, kind: type[WatchState]) -> None:
        assert Poll(kind(), [written("a"), written("a")]).new == ["a"]

    def test_an_overwritten_key_is_new_again_and_a_touched_one_is_not(self, kind: type[WatchState]) -> None:
        state = Poll(kind(), [written("a")]).state
        assert Poll(state, [written("a", etag="b")]).new == ["a"]
        assert Poll(state, [written("a", size=2)]).new == ["a"]
        assert Poll(state, [written("a", NOON + HOUR)]).new == []

    def test_without_entity_tag_the_time_tells_versions_apart(self, kind: type[WatchState]) -> None:
        state = Poll(kind(), [written("a", etag="")]).state
        assert Poll(state, [written("a", NOON + seconds(1), etag="")]).new == ["a"]

    def test_what_was_not_emitted_is_new_again(self, kind: type[WatchState]) -> None:
        state = Poll(kind(), [written("a"), written("b")], emit=lambda key: key == "b").state
        assert Poll(state, [written("a"), written("b")]).new == ["a"]

    def test_a_deleted_version_is_forgotten(self, kind: type[WatchState]) -> None:
        assert Poll(Poll(kind(), [written("a")]).state, []).state == kind()

    def test_the_state_survives_its_header(self, kind: type[WatchState]) -> None:
        options = WatchOptions(max_entries=2, lookback_keys=2)
        state = Poll(kind(), [written(f"k{age}", NOON - age * HOUR) for age in range(2, 8)], options=options).state
        assert state.header().state(state.seen) == state


@pytest.mark.parametrize("name", ["lookback", "max_entries", "lookback_keys"])
def test_negative_options_are_refused(name: str) -> None:
    value: Any = -HOUR if name == "lookback" else -1
    with pytest.raises(DefinitionError, match="may not be negative"):
        WatchOptions(**{name: value})


@given(st.text(alphabet=st.characters(), max_size=20))
def test_any_key_has_a_fingerprint_and_no_two_versions_share_it(key: str) -> None:
    assert fingerprint(written(key)) == fingerprint(written(key, NOON + timedelta(milliseconds=400)))
    assert len({fingerprint(written(key)), fingerprint(written(key + "x")), fingerprint(written(key, etag="b"))}) == 3


class TestWatermark:
    options = WatchOptions(lookback=HOUR, max_entries=3)

    def poll(self, state: WatchState, listing: list[ObjectEvent], **arguments: Any) -> Poll:
        return Poll(state, listing, options=self.options, **arguments)

    def test_nothing_is_forgotten_while_few_are_listed(self) -> None:
        old = [written(name, NOON - 100 * HOUR) for name in "abc"]
        state = self.poll(TimestampState(), old).state
        assert state.watermark is None
        assert self.poll(state, [*old, written("late", NOON - 1000 * HOUR)]).new == ["late"]

    def test_the_oldest_are_forgotten_when_there_are_more(self) -> None:
        listing = [written(f"k{age}", NOON - age * HOUR) for age in range(2, 8)]
        first = self.poll(TimestampState(), listing)
        assert (len(first.new), len(first.state.seen), first.state.watermark) == (6, 3, NOON - 5 * HOUR)
        again = self.poll(first.state, listing)
        assert (again.new, again.state) == ([], first.state)

    def test_nothing_within_the_lookback_is_forgotten_however_much_it_is(self) -> None:
        state = self.poll(TimestampState(), [written(f"k{number}", NOON - seconds(number)) for number in range(100)])
        assert (len(state.state.seen), state.state.watermark) == (100, None)
        assert state.state.exceeds_limit(self.options)

    def test_the_watermark_stays_before_what_was_not_emitted(self) -> None:
        listing = [written(f"k{age}", NOON - age * HOUR) for age in range(2, 9)]
        state = self.poll(TimestampState(), listing, emit=lambda key: key != "k7").state
        assert state.watermark == NOON - 8 * HOUR
        assert self.poll(state, listing).new == ["k7"]

    def test_objects_from_the_future_do_not_move_the_watermark(self) -> None:
        listing = [written(f"k{number}", NOON + number * HOUR) for number in range(1000, 1010)]
        state = self.poll(TimestampState(), listing).state
        assert state.watermark is None
        assert self.poll(state, [*listing, written("now")]).new == ["now"]

    def test_when_the_clock_steps_back_new_objects_are_still_seen(self) -> None:
        listing = [written(f"k{age}", NOON - age * HOUR) for age in range(2, 8)]
        state = self.poll(TimestampState(), listing).state
        earlier = NOON - 6 * HOUR
        second = self.poll(state, [*listing, written("new", earlier)], now=earlier)
        # Forgotten versions between the two clocks come a second time; remembered ones do not.
        assert sorted(second.new) == ["k5", "k6", "new"]
        assert self.poll(second.state, [*listing, written("new", earlier)], now=earlier).new == []

    def test_the_watermark_does_not_fall_while_more_is_forgotten(self) -> None:
        listing = [written(f"k{age}", NOON - age * HOUR) for age in range(5, 12)]
        first = self.poll(TimestampState(watermark=NOON - 2 * HOUR), listing)
        assert first.new == []
        assert first.state.watermark == NOON - 2 * HOUR
        assert self.poll(first.state, listing).new == []


class TestCursor:
    options = WatchOptions(lookback_keys=2)

    def poll(self, state: WatchState, names: str | list[str], **arguments: Any) -> Poll:
        return Poll(state, [written(name) for name in names], options=self.options, **arguments)

    def test_the_cursor_stays_some_keys_behind_the_last(self) -> None:
        first = self.poll(CursorState(), "abcde")
        assert (first.state.start_after, len(first.state.seen)) == ("c", 2)
        again = self.poll(first.state, "abcde")
        assert (again.new, again.state) == ([], first.state)
        assert first.state.covers("c")
        assert not first.state.covers("d")

    def test_a_late_key_among_the_last_ones_is_new_and_an_earlier_one_is_not(self) -> None:
        state = self.poll(CursorState(), "abcde").state
        assert self.poll(state, ["a", "b", "bb", "c", "d", "dd", "e"]).new == ["dd"]

    def test_the_cursor_stays_before_what_was_not_emitted(self) -> None:
        state = self.poll(CursorState(), "abcdefgh", emit=lambda key: key != "c").state
        assert state.start_after == "b"
        assert self.poll(state, "abcdefgh").new == ["c"]

    def test_a_listing_in_no_order_moves_no_cursor(self) -> None:
        state = self.poll(CursorState(), "hgfedcba").state
        assert state.start_after == ""
        assert self.poll(state, "hgfeAdcba").new == ["A"]

    def test_keys_are_compared_as_stores_sort_them(self) -> None:
        state = Poll(CursorState(), [written("\uffff")], options=WatchOptions(lookback_keys=0)).state
        assert Poll(state, [written("\U00010000")]).new == ["\U00010000"]


class TestStabilityFilter:
    quiet = seconds(10)

    def release(
        self, state: StabilityFilter, events: list[ObjectEvent], now: datetime = NOON
    ) -> tuple[StabilityFilter, list[str]]:
        state, released = state.release(digests(events), now=now, quiet_period=self.quiet)
        return state, [event.key for event in released.values()]

    def test_an_object_is_released_when_it_stopped_changing(self) -> None:
        state, released = self.release(StabilityFilter(), [written("a")])
        assert released == []
        state, released = self.release(state, [written("a")], NOON + seconds(9))
        assert released == []
        assert self.release(state, [written("a")], NOON + seconds(10))[1] == ["a"]

    def test_growth_begins_the_wait_again(self) -> None:
        state, _ = self.release(StabilityFilter(), [written("a", size=1)])
        assert self.release(state, [written("a", size=2)], NOON + seconds(10))[1] == []

    def test_what_is_gone_is_forgotten(self) -> None:
        state, _ = self.release(StabilityFilter(), [written("a")])
        assert self.release(state, [])[0] == StabilityFilter()

    def test_a_clock_that_steps_back_delays_and_does_not_release_early(self) -> None:
        state, _ = self.release(StabilityFilter(), [written("a")])
        state, released = self.release(state, [written("a")], NOON - HOUR)
        assert released == []
        assert self.release(state, [written("a")], NOON - HOUR + self.quiet)[1] == ["a"]


class TestChangeDetector:
    def listings(self, events: list[ObjectEvent]) -> list[bool]:
        """Whether the one object was released, listing by listing."""
        detector = ChangeDetector()
        seen: set[int] = set()
        released = []
        for event in events:
            detector.begin()
            passed = detector.stable([(fingerprint(event), event)] if fingerprint(event) not in seen else [])
            seen |= passed.keys()
            released.append(bool(passed))
        return released

    def test_an_object_that_is_another_version_at_every_look_is_held_back(self) -> None:
        flickering = [written("a", NOON + seconds(number), etag="") for number in range(20)]
        assert sum(self.listings(flickering)) == MOST_CHANGES

    def test_so_is_one_whose_entity_tag_is_made_up_at_every_look(self) -> None:
        assert sum(self.listings([written("a", etag=f"t{number}") for number in range(20)])) == MOST_CHANGES

    def test_it_is_released_when_two_listings_agree(self) -> None:
        events = [written("a", etag=f"t{number}") for number in range(8)] + [written("a", etag="t7")]
        assert self.listings(events)[-2:] == [False, True]

    def test_an_object_that_really_grows_is_released_each_time(self) -> None:
        assert all(self.listings([written("a", etag=f"t{number}", size=number) for number in range(20)]))

    def test_overwriting_now_and_then_is_not_flickering(self) -> None:
        events = [written("a", etag=f"t{number // 2}") for number in range(40)]
        assert sum(self.listings(events)) == 20


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 5))
def test_what_is_released_is_taken_oldest_first_and_once_in_parts(ages: list[int], most: int) -> None:
    queue, released = ReleaseQueue(), [written(str(n), NOON + seconds(age)) for n, age in enumerate(ages)]
    queue.add(digests(released[::2]))
    queue.add(digests(released))  # as the next listing shows them once more
    parts = []
    while queue:
        parts.append(list(queue.take(most).values()))
    assert all(len(part) == most for part in parts[:-1])
    assert [event for part in parts for event in part] == sorted(released, key=lambda each: (each.modified, each.key))
