# SPDX-License-Identifier: Apache-2.0
"""Records of past jobs survive other tasks that write at the same moment."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.operators.choosing import TargetSelector
from airflow_provider_oscar.operators.placement_store import ATTEMPTS, IN_FLIGHT, PROBE, RunStore, recent_key, run_key
from airflow_provider_oscar.placement.history import KEPT, SKEW, RunRecord, decode_records, encode_records
from airflow_provider_oscar.placement.learned import FastestFinish
from airflow_provider_oscar.placement.occupancy import PlacedJob
from airflow_provider_oscar.placement.targets import PlacementRequest, PlacementTarget, TargetObservation


class Rows:
    """A state store; ``rivals`` are values that other tasks write right after each of our writes of ``recent``."""

    def __init__(self, rivals=()):
        self.values: dict[str, object] = {}
        self.rivals = list(rivals)
        self.reads = 0

    def get(self, key, default=None):
        self.reads += 1
        return self.values.get(key, default)

    def set(self, key, value):
        self.values[key] = value
        if key.startswith("recent:") and self.rivals:
            self.values[key] = self.rivals.pop(0)


def record(number: int, target: str = "hpc") -> RunRecord:
    return RunRecord(target=target, ended_at=float(number), run=1.0, submission_id=f"job-{number}")


def test_what_was_added_is_the_history_of_its_target():
    store = RunStore(Rows())
    for number in range(3):
        store.add(record(number))
    store.add(record(9, "cloud"))
    assert [each.submission_id for each in store.history(["hpc"]).of_target("hpc")] == ["job-0", "job-1", "job-2"]
    assert len(list(store.history(["hpc", "cloud", "never used"]))) == 4


def test_reading_costs_one_row_a_target_whatever_the_number_of_runs():
    rows = Rows()
    store = RunStore(rows)
    for number in range(KEPT + 20):
        store.add(record(number))
    rows.reads = 0
    kept = store.history(["hpc", "cloud"]).of_target("hpc")
    assert rows.reads == 2
    assert [each.ended_at for each in kept] == [float(number) for number in range(20, KEPT + 20)]
    assert len([key for key in rows.values if key.startswith("run:")]) == KEPT + 20
    assert decode_records(rows.values[run_key("job-3")]) == (record(3),)


def test_a_record_that_another_task_overwrites_is_written_again():
    rows = Rows([encode_records([record(7)]), encode_records([record(7), record(8)])])
    RunStore(rows).add(record(1))
    assert {each.submission_id for each in decode_records(rows.values[recent_key("hpc")])} == {
        "job-1",
        "job-7",
        "job-8",
    }


def test_endless_rivals_end_in_an_error_that_airflow_retries():
    rivals = [encode_records([record(number)]) for number in range(50, 50 + ATTEMPTS)]
    with pytest.raises(TransientError, match="job-1"):
        RunStore(Rows(rivals)).add(record(1))


def test_a_record_older_than_all_that_are_kept_is_kept_as_a_run_alone():
    rows = Rows()
    store = RunStore(rows)
    for number in range(100, 100 + KEPT):
        store.add(record(number))
    store.add(record(1))
    assert record(1) not in store.history(["hpc"]).of_target("hpc")
    assert rows.values[run_key("job-1")] == encode_records([record(1)])


def test_rows_that_cannot_be_read_count_as_none():
    rows = Rows()
    rows.values[recent_key("hpc")] = "garbage"
    assert list(RunStore(rows).history(["hpc"])) == []


def test_records_of_a_clock_that_was_far_ahead_are_neither_read_nor_kept_in_the_way_of_new_ones():
    store, now = RunStore(Rows()), datetime.fromtimestamp(KEPT, UTC)
    for number in range(KEPT):
        store.add(record(number + 10**6))
    assert list(store.history(["hpc"], now=now)) == []
    for number in range(KEPT):
        store.add(record(number))
        assert record(number) in store.history(["hpc"], now=now).of_target("hpc")
    assert list(store.history(["hpc"], now=now + SKEW + timedelta(days=365))) == [record(each) for each in range(KEPT)]


NOW = datetime(2026, 6, 1, tzinfo=UTC)


def flying(name: str, *, ago: float = 0.0, seconds: float = 60.0) -> PlacedJob:
    return PlacedJob(job=name, at=NOW.timestamp() - ago, seconds=seconds, late_after=3600)


def test_a_placed_job_is_in_flight_until_its_record_is_kept():
    store = RunStore(Rows())
    store.place("hpc", [flying("a"), flying("b")], now=NOW)
    store.place("hpc", [flying("b", seconds=90), flying("c")], now=NOW)
    assert [(each.job, each.seconds) for each in store.placed(["hpc"], now=NOW)["hpc"]] == [
        ("a", 60.0), ("b", 90.0), ("c", 60.0),
    ]  # fmt: skip
    ended = RunRecord(target="hpc", ended_at=NOW.timestamp() + 50, submission_id="job-b")
    store.add(ended, placement_id="b")
    assert [each.job for each in store.placed(["hpc", "cloud"], now=NOW)["hpc"]] == ["a", "c"]
    assert store.placed(["hpc"], now=NOW + timedelta(hours=2)) == {"hpc": ()}


def test_of_many_jobs_in_flight_the_newest_are_known():
    store = RunStore(Rows())
    store.place("hpc", [flying(str(number)) for number in range(IN_FLIGHT + 5)], now=NOW)
    assert [each.job for each in store.placed(["hpc"], now=NOW)["hpc"]] == [str(each + 5) for each in range(IN_FLIGHT)]


def test_runs_that_start_at_once_do_not_all_go_where_it_was_fastest_before():
    targets = [
        PlacementTarget(name="gpu", kind="oscar", capacity=2, prior_run=30, prior_queue=0),
        PlacementTarget(name="cpu", kind="oscar", capacity=2, prior_run=40, prior_queue=0),
    ]
    rows = Rows()
    for target, seconds in (("gpu", 30.0), ("cpu", 40.0)):
        for number in range(12):
            ended = NOW.timestamp() - 600 + number
            RunStore(rows).add(RunRecord(target=target, ended_at=ended, run=seconds, submission_id=f"{target}{number}"))
    nothing_seen_yet = [TargetObservation(name=target.name) for target in targets]

    def decide(number: int):
        selector = TargetSelector(
            policy=FastestFinish(explore_every=0), targets=targets, store=RunStore(rows), owner=f"run {number}", now=NOW
        )
        return selector.decide(PlacementRequest(), nothing_seen_yet)

    decisions = [decide(number) for number in range(8)]
    assert Counter(each.target.name for each in decisions) == {"gpu": 4, "cpu": 4}
    assert len({each.placement_id for each in decisions}) == 8
    again = decide(0)
    assert again.placement_id == decisions[0].placement_id, "a task that decides once more is one job"
    assert sum(map(len, RunStore(rows).placed(["gpu", "cpu"], now=NOW).values())) == 8


def test_the_job_that_tries_a_failed_target_keeps_others_away_until_it_has_ended_or_is_seen():
    store, now = RunStore(Rows()), datetime.fromtimestamp(1000.0, UTC)
    assert store.claim("hpc", owner="a", now=now)

    def kept_away(owner, seconds=0.0):
        history = store.history(["hpc"])
        return "hpc" in store.probes(["hpc"], history=history, owner=owner, now=now + timedelta(seconds=seconds))

    assert kept_away("b", 60)
    assert not kept_away("a", 60)
    assert not kept_away("b", PROBE)
    store.add(record(999))
    assert kept_away("b", 60)
    store.add(record(1030))
    assert not kept_away("b", 60)


def test_jobs_that_were_killed_are_not_taken_to_run_on_and_to_have_become_slow():
    """Nobody tells the store that a job was killed; that its target does not hold it shows."""
    targets = [PlacementTarget(name=name, kind="oscar", capacity=4) for name in ("fast", "slow")]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    store = RunStore(Rows())
    for name, run in (("fast", 20.0), ("slow", 60.0)):
        for number in range(20):
            ended = now.timestamp() - 2000 + number
            store.add(RunRecord(target=name, ended_at=ended, run=run, queued=1.0, submission_id=f"{name}{number}"))
    killed = [PlacedJob(job=f"killed/{each}", at=now.timestamp() - 400, seconds=20.0) for each in range(12)]
    store.place("fast", killed, now=now)
    selector = TargetSelector(
        policy=FastestFinish(explore_every=0), targets=targets, store=store, owner="dag/run/choose/-1", now=now
    )
    seen = [TargetObservation(name=each.name) for each in targets]
    assert selector.decide(PlacementRequest(key="x"), seen).target.name == "fast"
    assert selector.decide(PlacementRequest(key="x"), []).target.name == "slow", "where nobody has looked they count"


def test_a_job_that_is_over_is_in_flight_no_more_and_no_other_is_touched():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    rows = Rows()
    store = RunStore(rows)
    store.place("hpc", [PlacedJob(job=each, at=now.timestamp(), seconds=9.0) for each in ("a", "b")], now=now)
    for placement_id in ("", "c", "a", "a"):
        store.forget("hpc", placement_id, now=now.timestamp())
    assert [each.job for each in store.placed(["hpc"], now=now)["hpc"]] == ["b"]
