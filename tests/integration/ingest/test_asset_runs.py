# SPDX-License-Identifier: Apache-2.0
"""Plain asset-aware DAGs get all objects since their last success, whatever Airflow gave them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk import Asset, AssetAll, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar.ingest import asset_runs
from tests.support.metadata_db import MakePlace, World, consumer
from tests.support.object_events import made


def start(world: World, dag: Any, *, events: int = 1, end: str | None = None, again: bool = False) -> list[str]:
    """Make a run with the first waiting events, as Airflow's scheduler does, and start it; return its objects."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.models.dagrun import DagRun
    from airflow.utils.sqlalchemy import prohibit_commit
    from airflow.utils.state import DagRunState

    with db.transaction() as session, prohibit_commit(session):
        dag_ = db.serialized_dag(session, dag.dag_id)
        names = [key.name for key, _ in dag_.timetable.asset_condition.iter_assets()]
        ids = [asset.id for asset in session.query(AssetModel).filter(AssetModel.name.in_(names))]
        query = session.query(AssetEvent).filter(AssetEvent.asset_id.in_(ids))
        if not again:
            query = query.filter(~AssetEvent.created_dagruns.any())
        first = query.order_by(AssetEvent.id).limit(events).all()
        now = datetime.now(UTC)
        run = db_events.create_run(
            session, dag_, run_id=f"asset_triggered__{now.isoformat()}", partition_key=None, partition_date=None,  # type: ignore[arg-type]
            events=first, conf=None, now=now,
        )  # fmt: skip
        run.state = DagRunState.RUNNING
        session.flush()
        run.notify_dagrun_state_changed(msg="started")  # what the scheduler calls, and with it the plugin's listener
        number = run.id
    objects = next(each.objects for each in world.runs(dag) if each.id == number)
    if end is not None:
        with db.transaction() as session:
            session.get(DagRun, number).state = end
    return objects


SCHEDULES = {
    "a list": lambda incoming: [incoming.asset],
    "a reference": lambda incoming: [Asset.ref(name=incoming.asset.name)],
    "any": lambda incoming: AssetAny(incoming.asset, Asset("other-asset")),
    "all": lambda incoming: AssetAll(incoming.asset),
    "or time": lambda incoming: AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 0 * * *", timezone="UTC"), assets=[incoming.asset]
    ),
}


@pytest.mark.parametrize("schedule", [s for name, s in SCHEDULES.items() if name != "a reference"],
                         ids=[name for name in SCHEDULES if name != "a reference"])  # fmt: skip
def test_a_run_gets_all_objects_since_the_last_success(world: World, place: MakePlace, schedule: Any) -> None:
    incoming = place()
    dag = consumer(schedule(incoming), start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False)
    world.add(dag)
    world.tell(incoming.asset, *(made(str(n)) for n in range(5)))
    assert start(world, dag, end="success") == ["0", "1", "2", "3", "4"]
    world.tell(incoming.asset, made("5"), made("6"))
    assert start(world, dag, end="failed") == ["5", "6"]
    world.tell(incoming.asset, made("7"))
    assert start(world, dag, events=0, end="success") == ["5", "6", "7"]
    assert start(world, dag, events=0) == []


def test_a_reference_to_the_asset_works_as_the_asset(world: World, place: MakePlace) -> None:
    incoming = place()
    anchor = consumer(incoming.each())
    dag = consumer(SCHEDULES["a reference"](incoming))
    world.add(anchor, dag)
    world.tell(incoming.asset, made("a"), made("b"))
    assert start(world, dag, events=0) == ["a", "b"]


def test_runs_at_the_same_time_share_nothing(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag)
    world.tell(incoming.asset, made("a"), made("b"))
    assert start(world, dag) == ["a", "b"]
    world.tell(incoming.asset, made("c"))
    assert start(world, dag, events=0) == ["c"]


def test_what_airflow_gives_a_second_time_is_taken_away(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag)
    world.tell(incoming.asset, made("a"), made("b"))
    assert start(world, dag, end="success") == ["a", "b"]
    world.tell(incoming.asset, made("c"))
    # Airflow's window begins when the run before was asked for, that is with its first event.
    assert start(world, dag, events=3, again=True, end="failed") == ["c"]
    assert start(world, dag, events=3, again=True) == ["c"]


