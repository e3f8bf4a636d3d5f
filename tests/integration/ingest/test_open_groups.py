# SPDX-License-Identifier: Apache-2.0
"""Incomplete groups: given up at their time, however many are open and in whatever order they are touched."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.ingest import NewObjects
from airflow_provider_oscar.ingest.handover import StepResult, hand_over
from airflow_provider_oscar.ingest.open_groups import EXPIRING
from airflow_provider_oscar.ingest.timetable import TIMETABLE
from tests.support.metadata_db import MakePlace, World, consumer
from tests.support.object_events import made

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
#: What one step asks of the database at most when no group makes a run, whatever is open or due.
MOST_STATEMENTS = 20


def step(dag_id: str, now: datetime) -> tuple[StepResult, int]:
    """One step of the hand-over, and how many statements it took."""
    from sqlalchemy import event

    statements: list[str] = []

    def listen(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    with db.transaction() as session:
        (found,) = db.find_consumers(session, TIMETABLE, dag_ids=[dag_id])
        db.serialized_dag(session, dag_id)  # the first time it reads more than later
        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", listen)
        try:
            result = hand_over(session, found, now=now)
            session.flush()
        finally:
            event.remove(engine, "before_cursor_execute", listen)
    return result, len(statements)


def given_up(dag_id: str) -> list[str]:
    from airflow.models.log import Log

    with db.transaction() as session:
        query = session.query(Log).filter_by(dag_id=dag_id, event="incomplete group").order_by(Log.id)
        return [entry.extra.partition(" is given up")[0].strip("'\"") for entry in query]


def arrive(world: World, place: NewObjects, names: list[str], when: Callable[[int], datetime]) -> None:
    """Objects arrive; ``when`` says when each does."""
    from airflow.models.asset import AssetEvent

    with db.transaction() as session:
        last = session.query(AssetEvent.id).order_by(AssetEvent.id.desc()).limit(1).scalar() or 0
    world.tell(place.asset, *(made(name) for name in names))
    with db.transaction() as session:
        new = session.query(AssetEvent).filter(AssetEvent.id > last).order_by(AssetEvent.id)
        for number, event in enumerate(new):
            event.timestamp = when(number)


def test_the_oldest_of_many_groups_is_given_up_at_its_time_though_it_was_touched_last(
    world: World, place: MakePlace
) -> None:
    incoming, many = place(), 2 * EXPIRING + 50
    dag = consumer(incoming.group(key=r"(run_\d+)", complete=3, timeout=HOUR))
    world.add(dag)
    start = datetime.now(UTC) - 30 * MINUTE
    arrive(world, incoming, [f"run_{n}.h5" for n in range(many)], lambda n: start + timedelta(seconds=n))
    world.hand_over(dag)
    arrive(world, incoming, [f"run_{n}.log" for n in (1, 0)], lambda n: start + 20 * MINUTE)
    world.hand_over(dag)
    # Nothing is told a moment before, and the step says when to come again.
    due = start + HOUR
    result, _ = step(dag.dag_id, due - timedelta(milliseconds=1))
    assert (given_up(dag.dag_id), result.retry_at) == ([], due)
    for number in range(3):
        result, _ = step(dag.dag_id, due + timedelta(seconds=number))
        assert given_up(dag.dag_id) == [f"run_{n}" for n in range(number + 1)]
        assert (result.more, result.retry_at) == (False, due + timedelta(seconds=number + 1))


def test_statements_of_a_step_do_not_grow_with_the_groups_that_are_open_or_due(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.group(key=r"(run_\d+)", complete=2, timeout=HOUR))
    world.add(dag)
    start = datetime.now(UTC) - 30 * MINUTE
    spent: dict[str, list[int]] = {"opening": [], "nothing": [], "giving up": []}
    first = 0
    for many in (5, 5, 3 * EXPIRING):
        names = [f"run_{n}.h5" for n in range(first, first + many)]
        first += many
        arrive(world, incoming, names, lambda n: start + timedelta(milliseconds=n))
        more = True
        while more:
            result, statements = step(dag.dag_id, start + 30 * MINUTE)
            more = result.more
            spent["opening"].append(statements)
        spent["nothing"].append(step(dag.dag_id, start + 31 * MINUTE)[1])
        more = True
        while more:
            result, statements = step(dag.dag_id, start + 2 * HOUR)
            more = result.more
            spent["giving up"].append(statements)
    assert len(given_up(dag.dag_id)) == first
    for what, counts in spent.items():
        assert max(counts[1:]) <= counts[0] + 3, what
        assert max(counts) <= MOST_STATEMENTS, what


def test_a_set_that_came_in_time_is_complete_however_late_it_is_read(world: World, place: MakePlace) -> None:
    incoming, many = place(), 250
    dag = consumer(incoming.group(key=r"(run_\d+)", complete=[".h5", ".json"], timeout=HOUR))
    world.add(dag, paused=True)
    start = datetime.now(UTC) - 20 * HOUR
    names = [f"run_{n}.{ending}" for ending in ("h5", "json") for n in range(many)]
    arrive(world, incoming, [*names, "run_x.h5", "run_777.h5"], lambda n: start + timedelta(seconds=n))
    world.pause(dag, False)
    made_runs = world.hand_over(dag)
    assert len(made_runs) == many
    assert given_up(dag.dag_id) == ["no group: " + made("run_x.h5").partition_key, "run_777"]


def test_an_entry_without_its_group_is_removed_and_hides_no_other(world: World, place: MakePlace) -> None:
    incoming, many = place(), EXPIRING + 20
    dag = consumer(incoming.group(key=r"(run_\d+)", complete=2, timeout=HOUR))
    world.add(dag)
    start = datetime.now(UTC) - 30 * MINUTE
    arrive(world, incoming, [f"run_{n}.h5" for n in range(many)], lambda n: start + timedelta(seconds=n))
    world.hand_over(dag)
    with db.transaction() as session:  # a person removes groups from the state store
        number = db.asset_id(session, incoming.asset.name)
        assert number is not None
        removed = asset_states.delete_states(session, number, f"group:{dag.dag_id}:", before=start + 2 * HOUR)
    assert removed == many
    arrive(world, incoming, ["run_last.h5", "run_999.h5"], lambda n: start + 29 * MINUTE)
    world.hand_over(dag)
    for _ in range(3):
        step(dag.dag_id, start + 2 * HOUR)
    assert given_up(dag.dag_id)[-1] == "run_999"
    with db.transaction() as session:
        assert asset_states.first_states(session, [number], "group", limit=9) == []


def test_a_time_out_waits_its_turn_where_runs_are_parted(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.group(key=r"(run_\d)", complete=2, timeout=HOUR, on_timeout="run", min_interval=5))
    world.add(dag)
    world.tell(incoming.asset, *(made(name) for name in ("run_0.h5", "run_1.h5", "run_2.h5", "run_2.json")))
    keys = []
    for number in range(4):
        world.hand_over(dag, later=2 * HOUR + timedelta(seconds=6 * number))
        keys.append(len(world.runs(dag)))
    assert keys == [1, 2, 3, 3]


@pytest.mark.parametrize("changes", [1, 2])
def test_groups_go_with_their_place_when_its_filter_is_changed_and_come_back_never(world: World, changes: int) -> None:
    url = f"s3://changing-filters-{changes}/in/"
    dag_id = f"groups_of_changing_filters_{changes}"

    def write(filters: int) -> tuple[NewObjects, object]:
        changed = NewObjects(url, regex="run_" + "(|x)" * filters)
        dag = consumer(changed.group(key=r"(run_\d)", complete=2, timeout=HOUR, on_timeout="run"), dag_id=dag_id)
        world.add(dag)
        return changed, dag

    here, dag = write(0)
    world.tell(here.asset, made("run_0.h5"))
    world.hand_over(dag)
    here, dag = write(1)
    world.hand_over(dag)
    world.tell(here.asset, made("run_0.json"))
    world.hand_over(dag)
    assert world.keys(dag) == [["run_0.h5", "run_0.json"]]
    if changes == 2:
        here, dag = write(2)
    world.hand_over(dag, later=2 * HOUR)
    assert world.keys(dag) == [["run_0.h5", "run_0.json"]]
