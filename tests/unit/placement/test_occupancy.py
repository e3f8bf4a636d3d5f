# SPDX-License-Identifier: Apache-2.0
"""Whose jobs a newcomer waits for: our own, which are known, or other people's, which only show."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.placement.history import RunRecord
from airflow_provider_oscar.placement.occupancy import (
    SEEN_AFTER,
    PlacedJob,
    decode_placed,
    not_ended,
    occupancy,
    waits_for_our_own,
)

NOW = 1_800_000_000.0
Work = list[tuple[float, float]]
# In whole seconds, since of two that differ by a millionth nobody knows which came first.
WORK = st.lists(st.tuples(st.integers(0, 500).map(float), st.integers(1, 300).map(float)), max_size=40)


def first_come_first_served(work: Work, capacity: int, overhead: float = 0.0) -> list[tuple[float, float, float]]:
    """Submission, start and end of each job, by looking for a free slot second by second of events."""
    ends: list[float] = []
    found: list[tuple[float, float, float]] = []
    for at, seconds in sorted(work):
        busy = sorted(each for each in ends if each > at)
        start = at if len(busy) < capacity else busy[len(busy) - capacity]
        start = max(start, at + overhead)
        ends.append(start + seconds)
        found.append((at, start, start + seconds))
    return found


def look(placed=(), records=(), *, capacity=2, active=None, pending=0, oldest=0.0, overhead=0.0):
    return occupancy(
        records, placed, capacity=capacity, active=len(placed) if active is None else active, pending=pending,
        oldest_pending=oldest, overhead=overhead, typical=60.0, now=NOW,
    )  # fmt: skip


def placed(number: int, ago: float, seconds: float) -> PlacedJob:
    return PlacedJob(job=f"{number:03d}", at=NOW - ago, seconds=seconds)


@given(WORK, st.integers(1, 5))
def test_what_jobs_waited_for_each_other_is_what_a_queue_with_so_many_slots_gives(work, capacity):
    played = first_come_first_served(work, capacity)
    records = [
        RunRecord(target="a", ended_at=NOW + end, queued=start - at, run=end - start, submission_id=str(number))
        for number, (at, start, end) in enumerate(played)
    ]
    expected = [start - at for at, start, _ in played]
    assert waits_for_our_own(records, capacity) == pytest.approx(expected, abs=1e-3)


@given(WORK, st.integers(1, 5), st.floats(0, 1e4))
def test_a_wait_for_other_peoples_jobs_is_not_put_down_to_those_of_ours_that_waited_as_well(work, capacity, others):
    played = first_come_first_served(work, capacity)
    records = [
        RunRecord(
            target="a",
            ended_at=NOW + end + others,
            queued=start - at + others,
            run=end - start,
            submission_id=str(each),
        )
        for each, (at, start, end) in enumerate(played)
    ]
    expected = [start - at for at, start, _ in played]
    assert waits_for_our_own(records, capacity) == pytest.approx(expected, abs=1e-3)


@given(WORK, st.integers(1, 5))
def test_a_newcomer_waits_until_the_jobs_in_flight_leave_a_slot(work, capacity):
    work = [(0.0, seconds) for _, seconds in work]
    jobs = [PlacedJob(job=f"{number:03d}", at=NOW, seconds=seconds) for number, (_, seconds) in enumerate(work)]
    ends: list[float] = []
    for _, seconds in work:
        start = sorted(ends)[len(ends) - capacity] if len(ends) >= capacity else 0.0
        ends.append(start + seconds)
    free = sorted(ends)[len(ends) - capacity] if len(ends) >= capacity else 0.0
    assert look(jobs, capacity=capacity).free_in == pytest.approx(free, abs=1e-3)


@given(WORK, st.integers(1, 5), st.floats(1, 300))
def test_one_job_more_never_makes_the_wait_shorter(work, capacity, seconds):
    jobs = [placed(number, ago, length) for number, (ago, length) in enumerate(work)]
    before = look(jobs, capacity=capacity).free_in
    after = look([*jobs, PlacedJob(job="z", at=NOW, seconds=seconds)], capacity=capacity).free_in
    assert 0 <= before <= after < math.inf


def test_two_long_jobs_ahead_make_a_longer_wait_than_two_short_ones():
    assert look([placed(1, 0, 10), placed(2, 0, 10)]).free_in == pytest.approx(10)
    assert look([placed(1, 0, 900), placed(2, 0, 900)]).free_in == pytest.approx(900)


def test_a_job_that_has_ended_is_the_reason_that_the_next_began_late():
    ended = RunRecord(target="a", ended_at=NOW - 5, run=95.0, submission_id="first")
    assert look([placed(1, 90, 60)], [ended], capacity=1).free_in == pytest.approx(55)
    assert look([placed(1, 90, 60)], capacity=1).free_in == pytest.approx(30), "it would be thought to be overdue"


def test_a_job_that_is_overdue_is_told_of_and_expected_to_be_so_for_as_long_again():
    found = look([placed(1, 300, 100)], capacity=1)
    assert found.free_in == pytest.approx(200)
    assert found.overdue == (pytest.approx(3.0),)
    assert look([placed(1, 50, 100)], capacity=1).overdue == ()
    assert look([placed(1, 300, 100)], capacity=1, pending=1, oldest=300).overdue == (), "one that waits is not slow"


def test_a_job_waits_for_other_people_unless_our_own_hold_the_slots():
    ours = [placed(1, 100, 300), placed(2, 100, 300), placed(3, 90, 50)]
    behind_ours = look(ours, pending=1, oldest=90)
    assert (behind_ours.waits, behind_ours.late) == (False, 0.0)
    alone = look(ours[2:], pending=1, oldest=90)
    assert (alone.waits, alone.late) == (True, pytest.approx(90))


def test_of_jobs_nobody_knows_by_name_the_number_counts():
    assert look(active=1).free_in == 0
    assert 0 < look(active=2).free_in < 60 < look(active=5).free_in
    assert not look(active=3, pending=1, oldest=50).waits, "those that run hold the slots"
    assert look(active=1, pending=1, oldest=50).waits


@given(
    st.lists(
        st.builds(
            PlacedJob,
            job=st.text(max_size=3),
            at=st.floats(),
            seconds=st.floats(),
            late_after=st.floats(),
        ),
        max_size=8,
    ),
    st.integers(0, 9),
    st.integers(0, 9),
    st.floats(0, 1e6),
)
def test_broken_notes_count_for_nothing(jobs, active, pending, oldest):
    found = look(jobs, active=active, pending=pending, oldest=oldest)
    assert 0 <= found.free_in < math.inf or any(each.counts(NOW) and each.seconds > 1e9 for each in jobs)
    assert 0 <= found.late <= oldest
    assert not any(map(math.isnan, (found.free_in, found.late, *found.overdue)))


@given(st.one_of(st.none(), st.text(), st.integers(), st.lists(st.dictionaries(st.text(), st.text())), st.binary()))
def test_whatever_the_store_holds_is_read(value):
    assert decode_placed(value) == ()


def test_a_job_whose_end_nobody_told_counts_for_so_long_and_no_longer():
    job = PlacedJob(job="lost", at=NOW, seconds=10, late_after=600)
    assert job.counts(NOW + 599)
    assert not job.counts(NOW + 600)


@given(WORK, st.integers(0, 50))
def test_of_jobs_that_should_have_ended_only_as_many_count_as_are_seen(work, active):
    jobs = [placed(number, ago, seconds) for number, (ago, seconds) in enumerate(work)]
    kept = not_ended(jobs, active=active, now=NOW)
    young = [each for each in jobs if NOW - each.at <= each.seconds + SEEN_AFTER]
    assert [each for each in jobs if each in young] == [each for each in kept if each in young], (
        "it may not be seen yet"
    )
    assert len(kept) - len(young) == min(len(jobs) - len(young), active)
    gone = [each for each in jobs if each not in kept]
    assert all(each.at <= other.at for each in gone for other in kept if other not in young), "the oldest ended first"


@pytest.mark.parametrize(("ahead", "counts"), [(0.0, True), (60.0, True), (86400.0, False)])
def test_a_job_placed_by_a_clock_that_ran_far_ahead_is_not_in_flight_until_that_date(ahead, counts):
    assert placed(1, -ahead, 10).counts(NOW) is counts
