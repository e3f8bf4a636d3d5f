# SPDX-License-Identifier: Apache-2.0
"""Policies that predict, the circuit breaker, and decisions on many objects together."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError
from airflow_provider_oscar.placement.batch import decide_many
from airflow_provider_oscar.placement.breaker import BreakerState, CircuitBreaker
from airflow_provider_oscar.placement.history import History, RunRecord
from airflow_provider_oscar.placement.learned import CheapestWithinDeadline, FastestFinish, GreenestWithinDeadline
from airflow_provider_oscar.placement.patience import patience
from airflow_provider_oscar.placement.policies import Explicit, Fallback, HistorySnapshot, RuleBased
from airflow_provider_oscar.placement.targets import PlacementRequest, PlacementTarget, TargetObservation

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SLOW = PlacementTarget(name="slow", task_id="s", kind="oscar", cost_per_hour=1, power_kw=0.1, capacity=8)
FAST = PlacementTarget(name="fast", task_id="f", kind="interlink", node="n", cost_per_hour=50, power_kw=0.5, capacity=2)
TARGETS = (SLOW, FAST)


def past(name: str, run: float, *, count: int = 20, faults: int = 0, ended: datetime = NOW) -> list[RunRecord]:
    """Jobs of one target, the last ``faults`` of which failed by its fault."""
    return [
        RunRecord(
            target=name,
            ended_at=ended.timestamp() - count + each + 1,
            run=run,
            queued=1.0,
            succeeded=each < count - faults,
            target_fault=each >= count - faults,
            submission_id=f"{name}{each}",
        )
        for each in range(count)
    ]


KNOWN = HistorySnapshot(History.of(past("slow", 100) + past("fast", 20)), NOW)
CALM = FastestFinish(explore_every=0)


def test_the_target_expected_to_end_first_is_taken_and_the_gain_is_named():
    decision = CALM.decide(PlacementRequest(key="x"), TARGETS, (), KNOWN)
    assert decision.target is FAST
    assert decision.reasons[0].startswith("expected to end in 21 s")
    assert decision.reasons[1] == "80 s sooner than slow"
    assert decision.predictions["slow"]["total"] == pytest.approx(101, rel=0.1)


def test_a_long_queue_at_the_fast_target_sends_work_elsewhere():
    queue = [TargetObservation(name="fast", active=20)]
    assert CALM.decide(PlacementRequest(), TARGETS, queue, KNOWN).target is SLOW


def test_what_the_request_names_is_taken_with_its_prediction():
    decision = CALM.decide(PlacementRequest(target="slow"), TARGETS, (), KNOWN)
    assert decision.target is SLOW
    assert decision.predictions["slow"]["jobs"] == 20


def test_a_target_that_failed_the_work_is_not_taken_again():
    decision = CALM.decide(PlacementRequest(excluded=frozenset({"fast"})), TARGETS, (), KNOWN)
    assert decision.target is SLOW
    assert decision.rejected == {"fast": "it has been tried for this work already"}


def test_a_target_of_which_no_job_is_known_gets_one_before_its_prior_decides_for_good():
    known = HistorySnapshot(History.of(past("slow", 30)), NOW)
    first = FastestFinish(explore_every=1000).decide(PlacementRequest(key="a"), TARGETS, (), known)
    assert first.target is FAST
    assert first.reasons[0] == "tried, since none of its jobs is known; slow is expected to end 39 s sooner"
    held = [TargetObservation(name="fast", active=1)]
    assert FastestFinish(explore_every=1000).decide(PlacementRequest(key="b"), TARGETS, held, known).target is SLOW
    quick = HistorySnapshot(History.of(past("slow", 1)), NOW)
    assert FastestFinish(explore_every=1000).decide(PlacementRequest(key="a"), TARGETS, (), quick).target is SLOW, (
        "not where even the prior's lower bound is later"
    )


def test_now_and_then_a_target_with_old_jobs_is_tried():
    known = HistorySnapshot(History.of(past("slow", 21, ended=NOW - timedelta(days=3)) + past("fast", 20)), NOW)
    chosen = Counter(
        FastestFinish(explore_every=10, explore_within=1.5)
        .decide(PlacementRequest(key=f"object {each}"), TARGETS, (), known)
        .target.name
        for each in range(400)
    )
    assert 10 < chosen["slow"] < 100


def queued(seconds: float, later: timedelta) -> HistorySnapshot:
    """The last three jobs of the fast target waited behind other people's; nobody has looked since."""
    behind = [msgspec.structs.replace(each, queued=seconds) for each in past("fast", 20)[-3:]]
    return HistorySnapshot(History.of([*past("slow", 100), *past("fast", 20)[:-3], *behind]), NOW + later)


