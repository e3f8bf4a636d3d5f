# SPDX-License-Identifier: Apache-2.0
"""The watcher's memories, rule by rule; the interleavings are in ``test_watermark_histories.py``."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent, Source
from airflow_provider_oscar.watch.strategies import (
    CursorState,
    Settling,
    SnapshotState,
    TimestampState,
    WatchOptions,
    WatchState,
    fingerprint,
    from_chunks,
    from_json,
    initial,
    poll,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
STATES = [pytest.param(kind, id=kind.algorithm) for kind in (SnapshotState, TimestampState, CursorState)]


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def written(key: str, modified: datetime = NOON, etag: str = "a", size: int | None = 1) -> ObjectEvent:
    return ObjectEvent(Source.S3, "c", "bucket", key, size, etag, "", modified)


def keys(events) -> list[str]:
    return [event.key for event in events]


@pytest.mark.parametrize("kind", STATES)
class TestEveryMemory:
    def test_a_key_seen_twice_is_emitted_once(self, kind):
        state, fresh = poll(kind(), [written("a")], now=NOON)
        assert keys(fresh) == ["a"]
        assert poll(state, [written("a")], now=NOON)[1] == []

    def test_new_versions_come_in_the_order_of_time_and_key(self, kind):
        listing = [written("a", NOON), written("c", NOON - seconds(5)), written("b", NOON - seconds(5))]
        assert keys(kind().candidates(listing, now=NOON)) == ["b", "c", "a"]

    def test_an_object_listed_twice_on_two_pages_is_emitted_once(self, kind):
        assert keys(kind().candidates([written("a"), written("a")], now=NOON)) == ["a"]

    def test_an_overwritten_key_is_emitted_again(self, kind):
        state, _ = poll(kind(), [written("a")], now=NOON)
        assert keys(poll(state, [written("a", etag="b")], now=NOON)[1]) == ["a"]
        assert keys(poll(state, [written("a", NOON + seconds(1))], now=NOON)[1]) == ["a"]

    def test_a_late_object_with_the_same_second_is_emitted(self, kind):
        state, _ = poll(kind(), [written("a")], now=NOON)
        assert keys(poll(state, [written("a"), written("b")], now=NOON)[1]) == ["b"]

    def test_an_emitted_version_without_acknowledgement_is_a_candidate_again(self, kind):
        state = kind().advance([written("a"), written("b")], [written("b")], now=NOON)
        assert keys(state.candidates([written("a"), written("b")], now=NOON)) == ["a"]

    def test_acknowledgement_can_come_after_the_listing(self, kind):
        state = kind().advance([written("a")], now=NOON).with_emitted([written("a")])
        assert state.candidates([written("a")], now=NOON) == []

    def test_a_deleted_version_is_forgotten(self, kind):
        state, _ = poll(kind(), [written("a")], now=NOON)
        state, _ = poll(state, [], now=NOON)
        assert state == kind()

    def test_an_incomplete_listing_forgets_nothing(self, kind):
        state, _ = poll(kind(), [written("a"), written("b")], now=NOON)
        state, fresh = poll(state, [written("c")], now=NOON, complete=False)
        assert keys(fresh) == ["c"]
        assert poll(state, [written("a"), written("b"), written("c")], now=NOON)[1] == []

    def test_what_was_acknowledged_during_a_listing_that_lacks_it_is_kept(self, kind):
        state = kind().advance([], [written("a")], now=NOON)
        assert state.candidates([written("a")], now=NOON) == []

    def test_pages_may_be_sighted_one_by_one(self, kind):
        pages = [[written("a"), written("b")], [written("c")]]
        sighted: dict = {}
        for page in pages:
            sighted |= kind().sight(page)
        everything = pages[0] + pages[1]
        assert kind().advance(sighted, everything, now=NOON) == kind().advance(everything, everything, now=NOON)

    def test_a_young_object_is_held_back_until_it_is_old_enough(self, kind):
        options = WatchOptions(min_age=seconds(30))
        state, fresh = poll(kind(), [written("a")], now=NOON + seconds(29), options=options)
        assert fresh == []
        assert keys(poll(state, [written("a")], now=NOON + seconds(30), options=options)[1]) == ["a"]

    def test_an_object_from_the_future_is_not_held_back(self, kind):
        options = WatchOptions(min_age=seconds(30))
        assert keys(kind().candidates([written("a", NOON + HOUR)], now=NOON, options=options)) == ["a"]

    def test_start_now_takes_the_first_listing_as_seen(self, kind):
        state = initial(kind.algorithm, start="now", listing=[written("a")], now=NOON)
        assert keys(poll(state, [written("a"), written("b")], now=NOON)[1]) == ["b"]

    def test_start_now_waits_for_a_complete_listing(self, kind):
        assert initial(kind.algorithm, start="now", listing=[written("a")], now=NOON, complete=False) is None

    def test_start_all_takes_nothing_as_seen(self, kind):
        assert initial(kind.algorithm, start="all", listing=[written("a")], now=NOON) == kind()

    def test_the_state_survives_json(self, kind):
        state, _ = poll(kind(), [written(f"k{number}") for number in range(50)], now=NOON)
        assert from_json(state.to_json()) == state
        assert from_json(kind().to_json()) == kind()

    @pytest.mark.parametrize("page", [dict, list], ids=["sighted", "listed"])
    def test_no_listing_is_no_error(self, kind, page):
        assert kind().advance(page(), now=NOON) == kind()


def test_the_base_class_is_no_memory():
    with pytest.raises(NotImplementedError):
        WatchState().sight([])
    with pytest.raises(NotImplementedError):
        WatchState().advance([], now=NOON)


@pytest.mark.parametrize(("algorithm", "start"), [("stamp", "now"), ("timestamp", "later")], ids=["algorithm", "start"])
def test_a_misspelt_policy_is_refused(algorithm, start):
    with pytest.raises(DefinitionError, match="cannot watch with"):
        initial(algorithm, start=start, now=NOON)


@pytest.mark.parametrize("name", ["lookback", "min_age", "remember", "lookback_keys"])
def test_negative_options_are_refused(name):
    value = -1 if name.startswith("rem") or name.endswith("keys") else -HOUR
    with pytest.raises(DefinitionError, match="may not be negative"):
        WatchOptions(**{name: value})


@given(st.text(alphabet=st.characters(), max_size=20))
def test_any_key_has_a_fingerprint_and_no_two_versions_share_it(key):
    assert fingerprint(written(key)) == fingerprint(written(key, NOON + timedelta(milliseconds=400)))
    assert len({fingerprint(written(key)), fingerprint(written(key + "x")), fingerprint(written(key, etag="b"))}) == 3


class TestTimestampHorizon:
    options = WatchOptions(lookback=HOUR, remember=3)

    def test_nothing_is_forgotten_while_few_are_listed(self):
        old = [written(name, NOON - 100 * HOUR) for name in "abc"]
        state, _ = poll(TimestampState(), old, now=NOON, options=self.options)
        assert state.horizon is None
        late = written("late", NOON - 1000 * HOUR)
        assert keys(poll(state, [*old, late], now=NOON, options=self.options)[1]) == ["late"]

    def test_the_oldest_are_forgotten_when_there_are_more(self):
        listing = [written(f"k{age}", NOON - age * HOUR) for age in range(2, 8)]
        state, fresh = poll(TimestampState(), listing, now=NOON, options=self.options)
        assert len(fresh) == 6
        assert len(state.seen) == 3
        assert state.horizon == NOON - 5 * HOUR
        assert poll(state, listing, now=NOON, options=self.options) == (state, [])

    def test_nothing_within_the_lookback_is_forgotten_however_much_it_is(self):
        listing = [written(f"k{number}", NOON - seconds(number)) for number in range(100)]
        state, _ = poll(TimestampState(), listing, now=NOON, options=self.options)
        assert len(state.seen) == 100
        assert state.horizon is None

    def test_the_horizon_stays_before_what_is_not_acknowledged(self):
        listing = [written(f"k{age}", NOON - age * HOUR) for age in range(2, 9)]
        rest = [event for event in listing if event.key != "k7"]
        state = TimestampState().advance(listing, rest, now=NOON, options=self.options)
        assert state.horizon == NOON - 8 * HOUR
        assert keys(state.candidates(listing, now=NOON, options=self.options)) == ["k7"]

    def test_objects_from_the_future_do_not_move_the_horizon(self):
        listing = [written(f"k{number}", NOON + number * HOUR) for number in range(1000, 1010)]
        state, _ = poll(TimestampState(), listing, now=NOON, options=self.options)
        assert state.horizon is None
        assert keys(poll(state, [*listing, written("now")], now=NOON, options=self.options)[1]) == ["now"]

    def test_when_the_clock_steps_back_new_objects_are_still_seen(self):
        listing = [written(f"k{age}", NOON - age * HOUR) for age in range(2, 8)]
        state, _ = poll(TimestampState(), listing, now=NOON, options=self.options)
        earlier = NOON - 6 * HOUR
        new = written("new", earlier)
        state, fresh = poll(state, [*listing, new], now=earlier, options=self.options)
        assert "new" in keys(fresh)
        # Forgotten versions between the two clocks come a second time; remembered ones do not.
        assert keys(fresh) == ["k6", "new", "k5"]
        assert poll(state, [*listing, new], now=earlier, options=self.options)[1] == []

    def test_a_broken_listing_after_a_clock_step_keeps_the_lower_horizon(self):
        state = TimestampState(horizon=NOON).advance([], now=NOON, options=self.options, complete=False)
        assert state.horizon == NOON - HOUR

    def test_the_horizon_does_not_fall_while_more_is_forgotten(self):
        state = TimestampState(horizon=NOON - 2 * HOUR)
        listing = [written(f"k{age}", NOON - age * HOUR) for age in range(5, 12)]
        assert state.candidates(listing, now=NOON, options=self.options) == []
        state = state.advance(listing, listing, now=NOON, options=self.options)
        assert state.horizon == NOON - 2 * HOUR
        assert state.candidates(listing, now=NOON, options=self.options) == []


class TestCursor:
    options = WatchOptions(lookback_keys=2)

    def test_the_cursor_stays_some_keys_behind_the_last(self):
        state, _ = poll(CursorState(), [written(name) for name in "abcde"], now=NOON, options=self.options)
        assert state.start_after == "c"
        assert len(state.seen) == 2
        assert poll(state, [written(name) for name in "abcde"], now=NOON, options=self.options) == (state, [])

    def test_a_late_key_among_the_last_ones_is_emitted_and_an_earlier_one_is_not(self):
        state, _ = poll(CursorState(), [written(name) for name in "abcde"], now=NOON, options=self.options)
        listing = [written(name) for name in ("a", "b", "bb", "c", "d", "dd", "e")]
        assert keys(poll(state, listing, now=NOON, options=self.options)[1]) == ["dd"]

    def test_the_cursor_stays_before_what_is_not_acknowledged(self):
        listing = [written(name) for name in "abcdefgh"]
        state = CursorState().advance(
            listing, [event for event in listing if event.key != "c"], now=NOON, options=self.options
        )
        assert state.start_after == "b"
        assert keys(state.candidates(listing, now=NOON, options=self.options)) == ["c"]

    def test_keys_are_compared_as_stores_sort_them(self):
        state, _ = poll(CursorState(), [written("\uffff")], now=NOON, options=WatchOptions(lookback_keys=0))
        assert keys(poll(state, [written("\U00010000")], now=NOON)[1]) == ["\U00010000"]


class TestChunks:
    def test_20_000_versions_fit_the_state_store_in_four_chunks(self):
        state = SnapshotState(seen=frozenset(fingerprint(written(f"k{number}")) for number in range(20_000)))
        chunks = state.to_chunks()
        assert len(chunks) <= 4
        assert max(len(json.dumps(chunk)) for chunk in chunks) <= 60_000
        assert from_chunks(chunks) == state

    def test_5_000_versions_fit_one_chunk(self):
        state = TimestampState(seen=frozenset(range(5_000)), horizon=NOON)
        assert len(state.to_chunks()) == 1

    def test_unevenly_spread_fingerprints_take_more_chunks_and_none_is_too_long(self):
        state = SnapshotState(seen=frozenset(range(0, 4000, 4)))
        chunks = state.to_chunks(limit=2000)
        assert max(len(json.dumps(chunk)) for chunk in chunks) <= 2000
        assert from_chunks(chunks) == state

    def test_a_long_hostile_cursor_fits(self):
        state = CursorState(seen=frozenset(range(1000)), start_after="\x01" * 1024)
        chunks = state.to_chunks(limit=10_000)
        assert max(len(json.dumps(chunk)) for chunk in chunks) <= 10_000
        assert from_chunks(chunks) == state

    def test_chunks_too_small_to_be_of_use_are_refused(self):
        with pytest.raises(DefinitionError, match="allow a few thousand"):
            SnapshotState().to_chunks(limit=200)

    @given(st.data())
    def test_a_crash_between_two_chunks_forgets_at_most_what_changed(self, data):
        before = frozenset(data.draw(st.sets(st.integers(0, 2**64 - 1), max_size=200)))
        after = before | frozenset(data.draw(st.sets(st.integers(0, 2**64 - 1), max_size=50)))
        old = SnapshotState(seen=before).to_chunks(limit=1000)
        new = SnapshotState(seen=after).to_chunks(limit=1000)
        written_before_crash = data.draw(st.integers(0, len(new)))
        mixed = from_chunks([*new[:written_before_crash], *old[written_before_crash:]])
        assert mixed is not None
        assert mixed.seen <= after
        if len(old) == len(new):
            assert mixed.seen >= before

    def test_without_a_header_there_is_no_state(self):
        assert from_chunks([]) is None
        assert from_chunks(SnapshotState(seen=frozenset(range(1000))).to_chunks(limit=2000)[1:]) is None

    @pytest.mark.parametrize(
        "text",
        [
            "nonsense",
            "5",
            '["x"]',
            '[{"seen":""}]',
            '[{"format":1,"algorithm":"snapshot","seen":"*"}]',
            '[{"format":1,"algorithm":"snapshot","seen":"AAAA"}]',
            '[{"format":1,"algorithm":"other","seen":""}]',
            '[{"format":1,"algorithm":"timestamp","horizon":"noon","seen":""}]',
        ],
    )
    def test_an_unreadable_state_is_a_clear_error(self, text):
        with pytest.raises(DefinitionError, match="clear it to start again"):
            from_json(text)

    def test_a_state_of_a_newer_version_is_refused_by_name(self):
        with pytest.raises(DefinitionError, match="has format '2' and this version reads 1; upgrade"):
            from_chunks([{"format": 2, "algorithm": "snapshot", "seen": ""}])


class TestSettling:
    quiet = seconds(10)

    def test_an_object_is_released_when_it_stopped_changing(self):
        state, settled = Settling().settle([written("a")], now=NOON, quiet_period=self.quiet)
        assert settled == []
        state, settled = state.settle([written("a")], now=NOON + seconds(9), quiet_period=self.quiet)
        assert settled == []
        assert keys(state.settle([written("a")], now=NOON + seconds(10), quiet_period=self.quiet)[1]) == ["a"]

    def test_growth_begins_the_wait_again(self):
        state, _ = Settling().settle([written("a", size=1)], now=NOON, quiet_period=self.quiet)
        state, settled = state.settle([written("a", size=2)], now=NOON + seconds(10), quiet_period=self.quiet)
        assert settled == []

    def test_what_is_gone_is_forgotten(self):
        state, _ = Settling().settle([written("a")], now=NOON, quiet_period=self.quiet)
        assert state.settle([], now=NOON, quiet_period=self.quiet)[0] == Settling()

    def test_a_clock_that_steps_back_delays_and_does_not_release_early(self):
        state, _ = Settling().settle([written("a")], now=NOON, quiet_period=self.quiet)
        state, settled = state.settle([written("a")], now=NOON - HOUR, quiet_period=self.quiet)
        assert settled == []
        assert keys(state.settle([written("a")], now=NOON - HOUR + self.quiet, quiet_period=self.quiet)[1]) == ["a"]

    def test_no_quiet_period_lets_everything_pass(self):
        assert keys(Settling().settle([written("a")], now=NOON, quiet_period=seconds(0))[1]) == ["a"]
