# SPDX-License-Identifier: Apache-2.0
"""What is kept of past jobs, and how predictions are scored."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.placement.history import (
    KEPT,
    KEPT_OF_WORK,
    WORKS,
    History,
    RunRecord,
    decode_records,
    encode_records,
    score,
)

finite = st.floats(0, 1e9, allow_nan=False, allow_infinity=False)
records = st.builds(
    RunRecord,
    target=st.sampled_from(["a", "b"]),
    ended_at=finite,
    succeeded=st.booleans(),
    size=st.none() | st.integers(0, 2**50),
    features=st.dictionaries(st.text(max_size=5), finite, max_size=2),
    queued=finite,
    run=finite,
    predicted=st.none() | finite,
    interval=st.none() | st.tuples(finite, finite),
    submission_id=st.text(max_size=8),
)


@given(st.lists(records, max_size=20))
def test_records_survive_the_state_store(found):
    assert decode_records(encode_records(found)) == tuple(found)


@given(st.none() | st.text() | st.integers() | st.lists(st.dictionaries(st.text(), st.integers())))
def test_what_is_not_a_record_is_left_out(text):
    assert decode_records(text) == ()


def test_one_bad_record_does_not_hide_the_others():
    good = RunRecord(target="a", ended_at=1.0)
    text = json.loads(encode_records([good]))
    assert decode_records(json.dumps([{"target": 3}, *text, {"ended_at": "never"}])) == (good,)


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_a_number_that_is_not_finite_is_refused(number):
    with pytest.raises(DefinitionError, match="not finite"):
        RunRecord(target="a", ended_at=0.0, run=number)


@given(st.lists(records, max_size=200))
def test_the_newest_records_of_each_target_are_kept_in_order(found):
    history = History.of(found)
    for name, kept in history.records.items():
        assert len(kept) <= KEPT
        assert {record.target for record in kept} == {name}
        assert [record.ended_at for record in kept] == sorted(record.ended_at for record in kept)


def test_two_records_of_one_job_count_once():
    first = RunRecord(target="a", ended_at=1.0, succeeded=False, submission_id="x")
    second = RunRecord(target="a", ended_at=2.0, submission_id="x")
    assert History.of([second, first]).of_target("a") == (second,)


def test_predictions_are_scored_by_jobs_that_ended_well():
    def job(predicted, interval, run, *, succeeded=True):
        return RunRecord(target="a", ended_at=0, run=run, predicted=predicted, interval=interval, succeeded=succeeded)

    judged = score(
        [job(10, (5, 20), 10), job(10, (5, 20), 20), job(10, (5, 12), 40), job(1, (0, 1), 9, succeeded=False)]
        + [job(None, None, 5)]
    )
    assert (judged.predicted, judged.within) == (3, 2)
    assert judged.calibration == pytest.approx(2 / 3)
    assert judged.relative_error == pytest.approx(0.5)
    assert judged.lately == judged.calibration


def test_that_predictions_no_longer_hold_shows_in_the_newest_however_long_they_held():
    held = [RunRecord(target="a", ended_at=each, run=10, predicted=10, interval=(5, 20)) for each in range(200)]
    missed = [RunRecord(target="a", ended_at=200 + each, run=60, predicted=10, interval=(5, 20)) for each in range(10)]
    judged = score([*missed, *held])
    assert judged.calibration == pytest.approx(200 / 210)
    assert judged.lately == 0.5
    assert score(held).lately == 1.0


def test_without_predictions_nothing_is_scored():
    assert (score([]).calibration, score([]).lately, score([]).relative_error) == (None, None, None)


def test_a_work_that_is_seldom_done_is_remembered_beside_a_busy_one_and_the_whole_is_bounded():
    def done(number: int, work: str) -> RunRecord:
        return RunRecord(target="a", ended_at=float(number), work=work, submission_id=f"{work}{number}")

    busy = [done(10_000 + number, "busy") for number in range(500)]
    kept = History.of([*(done(number, "seldom") for number in range(30)), *busy]).of_target("a")
    assert [each.work for each in kept] == ["seldom"] * KEPT_OF_WORK + ["busy"] * KEPT
    assert kept[0].ended_at == 30 - KEPT_OF_WORK
    many = History.of([*(done(number, f"work {number % 100}") for number in range(5000)), *busy]).of_target("a")
    assert len(many) == KEPT + (WORKS - 1) * KEPT_OF_WORK
    assert list(many) == sorted(many, key=lambda each: each.ended_at)
    assert History.of(many).of_target("a") == many