@pytest.mark.parametrize("minutes", [5, 10, 20])
def test_a_long_queue_of_others_is_looked_at_again_soon_by_a_job_that_can_be_moved_and_not_by_another(minutes):
    fixed, movable = PlacementRequest(key="x"), PlacementRequest(key="x", movable=True)
    then = queued(5000, timedelta(minutes=minutes))
    assert CALM.decide(fixed, TARGETS, (), then).target is SLOW
    look = CALM.decide(movable, TARGETS, (), then)
    assert look.target is FAST
    assert look.reasons[0].startswith("its queue may have gone")
    wait = patience(look.predictions, "fast")
    assert wait is not None
    assert wait < 100, "what is expected is that the queue has gone, so that it soon shows if it has not"
    assert CALM.decide(movable, TARGETS, (), queued(5000, timedelta(0))).target is SLOW, "it was there just now"


def test_one_job_at_a_time_looks_whether_a_queue_has_gone():
    then = queued(5000, timedelta(minutes=10))
    batch = [PlacementRequest(key=f"{each}", movable=True) for each in range(5)]
    decided = decide_many(CALM, batch, TARGETS, (), then)
    assert Counter(each.target.name for each in decided if each) == {"fast": 1, "slow": 4}
    waits = [TargetObservation(name="fast", active=1, pending=1, oldest_pending=30)]
    assert CALM.decide(batch[0], TARGETS, waits, then).target is SLOW


@pytest.mark.parametrize("size", [None, 1, 10**9])
def test_where_nobody_else_waits_a_job_that_can_be_moved_goes_where_another_would(size):
    decisions = [CALM.decide(PlacementRequest(size=size, movable=each), TARGETS, (), KNOWN) for each in (False, True)]
    assert decisions[0] == decisions[1]


@pytest.mark.parametrize("wrong", [{"explore_every": -1}, {"explore_within": 0}])
def test_wrong_bounds_of_exploration_are_refused(wrong):
    with pytest.raises(DefinitionError, match="FastestFinish needs"):
        FastestFinish(**wrong)


def test_the_cheapest_in_time_is_taken_and_otherwise_the_surest():
    cheap = CheapestWithinDeadline(deadline=timedelta(minutes=10)).decide(PlacementRequest(), TARGETS, (), KNOWN)
    assert (cheap.target, cheap.reasons[0]) == (SLOW, "costs 0.02778, the least of those in time")
    hurry = CheapestWithinDeadline(deadline=60).decide(PlacementRequest(), TARGETS, (), KNOWN)
    assert (hurry.target, hurry.reasons[-1]) == (FAST, "slow may end after the deadline of 60 s")
    never = CheapestWithinDeadline(deadline=1).decide(PlacementRequest(), TARGETS, (), KNOWN)
    assert never.target is FAST
    assert "no target is expected to end within 1 s" in never.reasons[0]


def test_the_greenest_in_time_is_taken_by_energy_or_by_carbon():
    policy = GreenestWithinDeadline(deadline=600)
    assert policy.decide(PlacementRequest(), TARGETS, (), KNOWN).reasons[0].startswith("uses 0.002778 kWh")
    dirty = PlacementTarget(name="slow", task_id="s", kind="oscar", power_kw=0.1, carbon_per_kwh=900)
    clean = PlacementTarget(name="fast", task_id="f", kind="oscar", power_kw=0.5, carbon_per_kwh=20)
    decision = policy.decide(PlacementRequest(), (dirty, clean), (), KNOWN)
    assert decision.target is clean
    assert "g CO2" in decision.reasons[0]


def test_the_greenest_needs_power_figures():
    bare = PlacementTarget(name="bare", task_id="b", kind="oscar")
    with pytest.raises(DefinitionError, match="power_kw of each target; bare has none"):
        GreenestWithinDeadline(deadline=60).decide(PlacementRequest(), (SLOW, bare))


@pytest.mark.parametrize("policy", [CheapestWithinDeadline, GreenestWithinDeadline])
def test_a_deadline_is_a_time_above_zero(policy):
    with pytest.raises(DefinitionError, match="cannot be kept"):
        policy(deadline=0)
    with pytest.raises(DefinitionError, match="deadline is '1h'; expected timedelta or float"):
        policy(deadline="1h")


@pytest.mark.parametrize("policy", [CALM, CheapestWithinDeadline(deadline=60), GreenestWithinDeadline(deadline=60)])
def test_where_all_are_down_the_work_waits_and_where_none_can_it_fails(policy):
    down = [TargetObservation(name=each.name, up=False, reason="no ping") for each in TARGETS]
    with pytest.raises(TransientError, match="no ping"):
        policy.decide(PlacementRequest(), TARGETS, down)
    with pytest.raises(PermanentError, match="gpu"):
        policy.decide(PlacementRequest(requires=frozenset({"gpu"})), TARGETS)