def test_a_run_takes_a_bounded_number_and_asks_for_another(
    world: World, place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models.asset import AssetDagRunQueue

    monkeypatch.setattr(asset_runs, "MOST_OBJECTS", 3)
    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag)
    world.tell(incoming.asset, *(made(str(n)) for n in range(5)))
    with db.transaction() as session:
        session.query(AssetDagRunQueue).delete()
    assert start(world, dag, end="success") == ["0", "1", "2"]
    with db.transaction() as session:
        assert session.query(AssetDagRunQueue).filter_by(target_dag_id=dag.dag_id).count() == 1
    assert start(world, dag, end="success") == ["3", "4"]


@pytest.mark.parametrize("events", [3, 5], ids=["as many as a run takes", "more than a run takes"])
def test_what_airflow_gives_beyond_a_bounded_number_waits_for_another_run(
    world: World, place: MakePlace, monkeypatch: pytest.MonkeyPatch, events: int
) -> None:
    from airflow.models.asset import AssetDagRunQueue

    monkeypatch.setattr(asset_runs, "MOST_OBJECTS", 3)
    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag)
    world.tell(incoming.asset, *(made(str(n)) for n in range(3)), made("0"), made("4"))
    with db.transaction() as session:
        session.query(AssetDagRunQueue).delete()
    # As after a pause: everything since the run before.
    assert start(world, dag, events=events, end="success") == ["0", "1", "2"]
    with db.transaction() as session:
        assert session.query(AssetDagRunQueue).filter_by(target_dag_id=dag.dag_id).count() == 1
    assert start(world, dag, events=0, end="success") == ["4"]
    assert start(world, dag, events=0) == []


def test_events_of_other_assets_take_room_and_are_never_taken_away(
    world: World, place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asset_runs, "MOST_OBJECTS", 2)
    incoming, stranger = place(), Asset("strangers-asset-with-room")
    dag = consumer(AssetAny(incoming.asset, stranger))
    world.add(dag)
    world.tell(stranger, *(made(f"x{n}") for n in range(3)))
    world.tell(incoming.asset, made("a"), made("b"), made("c"))
    assert start(world, dag, events=4, end="success") == ["x0", "x1", "x2"]
    assert start(world, dag, events=0, end="success") == ["a", "b"]
    assert start(world, dag, events=0, end="success") == ["c"]


