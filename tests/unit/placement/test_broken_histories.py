# SPDX-License-Identifier: Apache-2.0
"""Whatever past jobs have left behind, a policy decides: broken numbers, clocks that step, 100 000 jobs."""

from __future__ import annotations

import json
import math
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.placement import target_model
from airflow_provider_oscar.placement.batch import decide_many
from airflow_provider_oscar.placement.breaker import BreakerState, CircuitBreaker
from airflow_provider_oscar.placement.history import (
    KEPT,
    LONGEST,
    SKEW,
    History,
    RunRecord,
    decode_records,
    encode_records,
    with_record,
)
from airflow_provider_oscar.placement.learned import CheapestWithinDeadline, FastestFinish, GreenestWithinDeadline
from airflow_provider_oscar.placement.policies import HistorySnapshot
from airflow_provider_oscar.placement.targets import PlacementRequest, PlacementTarget, TargetObservation

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TARGETS = (
    PlacementTarget(name="a", kind="oscar", power_kw=0.2, capacity=2),
    PlacementTarget(name="b", kind="oscar", power_kw=0.4, cost_per_hour=1.0),
)
POLICIES = (FastestFinish(), CheapestWithinDeadline(deadline=600), GreenestWithinDeadline(deadline=600))

ANY = st.one_of(
    st.floats(), st.none(), st.integers(-(2**70), 2**70), st.text(max_size=4), st.sampled_from([1e308, -1e308, 0, -1])
)
FIELDS = st.fixed_dictionaries(
    {"target": st.sampled_from(["a", "b"]), "ended_at": st.one_of(ANY, st.floats(1.7e9, 1.9e9))},
    optional={
        "succeeded": st.booleans(),
        "target_fault": st.booleans(),
        "started": st.booleans(),
        **dict.fromkeys(("size", "queued", "stage_in", "run", "stage_out", "predicted", "active", "cost"), ANY),
        "features": st.dictionaries(st.sampled_from(["events", ""]), ANY, max_size=2),
        "interval": st.lists(ANY, max_size=3),
        "submission_id": st.text(max_size=2),
    },
)
#: What stays within the bounds of a record, and is wild all the same.
WILD = st.builds(
    RunRecord,
    target=st.sampled_from(["a", "b"]),
    ended_at=st.floats(0, 4.1e9),
    succeeded=st.booleans(),
    target_fault=st.booleans(),
    started=st.booleans(),
    size=st.one_of(st.none(), st.integers(0, 2**63 - 1)),
    features=st.dictionaries(st.sampled_from(["events", "x"]), st.floats(-1e99, 1e99), max_size=2),
    active=st.integers(0, 10**6),
    queued=st.floats(0, 9e8),
    stage_in=st.floats(0, 9e8),
    run=st.floats(0, 9e8),
    stage_out=st.floats(0, 9e8),
    submission_id=st.uuids().map(str),
)
#: Numbers so small that what is divided by them is infinite.
NEXT_TO_NOTHING = [
    RunRecord(
        target="a",
        ended_at=NOW.timestamp() - each,
        run=5e-324 if each % 2 else 1.0,
        stage_out=4e8 * (each % 3),
        features={"events": 5e-324 * each, "x": 1e99 if each % 2 else 2.2e-313},
        submission_id=str(each),
    )
    for each in range(6)
]


def decide(policy, history, request=PlacementRequest(size=1000, features={"events": 5.0})):  # noqa: B008
    seen = [TargetObservation(name=target.name, active=1, pending=1, oldest_pending=40.0) for target in TARGETS]
    return policy.decide(request, TARGETS, seen, HistorySnapshot(history, NOW))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda each: type(each).__name__)
@given(found=st.lists(FIELDS, max_size=12))
def test_records_of_any_form_are_read_or_left_out_and_never_stop_a_decision(policy, found):
    text = json.dumps(found)
    history = History.of(decode_records(text), now=NOW)
    decision = decide(policy, history)
    assert decision.target in TARGETS
    assert all(math.isfinite(number) for each in decision.predictions.values() for number in each.values())