def test_a_chain_is_followed_in_order():
    chain = Fallback(("fast", "slow"))
    assert chain.decide(PlacementRequest(), TARGETS).target is FAST
    fallen = chain.decide(PlacementRequest(), TARGETS, [TargetObservation(name="fast", up=False)])
    assert (fallen.target, fallen.reasons) == (SLOW, ("first of its chain", "fast was passed over, down"))
    assert chain.decide(PlacementRequest(target="slow"), TARGETS).target is SLOW
    with pytest.raises(TransientError):
        Fallback(("fast",)).decide(PlacementRequest(), TARGETS, [TargetObservation(name="fast", up=False)])


@pytest.mark.parametrize("order", [(), "fast"])
def test_a_chain_has_names(order):
    with pytest.raises(DefinitionError, match="names of targets in order"):
        Fallback(order)


def test_a_batch_is_spread_over_the_targets_and_not_sent_to_the_same():
    decisions = decide_many(CALM, [PlacementRequest(key=str(each)) for each in range(40)], TARGETS, (), KNOWN)
    chosen = Counter(decision.target.name for decision in decisions)
    assert min(chosen["slow"], chosen["fast"]) >= 8


def test_decisions_come_in_the_order_of_the_requests():
    requests = [PlacementRequest(size=size, target=name) for size, name in ((1, "slow"), (9, "fast"), (5, "slow"))]
    assert [each.target.name for each in decide_many(Explicit(), requests, TARGETS)] == ["slow", "fast", "slow"]


def test_without_a_clock_the_newest_job_says_what_time_it_is():
    assert HistorySnapshot(History.of(past("slow", 1))).time == NOW
    assert HistorySnapshot().time == datetime(1970, 1, 1, tzinfo=UTC)


observations = st.lists(
    st.builds(
        TargetObservation,
        name=st.sampled_from(["slow", "fast", "other"]),
        up=st.booleans(),
        active=st.integers(0, 50),
        oldest_pending=st.floats(0, 1e4),
    ),
    max_size=3,
)
policies = st.sampled_from(
    [
        FastestFinish(),
        CheapestWithinDeadline(deadline=50),
        GreenestWithinDeadline(deadline=50),
        Fallback(("slow", "fast")),
    ]
    + [RuleBased()]
)


@given(policies, observations, st.text(max_size=10), st.none() | st.integers(0, 2**45))
def test_equal_input_gives_an_equal_decision_for_a_target_that_is_up(policy, seen, key, size):
    request = PlacementRequest(key=key, size=size)
    down = {each.name: each.up for each in seen}  # the last of a name counts
    if not any(down.get(target.name, True) for target in TARGETS):
        with pytest.raises(TransientError):
            policy.decide(request, TARGETS, seen, KNOWN)
        return
    decision = policy.decide(request, TARGETS, seen, KNOWN)
    assert decision == policy.decide(request, TARGETS, seen, KNOWN)
    assert down.get(decision.target.name, True)
    assert decision.reasons


class TestCircuitBreaker:
    breaker = CircuitBreaker()

    def test_it_opens_after_three_faults_in_a_row_and_lets_one_job_try_later(self):
        records = past("slow", 10, faults=3)
        assert self.breaker.state(records[:-1], now=NOW)[0] is BreakerState.CLOSED
        assert self.breaker.state(records, now=NOW) == (BreakerState.OPEN, NOW + timedelta(minutes=1))
        assert self.breaker.state(records, now=NOW + timedelta(minutes=1))[0] is BreakerState.HALF_OPEN

    @pytest.mark.parametrize(
        ("failing", "opened"),
        [
            (timedelta(minutes=10), timedelta(minutes=1)),
            (timedelta(minutes=100), timedelta(minutes=3)),
            (timedelta(days=2), timedelta(minutes=5)),
        ],
    )
    def test_it_stays_open_for_a_small_share_of_the_time_that_the_target_has_failed(self, failing, opened):
        first = past("slow", 1, count=1, faults=1, ended=NOW - failing)
        records = [*past("slow", 1, ended=NOW - failing - timedelta(hours=1)), *first, *past("slow", 1, faults=2)[-2:]]
        assert self.breaker.state(records, now=NOW)[1] == NOW + opened

    def test_a_success_closes_it(self):
        records = [*past("slow", 10, faults=5), *past("slow", 10, count=1)]
        assert self.breaker.state(records, now=NOW)[0] is BreakerState.CLOSED

    def test_a_failure_of_the_job_is_not_the_targets(self):
        failed = [RunRecord(target="slow", ended_at=0, succeeded=False, submission_id=str(each)) for each in range(9)]
        assert self.breaker.state(failed, now=NOW)[0] is BreakerState.CLOSED

    def test_an_open_target_counts_as_down_and_says_why(self):
        history = History.of(past("slow", 10, faults=3))
        found = {each.name: each for each in self.breaker.apply(TARGETS, (), history, now=NOW)}
        assert found["slow"].up is False
        assert "failed by its fault" in found["slow"].reason
        assert "00:01:00 UTC" in found["slow"].reason
        assert "fast" not in found

    @pytest.mark.parametrize(("active", "up"), [(0, True), (1, False)])
    def test_half_open_lets_one_job_through(self, active, up):
        history = History.of(past("slow", 10, faults=3))
        seen = [TargetObservation(name="slow", active=active)]
        after = NOW + timedelta(hours=1)
        assert {each.up for each in self.breaker.apply(TARGETS, seen, history, now=after) if each.name == "slow"} in (
            {up},
            set() if up else {up},
        )

    def test_a_job_that_was_cancelled_in_the_queue_neither_closes_nor_opens_it(self):
        gone = RunRecord(target="slow", ended_at=NOW.timestamp() + 1, started=False, succeeded=False, submission_id="x")
        failed = past("slow", 10, faults=3)
        assert self.breaker.state([*failed, gone], now=NOW) == self.breaker.state(failed, now=NOW)
        assert self.breaker.state([gone] * 5, now=NOW) == (BreakerState.CLOSED, None)

    def test_what_is_down_for_another_reason_keeps_it(self):
        history = History.of(past("slow", 10, faults=3))
        seen = [TargetObservation(name="slow", up=False, reason="no ping")]
        assert self.breaker.apply(TARGETS, seen, history, now=NOW) == seen


