# SPDX-License-Identifier: Apache-2.0
"""What a DAG takes over when its filter or its groups are changed: replaced members, open groups, what others keep."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_oscar import NewObjects
from airflow_provider_oscar.ingest.offset import Offset
from tests.support.metadata_db import MakePlace, World, consumer
from tests.support.object_events import made

GROUP: dict[str, Any] = {"key": r"(run_\d+)", "complete": 2, "timeout": 3600}


@pytest.fixture(autouse=True)
def _write_each_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Airflow write a changed DAG at once; by default it does no sooner than 30 s after the last time."""
    monkeypatch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")


def at_once(place: NewObjects) -> Any:
    return place.batch(wait=0)


def changed(place: NewObjects, **filters: Any) -> NewObjects:
    return NewObjects(place.assets[0].extra["watches"], **filters)


@pytest.mark.parametrize("cleaned", [False, True], ids=["before Airflow cleans up", "after Airflow cleaned up"])
@pytest.mark.parametrize("repeated", [False, True], ids=["", "and its watcher tells it again"])
def test_a_member_that_was_replaced_stays_replaced_after_a_change_of_the_filter(
    world: World, place: MakePlace, cleaned: bool, repeated: bool
) -> None:
    old = place(glob="run_*")
    group = {**GROUP, "on_timeout": "run"}
    dag = consumer(old.group(**group))
    world.add(dag)
    first, second = made("run_1.h5", second=1), made("run_1.h5", second=2)
    for found in (first, second, made("run_1.json", second=3)):
        world.tell(old.asset, found)
        world.hand_over(dag)
    new = changed(old, glob="run_?*")
    dag = consumer(new.group(**group), dag_id=dag.dag_id)
    world.add(dag)
    if cleaned:
        world.clean_up()
    if repeated:
        world.tell(new.asset, first)
    world.hand_over(dag)
    world.tell(new.asset, made("run_1.log", second=4))
    world.hand_over(dag)
    world.hand_over(dag, later=timedelta(hours=2))
    assert [run.objects for run in world.runs(dag)] == [["run_1.h5", "run_1.json"], ["run_1.log"]]
    assert first.partition_key not in sum((run.versions for run in world.runs(dag)), [])


def test_an_object_that_was_given_up_stays_given_up_after_a_change_of_the_filter(
    world: World, place: MakePlace
) -> None:
    old = place(glob="run_*")
    dag = consumer(old.group(**GROUP))
    world.add(dag)
    world.tell(old.asset, made("run_1.h5"))
    world.hand_over(dag, later=timedelta(hours=2))
    new = changed(old, glob="run_?*")
    dag = consumer(new.group(**GROUP), dag_id=dag.dag_id)
    world.add(dag)
    world.tell(new.asset, made("run_1.h5"), made("run_1.json"))
    world.hand_over(dag)
    assert world.runs(dag) == []


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (lambda place: place.each(), [["run_1.h5"], ["run_2.h5"], ["run_2.json"]]),
        (at_once, [["run_1.h5", "run_2.h5", "run_2.json"]]),
        (lambda place: place.group(key=r"run_", complete=3), [["run_1.h5", "run_2.h5", "run_2.json"]]),
        (lambda place: place.group(**{**GROUP, "complete": 1}), [["run_1.h5"], ["run_2.h5"], ["run_2.json"]]),
        (lambda place: place.group(**GROUP, on_timeout="run"), [["run_2.h5", "run_2.json"]]),
    ],
    ids=["each", "batch", "another key", "fewer members", "another end"],
)
@pytest.mark.parametrize("filtered", [False, True], ids=["same filter", "another filter"])
def test_members_of_open_groups_wait_again_when_other_groups_or_none_are_wanted(
    world: World, place: MakePlace, schedule: Any, expected: list[list[str]], paused: bool, filtered: bool
) -> None:
    incoming = place(glob="run_*")
    dag = consumer(incoming.group(**GROUP))
    world.add(dag)
    replaced = made("run_1.h5", second=1)
    world.tell(incoming.asset, replaced, made("run_1.h5", second=2), made("run_2.h5", second=3))
    assert world.hand_over(dag) == []
    world.age(timedelta(minutes=5))
    world.hand_over(dag)
    if filtered:
        incoming = changed(incoming, glob="run_?*")
    dag = consumer(schedule(incoming), dag_id=dag.dag_id)
    world.add(dag, paused=paused)
    assert world.hand_over(dag) == [] or not paused
    if paused:
        world.clean_up()
        world.pause(dag, False)
    world.tell(incoming.asset, made("run_2.json", second=4))
    world.hand_over(dag)
    world.hand_over(dag)
    found = sorted(sorted(keys) for keys in world.keys(dag))
    if schedule is at_once and not paused:
        expected = [["run_1.h5", "run_2.h5"], ["run_2.json"]]  # the members wait no longer than the batch does
    assert found == expected
    assert replaced.partition_key not in sum((run.versions for run in world.runs(dag)), [])