@pytest.mark.parametrize("policy", POLICIES, ids=lambda each: type(each).__name__)
@given(records=st.lists(WILD, max_size=12), feature=st.floats(-1e99, 1e99))
@example(records=NEXT_TO_NOTHING, feature=0.0)
@example(records=NEXT_TO_NOTHING, feature=-1e99)
@example(records=NEXT_TO_NOTHING[:1] * 2, feature=1e99)
def test_whatever_a_record_may_hold_gives_finite_predictions_and_the_same_choice_again(policy, records, feature):
    history = History.of(records)
    request = PlacementRequest(size=2**60, features={"events": feature})
    decision = decide(policy, history, request)
    for each in decision.predictions.values():
        assert all(math.isfinite(number) and number >= 0 for number in each.values())
        assert each["low"] <= each["total"] <= each["high"] or math.isclose(each["low"], each["high"])
    assert decide(policy, History.of(reversed(records)), request).target == decision.target


@pytest.mark.parametrize(
    "broken", [{"run": math.nan}, {"queued": -1.0}, {"ended_at": math.inf}, {"ended_at": 1e12}, {"cost": -1.0},
               {"features": {"x": math.nan}}, {"predicted": math.nan}, {"interval": (0.0, math.inf)}, {"size": -1},
               {"size": 10**400}, {"active": 10**400}, {"run": 2 * LONGEST}],
    ids=str,
)  # fmt: skip
def test_no_record_is_made_of_numbers_that_no_job_has(broken):
    with pytest.raises(DefinitionError, match=r"job 'x' holds a number that no job has"):
        RunRecord(**{"target": "a", "ended_at": 1.0, "submission_id": "x", **broken})


@pytest.mark.parametrize("policy", POLICIES, ids=lambda each: type(each).__name__)
def test_with_jobs_of_one_target_alone_and_with_failures_alone_there_is_a_decision(policy):
    at = NOW.timestamp()
    one = [RunRecord(target="a", ended_at=at - each, run=10.0, submission_id=str(each)) for each in range(20)]
    failed = [
        RunRecord(target=name, ended_at=at - each, succeeded=False, target_fault=True, submission_id=f"{name}{each}")
        for each in range(20)
        for name in "ab"
    ]
    assert decide(policy, History.of(one)).target in TARGETS
    assert all(each["jobs"] == 0 for each in decide(policy, History.of(failed)).predictions.values())


def failures(ahead: timedelta, target: str = "a") -> list[RunRecord]:
    at = (NOW + ahead).timestamp()
    return [
        RunRecord(target=target, ended_at=at + each, succeeded=False, target_fault=True, submission_id=f"{at}-{each}")
        for each in range(3)
    ]


def test_a_failure_that_a_wrong_clock_dates_to_next_year_does_not_close_a_target_until_then():
    breaker = CircuitBreaker()
    assert breaker.state(failures(timedelta(days=365)), now=NOW)[0] is BreakerState.HALF_OPEN
    assert breaker.state(failures(timedelta(0)), now=NOW)[0] is BreakerState.OPEN
    assert breaker.state(failures(breaker.longest - timedelta(seconds=5)), now=NOW)[0] is BreakerState.OPEN


@given(st.lists(st.tuples(st.floats(-1e6, 1e9), st.booleans()), min_size=3, max_size=20))
def test_whatever_clocks_said_a_target_is_closed_for_no_longer_than_twice_the_longest_time(found):
    breaker = CircuitBreaker()
    at = NOW.timestamp()
    records = [
        RunRecord(target="a", ended_at=at + ahead, succeeded=not fault, target_fault=fault, submission_id=str(each))
        for each, (ahead, fault) in enumerate(found)
    ]
    state, until = breaker.state(History.of(records).of_target("a"), now=NOW)
    assert state is not BreakerState.OPEN or until - NOW <= 2 * breaker.longest