def test_each_decision_of_many_knows_of_those_before_it_and_tells_what_is_expected_whatever_the_policy():
    decisions = decide_many(Fallback(("slow",)), [PlacementRequest()] * 12, TARGETS, (), KNOWN)
    assert [each.active for each in decisions] == list(range(12))
    assert [set(each.predictions) for each in decisions] == [{"slow"}] * 12
    assert decisions[-1].predictions["slow"]["queue"] > decisions[0].predictions["slow"]["queue"]
    assert decide_many(Fallback(("slow",)), [PlacementRequest()], TARGETS)[0].predictions == {}


def of_work(work: str, records: list[RunRecord]) -> list[RunRecord]:
    return [msgspec.structs.replace(each, work=work, submission_id=f"{work}{each.submission_id}") for each in records]


def test_how_long_a_job_takes_is_learnt_of_its_own_work_and_not_of_what_another_dag_does_there():
    """One DAG trains for hours on the GPU, another infers for seconds; both know the targets by the same names."""
    training = of_work("train", past("fast", 3000) + past("slow", 30000))
    inference = of_work("infer", past("fast", 5) + past("slow", 50))
    both = HistorySnapshot(History.of(training + inference), NOW)
    for work, alone in (("train", training), ("infer", inference)):
        request = PlacementRequest(key="x", work=work)
        found = CALM.decide(request, TARGETS, (), both)
        lonely = CALM.decide(request, TARGETS, (), HistorySnapshot(History.of(alone), NOW))
        assert found.target is lonely.target is FAST
        assert found.predictions["fast"]["run"] == pytest.approx(lonely.predictions["fast"]["run"])


def test_a_work_that_is_known_at_one_target_alone_tries_the_other_once_however_slow_others_work_is_there():
    training = of_work("train", past("fast", 30000))
    inference = of_work("infer", past("slow", 50))
    request = PlacementRequest(key="x", work="infer")
    known = HistorySnapshot(History.of(training + inference), NOW)
    busy = [TargetObservation(name="fast", active=1)]
    decisions = decide_many(FastestFinish(explore_every=10**9), [request] * 5, TARGETS, busy, known)
    assert Counter(each.target.name for each in decisions if each) == {"fast": 1, "slow": 4}


def test_until_a_work_has_ended_once_that_of_others_says_which_target_is_fast():
    known = HistorySnapshot(History.of(of_work("train", past("fast", 20) + past("slow", 100))), NOW)
    assert CALM.decide(PlacementRequest(work="infer"), TARGETS, (), known).target is FAST


def test_a_queue_is_everybodys():
    behind = of_work("train", [msgspec.structs.replace(each, queued=900.0) for each in past("fast", 20)])
    known = of_work("infer", past("fast", 20, ended=NOW - timedelta(hours=1)) + past("slow", 100))
    request = PlacementRequest(key="x", work="infer")
    assert CALM.decide(request, TARGETS, (), HistorySnapshot(History.of(known), NOW)).target is FAST
    assert CALM.decide(request, TARGETS, (), HistorySnapshot(History.of(known + behind), NOW)).target is SLOW
