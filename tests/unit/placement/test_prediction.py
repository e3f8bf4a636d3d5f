# SPDX-License-Identifier: Apache-2.0
"""How long a job will take, from the jobs before it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.placement.history import RunRecord
from airflow_provider_oscar.placement.patience import SHORTEST_PATIENCE, patience
from airflow_provider_oscar.placement.prediction import Prediction, predict
from airflow_provider_oscar.placement.robust import theil_sen, weighted_quantile
from airflow_provider_oscar.placement.targets import PlacementRequest, PlacementTarget, TargetObservation

TARGET = PlacementTarget(name="a", task_id="a", kind="oscar", capacity=4, prior_run=100, prior_run_per_gib=50)
FREE = TargetObservation(name="a")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(position: int, *, size: int = 0, run: float = 10.0, queued: float = 2.0, **more: object) -> RunRecord:
    """A job that ended ``40 - position`` seconds before now."""
    ended = NOW.timestamp() - 40 + position
    return RunRecord(target="a", ended_at=ended, size=size, run=run, queued=queued, submission_id=str(position), **more)


def expected(records, *, size=0, seen=FREE, target=TARGET, now=NOW, **more):
    return predict(PlacementRequest(size=size, **more), target, seen, records, now=now)


def test_without_jobs_the_prior_counts():
    found = expected([], size=2**30)
    assert (found.jobs, found.run, found.queue) == (0, 150, 10)


def test_a_job_twice_as_large_takes_what_the_line_says():
    records = [job(each, size=each * 1000, run=5 + each) for each in range(1, 20)]
    assert expected(records, size=30_000).run == pytest.approx(35)


def test_three_wild_jobs_of_thirty_change_little():
    calm = [job(each, size=each * 1000, run=5 + each) for each in range(30)]
    wild = [
        job(each, size=each * 1000, run=4000.0) if each in (3, 11, 19) else record for each, record in enumerate(calm)
    ]
    assert expected(wild, size=10_000).run == pytest.approx(expected(calm, size=10_000).run, rel=0.2)


def test_declared_features_are_learnt():
    records = [job(each, run=10 + 3 * (each % 5), features={"events": float(each % 5)}) for each in range(25)]
    assert expected(records, features={"events": 4.0}).run == pytest.approx(22, rel=0.1)


def test_a_target_that_became_slower_is_believed_after_three_jobs_and_forgiven_with_time():
    records = [job(each, run=10.0) for each in range(20)] + [job(20 + each, run=60.0) for each in range(3)]
    assert expected(records[:-1]).run == pytest.approx(10, rel=0.2)
    assert expected(records).run > 40
    assert expected(records, now=NOW + timedelta(days=2)).run == pytest.approx(10, rel=0.2)


def test_jobs_that_hold_all_slots_make_a_newcomer_wait():
    records = [job(each) for each in range(10)]
    # The steps before a start are taken while a job waits: of four that run, one ends before these 2 s are over.
    waits = [expected(records, seen=TargetObservation(name="a", active=active)).queue for active in (0, 3, 5, 12)]
    assert waits[0] == waits[1] < waits[2] < waits[3]


def test_without_a_known_capacity_the_wait_per_job_ahead_is_learnt():
    open_ended = PlacementTarget(name="a", task_id="a", kind="oscar")
    records = [job(each, active=each, queued=3.0 * each) for each in range(12)]
    found = expected(records, seen=TargetObservation(name="a", active=20), target=open_ended)
    assert found.queue == pytest.approx(60, rel=0.1)


def test_a_job_that_waits_says_more_than_jobs_that_ended():
    records = [job(each) for each in range(10)]
    assert expected(records, seen=TargetObservation(name="a", active=1, oldest_pending=300)).queue >= 300


def test_a_queue_is_taken_to_be_there_while_a_job_of_ours_waits_and_to_have_gone_when_the_scheduler_says_so():
    records = [*(job(each) for each in range(20)), *(job(20 + each, queued=400.0) for each in range(3))]
    later = {"now": NOW + timedelta(days=3)}
    assert expected(records, seen=TargetObservation(name="a", pending=1), **later).queue > 350
    assert expected(records, seen=TargetObservation(name="a"), **later).queue < 100
    assert expected(records, seen=TargetObservation(name="a", queue_length=0)).queue < 100
    assert expected(records, seen=TargetObservation(name="a", queue_length=4)).queue > 300


def test_jobs_that_were_cancelled_in_the_queue_tell_of_it_and_of_nothing_else():
    calm = [job(each) for each in range(20)]
    gone = [job(20 + each, queued=400.0, run=0.0, started=False, succeeded=False) for each in range(3)]
    found = expected([*calm, *gone])
    assert found.queue > 400, "they would have waited longer still"
    assert (found.run, found.jobs) == (expected(calm).run, 20)
    assert expected(gone) == expected([]), "of a target where nothing ever started only the prior is known"


def test_a_job_that_was_cancelled_soon_does_not_say_that_the_queue_is_short():
    congested = [*(job(each) for each in range(20)), *(job(20 + each, queued=2000.0) for each in range(3))]
    looked = [*congested, job(23, queued=40.0, run=0.0, started=False, succeeded=False)]
    assert expected(looked).queue == pytest.approx(expected(congested).queue, rel=0.2)


def seen_as(total: float, high: float, queue: float, jobs: int = 5) -> dict[str, float]:
    return Prediction(queue, 0.0, total - queue, 0.0, total / 2, high, jobs).to_dict()


def test_a_job_may_wait_within_its_interval_while_no_other_target_would_be_sooner():
    alone = {"a": seen_as(total=100, high=160, queue=20)}
    assert patience(alone, "a") == 80
    assert patience({**alone, "b": seen_as(total=900, high=1000, queue=0)}, "a") == 80
    assert patience({**alone, "b": seen_as(total=120, high=1000, queue=0)}, "a") == 40
    assert patience({**alone, "b": seen_as(total=1, high=2, queue=0)}, "a") == SHORTEST_PATIENCE


def test_the_first_job_of_a_target_is_not_moved_before_it_can_teach_anything():
    unknown = {"a": seen_as(total=70, high=280, queue=10, jobs=0), "b": seen_as(total=41, high=50, queue=25)}
    assert patience(unknown, "a") == 220
    assert patience(unknown, "b") == 34


@pytest.mark.parametrize("fields", [None, {}, {"total": 1.0}, {"total": "1", "high": 2, "queue": 0}])
def test_where_nothing_was_expected_there_is_no_end_of_patience(fields):
    assert patience({"a": fields}, "a") is None
    assert patience({}, "a") is None


def test_an_estimate_of_the_scheduler_replaces_our_own():
    records = [job(each, queued=500.0) for each in range(10)]
    assert expected(records, seen=TargetObservation(name="a", start_in=7.0)).queue == 7.0
    assert expected([], seen=TargetObservation(name="a", start_in=7.0)).queue == 7.0


times = st.floats(0, 1e5, allow_nan=False)


@given(
    st.lists(st.tuples(st.integers(0, 2**40), times, times, st.integers(0, 50), st.booleans()), max_size=40),
    st.none() | st.integers(0, 2**42),
    st.integers(0, 100),
    st.none() | st.integers(1, 16),
    times,
)
def test_a_prediction_lies_within_its_interval_and_is_the_same_twice(found, size, active, capacity, pending):
    records = tuple(
        RunRecord(
            target="a", ended_at=float(each), size=size_, run=run, queued=queued, active=held, succeeded=good,
            submission_id=str(each),
        )
        for each, (size_, run, queued, held, good) in enumerate(found)
    )  # fmt: skip
    seen = TargetObservation(name="a", active=active, capacity=capacity, oldest_pending=pending)
    open_ended = PlacementTarget(name="a", task_id="a", kind="oscar")
    first = expected(records, size=size, seen=seen, target=open_ended)
    assert 0 <= first.low <= first.total <= first.high
    assert first == expected(records, size=size, seen=seen, target=open_ended)
    assert first.jobs == sum(record.succeeded for record in records)


@given(st.lists(st.tuples(times, times), min_size=1, max_size=30), st.floats(0, 1))
def test_a_quantile_is_one_of_the_values_and_grows_with_its_share(pairs, share):
    values, weights = zip(*pairs, strict=True)
    assert weighted_quantile(values, weights, share) in values
    assert weighted_quantile(values, weights, 0) <= weighted_quantile(values, weights, share)
    assert weighted_quantile(values, weights, share) <= weighted_quantile(values, weights, 1)


def test_a_quantile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        weighted_quantile([], [], 0.5)


def test_a_value_without_weight_is_never_the_median():
    assert weighted_quantile([1.0, 2.0], [0.0, 1.0], 0.5) == 2.0


@given(st.floats(0, 100), st.floats(0, 100), st.lists(st.integers(0, 1000), min_size=2, max_size=20, unique=True))
def test_points_on_a_line_give_the_line(intercept, slope, xs):
    line = theil_sen(xs, [intercept + slope * x for x in xs], [1.0] * len(xs))
    assert line.at(500) == pytest.approx(intercept + slope * 500, rel=1e-6, abs=1e-6)


def test_a_line_never_falls():
    assert theil_sen([0, 1, 2], [9, 5, 1], [1, 1, 1]).slope == 0


def told(position: int, *, off: float) -> RunRecord:
    """A job of 12 s in all that took ``off`` times what was expected of it."""
    return job(position, predicted=12.0 / off, interval=(6.0 / off, 18.0 / off))


def test_an_interval_widens_by_itself_once_predictions_no_longer_hold_and_narrows_when_they_do_again():
    held = [told(each, off=1.0) for each in range(20)]
    missed = [told(20 + each, off=4.0) for each in range(3)]
    again = [told(23 + each, off=1.0) for each in range(37)]
    narrow, wide, after = expected(held), expected([*held, *missed]), expected([*held, *missed, *again])
    assert wide.high > 3 * narrow.high
    assert wide.total == narrow.total, "what is expected is not what the interval is for"
    assert after.high < 1.2 * narrow.high


def test_a_target_is_tried_for_what_it_may_do_by_its_jobs_and_not_for_how_far_off_its_predictions_were():
    held = [told(each, off=1.0) for each in range(20)]
    missed = [told(20 + each, off=0.1) for each in range(3)]
    assert expected([*held, *missed]).low < 0.2 * expected(held).low
    assert expected([*held, *missed]).hoped == pytest.approx(expected(held).hoped, rel=0.1)