def test_records_dated_far_ahead_are_left_out_of_a_history_and_hide_none_that_are_not():
    real = [RunRecord(target="a", ended_at=NOW.timestamp() - each, submission_id=str(each)) for each in range(10)]
    ahead = [
        RunRecord(target="a", ended_at=(NOW + SKEW).timestamp() + 1 + each, submission_id=f"ahead{each}")
        for each in range(2 * KEPT)
    ]
    assert set(History.of([*real, *ahead], now=NOW)) == set(real)
    slightly = RunRecord(target="a", ended_at=(NOW + SKEW).timestamp(), submission_id="slightly")
    assert set(History.of([*real, slightly], now=NOW)) == {*real, slightly}


def test_a_clock_that_was_ahead_for_a_while_pushes_out_no_record_that_comes_after():
    def record(number: int, ahead: timedelta) -> RunRecord:
        return RunRecord(target="a", ended_at=(NOW + ahead).timestamp() + number, submission_id=f"{ahead}{number}")

    kept: tuple[RunRecord, ...] = ()
    for number in range(KEPT):
        kept = with_record(kept, record(number, timedelta(days=365)))
    real = [record(number, timedelta(0)) for number in range(2 * KEPT)]
    for each in real:
        kept = with_record(kept, each)
        assert each in History.of(kept, now=NOW + timedelta(seconds=2 * KEPT)).of_target("a")
        assert len(kept) <= 2 * KEPT
    assert list(kept) == real[-KEPT:]


def test_one_worker_whose_clock_is_behind_costs_the_history_no_record_of_the_others():
    real = [RunRecord(target="a", ended_at=NOW.timestamp() + each, submission_id=str(each)) for each in range(KEPT)]
    behind = RunRecord(target="a", ended_at=5.0, submission_id="behind")
    kept = with_record(real, behind)
    assert kept == (behind, *real)
    newer = RunRecord(target="a", ended_at=NOW.timestamp() + KEPT, submission_id="newer")
    assert with_record(kept, newer) == (*real[1:], newer)


@given(st.lists(WILD, max_size=30), WILD)
def test_what_is_kept_when_a_record_is_added_is_bounded_sorted_and_contains_it(records, new):
    kept = with_record(with_record(records, new), new)
    assert new in kept
    assert {each.target for each in kept} == {new.target}
    assert list(kept) == sorted(kept, key=lambda each: each.ended_at)
    assert decode_records(encode_records(kept)) == kept


def test_of_100_000_records_a_decision_reads_a_bounded_number(monkeypatch):
    at = NOW.timestamp()
    records = [
        RunRecord(target="ab"[each % 2], ended_at=at - each, run=10.0 + each % 7, size=each, submission_id=str(each))
        for each in range(100_000)
    ]
    history = History.of(records)
    assert [len(history.of_target(name)) for name in "ab"] == [KEPT, KEPT]
    reckoned: list[int] = []
    theil_sen = target_model.theil_sen
    monkeypatch.setattr(
        target_model, "theil_sen", lambda xs, ys, weights: reckoned.append(len(xs)) or theil_sen(xs, ys, weights)
    )
    target_model.fit.cache_clear()
    tracemalloc.start()
    try:
        decide(FastestFinish(), history)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A line for each phase of each target, and one over the jobs ahead where the capacity is not known.
    assert len(reckoned) <= 4 * len(TARGETS)
    assert max(reckoned) <= KEPT
    assert peak < 5_000_000, "bytes"
    reckoned.clear()
    decide_many(
        FastestFinish(),
        [PlacementRequest(size=each) for each in range(100)],
        TARGETS,
        (),
        HistorySnapshot(history, NOW),
    )
    assert not reckoned, "what the same records say is learnt once, not for each of a batch"