def test_a_cleared_run_and_other_assets_are_left_alone(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer([incoming.asset])
    stranger = consumer([Asset("strangers-asset")])
    world.add(dag, stranger)
    world.tell(incoming.asset, made("a"))
    assert start(world, dag, end="success") == ["a"]
    world.tell(incoming.asset, made("b"))
    with db.transaction() as session:
        run = session.merge(world.runs(dag)[0])
        run.clear_number = 1
        assert asset_runs.complete_events(session, run) == 0
    world.tell(Asset("strangers-asset"), made("x"), made("y"))
    assert start(world, stranger) == ["x"]


def test_a_version_told_again_is_not_given_to_a_second_run(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag)
    world.tell(incoming.asset, made("a"), made("b"))
    assert start(world, dag, end="success") == ["a", "b"]
    # The watcher died before it noted what it had told, or its memory was lost.
    world.tell(incoming.asset, made("a"), made("b"), made("c"), made("c"))
    assert start(world, dag, end="success") == ["c"]
    world.tell(incoming.asset, made("b"))
    assert start(world, dag, end="success") == []
    world.tell(incoming.asset, made("b", second=1))
    assert start(world, dag, end="success") == ["b"]


def test_objects_of_a_failed_run_are_due_again_though_their_versions_are_known(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag)
    world.tell(incoming.asset, made("a"))
    assert start(world, dag, end="failed") == ["a"]
    world.tell(incoming.asset, made("a"), made("b"))
    assert start(world, dag, events=0, end="failed") == ["a", "b"]
    assert start(world, dag, events=0, end="success") == ["a", "b"]
    assert start(world, dag, events=0) == []


def test_repetitions_do_not_hold_up_the_place_of_a_dag(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag)
    world.tell(incoming.asset, made("a"))
    start(world, dag, end="success")
    world.tell(incoming.asset, made("a"), made("a"))
    start(world, dag, end="success")
    world.age(timedelta(minutes=5))
    world.tell(incoming.asset, made("b"))
    start(world, dag, end="success")
    found = world.offset(dag, incoming.asset)
    assert found["event"] >= 3
    assert "handled" not in found


def test_an_error_while_a_run_is_completed_leaves_the_scheduler_its_transaction(
    world: World, place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models.asset_state_store import AssetStateStoreModel

    def fail(session: Any, *args: Any) -> None:
        session.add(AssetStateStoreModel(asset_id=None, key="x", value="null"))
        session.flush()

    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag)
    for number in range(3):
        world.tell(incoming.asset, made(f"in/run_{number}.h5"))
    with monkeypatch.context() as patch:
        patch.setattr(asset_runs.asset_states, "set_state", fail)
        assert start(world, dag, end="success") == ["in/run_0.h5"], "what Airflow itself gives it"
    assert start(world, dag) == ["in/run_1.h5", "in/run_2.h5"]


SCHEDULES_OF_ONE = [SCHEDULES[name] for name in ("a list", "any", "all", "or time")]


def tasks(run: Any) -> dict[str, str | None]:
    from airflow.models.taskinstance import TaskInstance

    with db.transaction() as session:
        found = session.query(TaskInstance).filter_by(dag_id=run.dag_id, run_id=run.run_id)
        return {each.task_id: each.state for each in found}


def note(run: Any) -> str | None:
    from airflow.models.dagrun import DagRun

    with db.transaction() as session:
        return session.get(DagRun, run.id).note


@pytest.mark.parametrize("schedule", SCHEDULES_OF_ONE, ids=["a list", "any", "all", "or time"])
def test_a_run_about_nothing_new_is_skipped(world: World, place: MakePlace, schedule: Any) -> None:
    incoming = place()
    dag = consumer(schedule(incoming), start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False)
    world.add(dag)
    world.tell(incoming.asset, made("a"))
    world.schedule(dag)
    world.end(dag, "success")
    world.tell(incoming.asset, made("a"))
    world.schedule(dag)
    first, second = world.runs(dag)
    assert (first.objects, note(first)) == (["a"], None)
    assert (second.objects, second.state, tasks(second)) == ([], "success", {"work": "skipped"})
    assert second.start_date <= second.end_date
    assert "have all" in (note(second) or "")
    world.tell(incoming.asset, made("a"), made("b"))
    world.schedule(dag)
    third = world.runs(dag)[2]
    assert (third.objects, third.state, tasks(third)) == (["b"], "running", {"work": None})


def test_the_scheduler_goes_on_with_a_run_that_was_skipped(world: World, place: MakePlace) -> None:
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.dagrun import DagRun
    from airflow.utils.sqlalchemy import prohibit_commit

    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag)
    world.tell(incoming.asset, made("a"))
    world.schedule(dag)
    world.tell(incoming.asset, made("a"))
    world.schedule(dag)
    scheduler = SchedulerJobRunner(job=Job())
    with db.transaction() as session, prohibit_commit(session) as guard:
        running = list(DagRun.get_running_dag_runs_to_examine(session=session))
        scheduler._schedule_all_dag_runs(guard, running, session)
    assert [(run.objects, run.state) for run in world.runs(dag)] == [(["a"], "running"), ([], "success")]
    assert [tasks(run) for run in world.runs(dag)] == [{"work": "success"}, {"work": "skipped"}]


def test_a_repetition_beside_a_strangers_event_leaves_the_run_alone(world: World, place: MakePlace) -> None:
    incoming, stranger = place(), Asset("a-strangers-asset-beside")
    dag = consumer(AssetAny(incoming.asset, stranger))
    world.add(dag)
    world.tell(incoming.asset, made("a"))
    world.schedule(dag)
    world.end(dag, "success")
    world.tell(incoming.asset, made("a"))
    world.event(stranger, {"told": "by somebody else"})
    world.schedule(dag)
    second = world.runs(dag)[1]
    assert (second.objects, len(second.consumed), second.state) == ([], 1, "running")


def test_a_run_that_time_made_is_not_skipped_because_nothing_came(world: World, place: MakePlace) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.utils.types import DagRunType

    incoming = place()
    dag = consumer(SCHEDULES["or time"](incoming), start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False)
    world.add(dag)
    world.tell(incoming.asset, made("a"))
    world.schedule(dag)
    world.end(dag, "success")
    world.tell(incoming.asset, made("a"))
    world.schedule(dag, start=False)
    with db.transaction() as session:
        session.get(DagRun, world.runs(dag)[1].id).run_type = DagRunType.SCHEDULED
    world.schedule(dag)
    assert (world.runs(dag)[1].objects, world.runs(dag)[1].state) == ([], "running")