@pytest.mark.parametrize("schedule", ["each", "batch", "plain"])
def test_what_waited_for_a_paused_dag_is_delivered_though_another_dag_keeps_the_filter(
    world: World, place: MakePlace, schedule: str
) -> None:
    old = place(suffix=".h5")
    more = {"batch": {"wait": 0}}.get(schedule, {})

    def schedule_of(incoming: NewObjects) -> Any:
        return [incoming.asset] if schedule == "plain" else getattr(incoming, schedule)(**more)

    dag, other = consumer(schedule_of(old)), consumer(old.each())
    world.add(dag, other)
    world.tell(old.asset, made("a.h5"))
    world.schedule(dag) if schedule == "plain" else world.hand_over(dag)
    world.end(dag, "success")
    world.pause(dag)
    world.tell(old.asset, made("b.h5"), made("c.h5"))
    new = changed(old, regex=r"[ab][.]h5$")
    dag = consumer(schedule_of(new), dag_id=dag.dag_id)
    world.add(dag)
    world.tell(new.asset, made("d.h5"))
    world.schedule(dag) if schedule == "plain" else world.hand_over(dag)
    world.end(dag, "success")
    assert sorted(sum(world.keys(dag), [])) == ["a.h5", "b.h5", "d.h5"]
    world.hand_over(other)
    assert sorted(sum(world.keys(other), [])) == ["a.h5", "b.h5", "c.h5"]


def test_a_filter_that_another_dag_keeps_is_followed_for_minutes_only(world: World, place: MakePlace) -> None:
    old = place(suffix=".h5")
    dag, other = consumer(old.each()), consumer(old.each())
    world.add(dag, other)
    world.tell(old.asset, made("a.h5"))
    world.hand_over(dag)
    new = changed(old, regex="[.]h5$")
    dag = consumer(new.each(), dag_id=dag.dag_id)
    world.add(dag)
    world.hand_over(dag)
    world.tell(old.asset, made("b.h5"))
    world.hand_over(dag)
    world.age(timedelta(minutes=2))
    world.hand_over(dag, later=timedelta(minutes=15))
    world.tell(old.asset, made("c.h5"))
    world.hand_over(dag, later=timedelta(minutes=15))
    offset = Offset.from_json(world.offset(dag, new.asset))
    assert offset is not None
    assert (offset.former, world.keys(dag)) == ((), [["a.h5"], ["b.h5"]])


def test_a_batch_that_is_long_in_coming_is_not_passed_over_by_many_repetitions(
    world: World, place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_oscar.ingest.handover._HANDLED_LIMIT", 3)
    incoming = place()
    dag = consumer(incoming.batch(size=2, wait=86_400))
    world.add(dag)
    done = [made("a.h5"), made("b.h5")]
    world.tell(incoming.asset, *done)
    world.hand_over(dag)
    world.tell(incoming.asset, made("c.h5"))
    for _ in range(4):
        world.tell(incoming.asset, *done)
        world.hand_over(dag)
    world.tell(incoming.asset, made("d.h5"))
    world.hand_over(dag)
    assert world.keys(dag) == [["a.h5", "b.h5"], ["c.h5", "d.h5"]]
