# SPDX-License-Identifier: Apache-2.0
"""From asset events to runs, in Airflow's own database: none lost, none twice, whatever the DAG was doing meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import Asset

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.ingest import NewObjects
from airflow_provider_oscar.ingest.handover import hand_over
from airflow_provider_oscar.ingest.offset import Offset
from airflow_provider_oscar.ingest.timetable import TIMETABLE, NewObjectsTimetable
from tests.support.metadata_db import MakePlace, World, consumer
from tests.support.object_events import NOON, made


def test_each_object_gets_its_own_run(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.each())
    world.add(dag)
    world.tell(incoming.asset, *(made(f"{n}.h5", second=n) for n in range(5)))
    assert len(world.hand_over(dag)) == 5
    runs = world.runs(dag)
    assert world.keys(dag) == [[f"{n}.h5"] for n in range(5)]
    assert [run.partition_key for run in runs] == [made(f"{n}.h5", second=n).partition_key for n in range(5)]
    assert [run.partition_date for run in runs] == [NOON + timedelta(seconds=n) for n in range(5)]
    assert {str(run.state) for run in runs} == {"queued"}
    assert {str(run.run_type) for run in runs} == {"asset_triggered"}


def test_a_repeated_report_makes_no_second_run_and_a_new_version_does(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.each())
    world.add(dag)
    world.tell(incoming.asset, made("a"), made("a"))
    assert len(world.hand_over(dag)) == 1
    world.tell(incoming.asset, made("a"), made("a", second=1))
    assert len(world.hand_over(dag)) == 1
    world.age(timedelta(minutes=2))
    world.tell(incoming.asset, made("a"))
    assert world.hand_over(dag) == []
    assert len(world.runs(dag)) == 2


def test_a_paused_dag_gets_later_what_came_meanwhile(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.each())
    world.add(dag, paused=True)
    world.tell(incoming.asset, made("a"), made("b"))
    assert world.hand_over(dag) == []
    world.age(timedelta(hours=30))
    world.tell(incoming.asset, made("c"))
    world.pause(dag, False)
    world.hand_over(dag)
    # It was switched on for the first time; what came longer ago than its history is not its own.
    assert world.keys(dag) == [["c"]]
    world.pause(dag)
    world.tell(incoming.asset, made("d"))
    world.hand_over(dag)
    world.age(timedelta(days=30))
    world.pause(dag, False)
    world.hand_over(dag)
    assert world.keys(dag) == [["c"], ["d"]]


def test_a_dag_added_later_gets_what_came_in_its_history(world: World, place: MakePlace) -> None:
    incoming = place()
    first = consumer(incoming.each())
    world.add(first)
    world.tell(incoming.asset, made("old"))
    world.age(timedelta(days=2))
    world.tell(incoming.asset, made("new"))
    world.hand_over(first)
    late = consumer(incoming.each())
    all_of_it = consumer(incoming.each(history=timedelta(days=7)))
    world.add(late, all_of_it)
    for dag in (late, all_of_it):
        world.hand_over(dag)
    assert world.keys(late) == [["new"]]
    assert world.keys(all_of_it) == [["old"], ["new"]]


def test_airflow_itself_makes_no_run_and_its_queue_is_emptied(world: World, place: MakePlace) -> None:
    from airflow.models.asset import AssetDagRunQueue
    from airflow.models.dag import DagModel

    incoming = place()
    dag = consumer(incoming.each())
    world.add(dag)
    world.tell(incoming.asset, made("a"))
    with db.transaction() as session:
        assert session.query(AssetDagRunQueue).count() == 1
        dags, triggered = DagModel.dags_needing_dagruns(session)
        assert dag.dag_id not in {each.dag_id for each in dags}
        assert dag.dag_id not in triggered
    world.hand_over(dag)
    with db.transaction() as session:
        assert session.query(AssetDagRunQueue).count() == 0


def test_the_timetable_survives_the_database(world: World, place: MakePlace) -> None:
    incoming = place(suffix=".h5")
    schedules = (
        incoming.each(history=3),
        incoming.batch(size=7, wait=3, max_bytes=5),
        incoming.group(key=r"(\d+)", complete=[".h5", ".json"], timeout=None, on_timeout="run"),
    )
    for schedule in schedules:
        dag = consumer(schedule)
        world.add(dag)
        with db.transaction() as session:
            (found,) = db.find_consumers(session, TIMETABLE, dag_ids=[dag.dag_id])
            assert len(found.assets) == 1
            stored = db.serialized_dag(session, dag.dag_id).timetable
        assert isinstance(stored, NewObjectsTimetable)
        assert (stored.policy, stored.history) == (schedule.policy, schedule.history)


def test_an_event_that_becomes_visible_late_is_not_passed_over(world: World, place: MakePlace) -> None:
    from airflow.models.asset import AssetEvent, AssetModel

    incoming = place()
    dag = consumer(incoming.each())
    world.add(dag)
    world.tell(incoming.asset, made("a"), made("late"), made("b"))
    with db.transaction() as session:  # as if its transaction were not committed yet
        late = session.query(AssetEvent).order_by(AssetEvent.id).all()[1]
        number, extra, time = late.id, late.extra, late.timestamp
        session.delete(late)
    world.hand_over(dag)
    with db.transaction() as session:
        asset = session.query(AssetModel).filter_by(name=incoming.asset.name).one()
        session.add(AssetEvent(id=number, asset_id=asset.id, extra=extra, timestamp=time))
    world.hand_over(dag)
    assert sorted(world.keys(dag)) == [["a"], ["b"], ["late"]]


def test_the_place_of_a_dag_moves_up_when_events_are_old_and_stays_small(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.each())
    world.add(dag)
    world.tell(incoming.asset, *(made(str(n)) for n in range(3)), made("0"))
    world.hand_over(dag)
    before = world.offset(dag, incoming.asset)
    assert len(before["handled"]) == 1
    assert world.hand_over(dag, later=timedelta(minutes=2)) == []
    after = world.offset(dag, incoming.asset)
    with db.transaction() as session:
        assert after["event"] == db_events.newest_event(session) > before["event"]
    assert "handled" not in after
    assert after["runs"] == 3


def test_a_step_asks_for_the_same_whatever_waits(world: World, place: MakePlace) -> None:
    from sqlalchemy import event as sqlalchemy_event

    incoming = place()
    dag = consumer(incoming.batch(size=10, wait=0))
    world.add(dag)

    def cost(waiting: int) -> int:
        world.tell(incoming.asset, *(made(f"{waiting}-{n}") for n in range(waiting)))
        statements = []
        with db.transaction() as session:
            engine = session.get_bind()
            listen = lambda *args: statements.append(args[2])  # noqa: E731
            sqlalchemy_event.listen(engine, "before_cursor_execute", listen)
            (consumer_,) = db.find_consumers(session, TIMETABLE, dag_ids=[dag.dag_id])
            result = hand_over(session, consumer_, now=datetime.now(UTC))
            session.flush()
            sqlalchemy_event.remove(engine, "before_cursor_execute", listen)
        assert len(result.runs) == 2
        return len(statements)

    first = cost(20)
    world.hand_over(dag)
    assert cost(400) <= first + 2


def test_two_services_never_serve_a_dag_at_once(
    world: World, place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = place()
    dag = consumer(incoming.each())
    world.add(dag)
    world.tell(incoming.asset, made("a"))
    monkeypatch.setattr(asset_states, "locked_state", lambda *_: None)  # what a database with row locks answers then
    with db.transaction() as session:
        (found,) = db.find_consumers(session, TIMETABLE, dag_ids=[dag.dag_id])
        assert hand_over(session, found).runs == []
    assert world.runs(dag) == []


def test_events_of_other_producers_make_runs_too(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.each())
    world.add(dag)
    world.event(incoming.asset, {"uri": "s3://bucket/x.h5"}, partition_key="my key")
    world.event(incoming.asset, {"uri": "s3://bucket/y.h5"}, partition_key="my key")
    world.event(incoming.asset, {"object": made("z").to_dict()})
    world.hand_over(dag)
    assert [run.partition_key for run in world.runs(dag)] == ["my key", made("z").partition_key]


def test_several_places_share_a_dag_in_the_order_of_their_events(world: World, place: MakePlace) -> None:
    one, other = place(), place(suffix=".h5")
    dag = consumer((one | other).each())
    world.add(dag)
    world.tell(other.asset, made("1"))
    world.tell(one.asset, made("2"))
    world.tell(other.asset, made("3"))
    world.hand_over(dag)
    assert world.keys(dag) == [["1"], ["2"], ["3"]]


def test_batches_end_by_size_bytes_or_time(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.batch(size=3, wait=60, max_bytes=100))
    world.add(dag)
    world.tell(incoming.asset, *(made(str(n)) for n in range(4)), made("big", size=99), made("last"))
    world.hand_over(dag)
    assert world.keys(dag) == [["0", "1", "2"], ["3", "big"]]
    world.hand_over(dag, later=timedelta(seconds=59))
    assert len(world.runs(dag)) == 2
    world.tell(incoming.asset, made("0"))  # repeated after a crash of the watcher
    world.hand_over(dag, later=timedelta(seconds=61))
    assert world.keys(dag)[2:] == [["last"]]


def test_a_version_repeated_while_it_waits_for_its_batch_is_in_it_once(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.batch(size=10, wait=timedelta(minutes=5)))
    world.add(dag)
    world.tell(incoming.asset, made("a"))
    world.tell(incoming.asset, made("a"), made("b"))  # repeated after a crash of the watcher
    for _ in range(3):
        world.hand_over(dag)
    assert world.keys(dag) == []
    world.hand_over(dag, later=timedelta(minutes=6))
    assert world.keys(dag) == [["a", "b"]]
    world.tell(incoming.asset, made("a"))
    world.hand_over(dag, later=timedelta(minutes=20))
    assert world.keys(dag) == [["a", "b"]]


def test_a_group_runs_when_it_is_complete(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.group(key=r"(run_\d+)", complete=[".h5", ".json"], timeout=3600))
    world.add(dag)
    world.tell(incoming.asset, made("run_1.h5"), made("run_2.h5"), made("notes.txt"))
    assert world.hand_over(dag) == []
    world.age(timedelta(minutes=5))
    assert world.hand_over(dag) == []
    world.tell(incoming.asset, made("run_2.json"), made("run_1.log"))
    world.hand_over(dag)
    assert world.keys(dag) == [["run_2.h5", "run_2.json"]]
    world.tell(incoming.asset, made("run_1.json"))
    world.hand_over(dag)
    assert world.keys(dag)[1:] == [["run_1.h5", "run_1.log", "run_1.json"]]


@pytest.mark.parametrize("on_timeout", ["drop", "run"])
def test_an_incomplete_group_is_given_up_and_told(world: World, place: MakePlace, on_timeout: str) -> None:
    from airflow.models.log import Log

    incoming = place()
    dag = consumer(incoming.group(key=r"(run_\d+)", complete=2, timeout=3600, on_timeout=on_timeout))
    world.add(dag)
    world.tell(incoming.asset, made("run_1.h5"))
    world.hand_over(dag)
    made_runs = world.hand_over(dag, later=timedelta(hours=2))
    with db.transaction() as session:
        told = [entry.extra for entry in session.query(Log).filter_by(dag_id=dag.dag_id, event="incomplete group")]
    if on_timeout == "run":
        assert world.keys(dag) == [["run_1.h5"]]
        assert world.runs(dag)[0].conf == {"oscar_incomplete_group": True}
    else:
        assert made_runs == []
        assert len(told) == 1
        assert "run_1.h5" in told[0]
    # It is forgotten: a late member begins a new group.
    world.tell(incoming.asset, made("run_1.json"))
    assert world.hand_over(dag, later=timedelta(minutes=1)) == []


def test_an_offset_that_cannot_be_read_counts_as_none() -> None:
    assert Offset.from_json({"event": "x"}) is None
    assert Offset.from_json(None) is None
    whole = Offset(low=5, handled=(7, 9), recent=b"12345678", runs=3, updated=datetime(2026, 11, 28, tzinfo=UTC))
    assert Offset.from_json(whole.to_json()) == whole


def test_min_interval_parts_runs_and_loses_nothing(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.each(min_interval=timedelta(seconds=5)))
    world.add(dag)
    world.tell(incoming.asset, *(made(f"{n}", second=n) for n in range(3)))
    assert len(world.hand_over(dag)) == 1
    assert world.hand_over(dag, later=timedelta(seconds=3)) == []
    assert len(world.hand_over(dag, later=timedelta(seconds=6))) == 1
    assert world.hand_over(dag, later=timedelta(seconds=10)) == []
    assert len(world.hand_over(dag, later=timedelta(seconds=12))) == 1
    assert world.hand_over(dag, later=timedelta(seconds=60)) == []
    assert world.keys(dag) == [["0"], ["1"], ["2"]]


def test_min_interval_says_when_the_next_run_is_due(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.each(min_interval=5))
    world.add(dag)
    world.tell(incoming.asset, made("a"), made("b"))
    now = datetime.now(UTC)
    with db.transaction() as session:
        (found,) = db.find_consumers(session, TIMETABLE, dag_ids=[dag.dag_id])
        first = hand_over(session, found, now=now)
    with db.transaction() as session:
        second = hand_over(session, found, now=now + timedelta(seconds=1))
    assert (first.more, first.retry_at) == (False, now + timedelta(seconds=5))
    assert second.retry_at is not None
    assert abs(second.retry_at - first.retry_at) < timedelta(milliseconds=2)


@pytest.mark.parametrize("kind", ["batch", "group"])
def test_min_interval_parts_batches_and_groups_as_well(world: World, place: MakePlace, kind: str) -> None:
    incoming = place()
    schedule = (
        incoming.batch(size=2, wait=3600, min_interval=5)
        if kind == "batch"
        else incoming.group(key=r"(run\d)", complete=2, min_interval=5)
    )
    dag = consumer(schedule)
    world.add(dag)
    names = [f"run{n}.{ending}" for n in range(3) for ending in ("h5", "json")]
    world.tell(incoming.asset, *(made(name) for name in names))
    for step in range(3):
        assert len(world.hand_over(dag, later=timedelta(seconds=6 * step))) == 1
    assert world.keys(dag) == [names[0:2], names[2:4], names[4:6]]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_an_interval_that_cannot_be_is_refused(place: MakePlace, seconds: float) -> None:
    with pytest.raises(DefinitionError, match="expected 0 seconds or more"):
        place().each(min_interval=seconds)


def test_an_asset_that_others_tell_of_objects_is_a_source(world: World) -> None:
    told = Asset(f"told of {datetime.now(UTC).timestamp()}")
    dag = consumer(NewObjects(told).each())
    world.add(dag)
    world.event(told, {"object": made("a").to_dict()})
    world.event(told, {"bucket": "bucket", "key": "b"})
    assert len(world.hand_over(dag)) == 2
    assert told.watchers == []
    with pytest.raises(DefinitionError, match="a filter has nothing to choose from"):
        NewObjects(told, suffix=".h5")


def test_a_result_told_twice_has_one_run_and_a_new_result_another(world: World) -> None:
    told = Asset(f"results {datetime.now(UTC).timestamp()}")
    dag = consumer(NewObjects(told).each())
    world.add(dag)
    for digest in ("1", "1", "2"):
        files = [{"uri": "s3://out/a", "conn_id": "c", "sha256": digest}]
        world.event(told, {"job_id": "count-1", "objects": files}, partition_key="of the run before")
    assert len(world.hand_over(dag)) == 2
    assert {run.partition_key.rpartition("-")[0] for run in world.runs(dag)} == {"count-1"}
