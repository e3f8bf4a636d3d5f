# SPDX-License-Identifier: Apache-2.0
"""Processing again: a day, a prefix, what failed; by function, command and operator."""

from __future__ import annotations

import argparse
import json
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.cli.objects import objects_list, objects_replay
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.replay import Selection
from airflow_provider_oscar.ingest.replay import Replayed, find_objects, replay
from tests.support.metadata_db import MakePlace, World, consumer
from tests.support.object_events import NOON, made


def end(world: World, dag: Any, **states: str) -> None:
    """End the runs of objects by key, the others with success."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.state import DagRunState, TaskInstanceState

    by_id = {run.id: run.objects for run in world.runs(dag)}
    with db.transaction() as session:
        for number, keys in by_id.items():
            run = session.get(DagRun, number)
            state = next((states[key] for key in keys if key in states), "success")
            run.state = DagRunState(state)
            for task in run.task_instances:
                task.state = TaskInstanceState(state) if state in ("success", "failed") else None


def states(world: World, dag: Any) -> dict[str, str]:
    return {run.objects[0]: str(run.state) for run in world.runs(dag)}


@pytest.fixture
def processed(world: World, place: MakePlace) -> tuple[Any, Any]:
    """A place with four objects of four days, of which b failed, and the DAG that processed them."""
    incoming = place()
    dag = consumer(incoming.each())
    world.add(dag)
    days = [made(key, second=86_400 * number) for number, key in enumerate("abcd")]
    world.tell(incoming.asset, *days)
    world.hand_over(dag)
    end(world, dag, b="failed", d="running")
    return incoming, dag


def do(incoming: Any, *, dry_run: bool = False, **choice: Any) -> Replayed:
    with db.transaction() as session:
        return replay(session, Selection(asset=incoming.asset.name, **choice), dry_run=dry_run)


def test_a_time_selects_by_the_objects_own_time(world: World, processed: Any) -> None:
    incoming, dag = processed
    done = do(incoming, since=NOON + timedelta(days=1), until=NOON + timedelta(days=2))
    assert (done.objects, len(done.cleared), done.created) == (1, 1, [])
    assert states(world, dag) == {"a": "success", "b": "queued", "c": "success", "d": "running"}


def test_failed_only_clears_what_failed_and_nothing_runs_twice(world: World, processed: Any) -> None:
    incoming, dag = processed
    assert len(do(incoming, failed_only=True).cleared) == 1
    again = do(incoming)
    assert (len(again.cleared), again.left) == (2, 2)
    assert states(world, dag) == {"a": "queued", "b": "queued", "c": "queued", "d": "running"}
    assert len(world.runs(dag)) == 4


def test_a_dry_run_changes_nothing(world: World, processed: Any) -> None:
    incoming, dag = processed
    before = states(world, dag)
    assert len(do(incoming, dry_run=True, prefix="a").cleared) == 1
    assert states(world, dag) == before


def test_a_deleted_run_and_one_before_the_history_are_made(world: World, processed: Any) -> None:
    from airflow.models.dagrun import DagRun

    incoming, dag = processed
    with db.transaction() as session:
        session.delete(session.merge(world.runs(dag)[0]))
    world.age(timedelta(days=3))
    late = consumer(incoming.each())
    world.add(late)
    assert world.hand_over(late) == []
    done = do(incoming, prefix="a")
    assert sorted(name for name, _ in done.created) == sorted([dag.dag_id, late.dag_id])
    assert states(world, late) == {"a": "queued"}
    assert do(incoming, prefix="a").created == []
    with db.transaction() as session:
        assert session.query(DagRun).filter_by(dag_id=late.dag_id).one().partition_date == NOON


def test_what_a_selection_holds_survives_json() -> None:
    chosen = Selection(asset="a", since=NOON, prefix="in/", failed_only=True, dag_ids=("x",))
    assert Selection.from_json(chosen.to_json()) == chosen
    with pytest.raises(DefinitionError, match="not a selection"):
        Selection.from_json({})


def test_an_asset_that_is_not_there_is_said(world: World) -> None:
    with db.transaction() as session, pytest.raises(DefinitionError, match="there is no asset 'nobody'"):
        list(find_objects(session, Selection(asset="nobody")))


def options(incoming: Any, **values: Any) -> argparse.Namespace:
    defaults = {"since": None, "until": None, "prefix": "", "failed_only": False, "dag_id": None, "dry_run": False,
                "limit": 100, "output": "json"}  # fmt: skip
    return argparse.Namespace(asset=incoming.asset.name, **{**defaults, **values})


def test_the_commands_list_and_replay(world: World, processed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    incoming, dag = processed
    capsys.readouterr()
    objects_list(options(incoming, failed_only=True))
    listed = capsys.readouterr().out
    assert '"uri": "s3://bucket/b"' in listed
    assert f"{dag.dag_id}: failed" in listed
    chosen = {"since": "2026-11-22", "until": "2026-11-23"}
    objects_replay(options(incoming, dry_run=True, **chosen))
    said = {"objects": 1, "cleared": 1, "created": 0, "left_alone": 0, "dry_run": True}
    assert json.loads(capsys.readouterr().out) == [said]
    objects_replay(options(incoming, output="table", **chosen))
    assert "1 object: 1 run cleared, 0 created, 0 left alone" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="is not a valid time"):
        objects_list(options(incoming, since="yesterday"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("list --limit -1", "'-1' is not a number of 1 or more"),
        ("list --limit 0", "'0' is not a number of 1 or more"),
        ("list --limit many", "'many' is not a number of 1 or more"),
        ("list --since 0001-01-01T00:00:00+14:00", "is beyond the calendar"),
        ("replay --until 9999-12-31T23:59:59-14:00", "is beyond the calendar"),
        ("backfill --since 9999-12-31T23:59:59-14:00", "is beyond the calendar"),
        ("replay --since 2026-11-25 --until 2026-11-23", "is after until"),
        ("replay --dag-id nobodys", "there is no DAG 'nobodys'"),
        ("list --dag-id nobodys", "there is no DAG 'nobodys'"),
        ("replay --since tomorrow", "is not a valid time"),
    ],
)
def test_what_selects_nothing_by_mistake_is_said(
    world: World, processed: Any, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    from airflow.cli.cli_parser import get_parser

    incoming, dag = processed
    verb, *rest = words.split()
    before = states(world, dag)

    def run() -> None:
        given = get_parser().parse_args(["oscar", "objects", verb, "--asset", incoming.asset.name, *rest])
        given.func(given)

    with pytest.raises(SystemExit) as ended:
        run()
    assert said in f"{ended.value} {capsys.readouterr().err}"
    assert states(world, dag) == before


def test_a_dry_run_says_would_of_each_run(world: World, processed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    incoming, _ = processed
    objects_replay(options(incoming, dry_run=True, output="table", prefix="b"))
    assert "would be cleared (failed)" in capsys.readouterr().out


def test_an_interval_of_no_length_selects_nothing(world: World, processed: Any) -> None:
    # As the interval of a run that was started by hand, given to the operator as a template.
    incoming, _ = processed
    assert do(incoming, since=NOON, until=NOON).objects == 0


class FakeStore(dict[str, Any]):
    """The state store of an asset, as a task sees it; the service looks when the task waits."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


def test_a_task_asks_the_service_and_gets_its_counts(world: World, processed: Any) -> None:
    from airflow.models.asset import AssetModel

    from airflow_provider_oscar.core.replay import ANSWER, REQUEST
    from airflow_provider_oscar.ingest.requests import serve_requests
    from airflow_provider_oscar.operators.replay import ReplayObjectsOperator

    incoming, dag = processed
    store = FakeStore()
    with db.transaction() as session:
        number = session.query(AssetModel).filter_by(name=incoming.asset.name).one().id

    def serve(_: float) -> None:
        for key, value in [item for item in store.items() if item[0].startswith(REQUEST)]:
            with db.transaction() as session:
                asset_states.set_state(session, number, key, value)
            assert serve_requests() == 1
            with db.transaction() as session:
                assert asset_states.get_state(session, number, key) is None
                answer = ANSWER + key.removeprefix(REQUEST)
                store[answer] = asset_states.get_state(session, number, answer)

    operator = ReplayObjectsOperator(task_id="again", asset=incoming.asset.name, failed_only=True)
    operator._sleep = serve
    assert operator._ask(store) == {"objects": 1, "cleared": 1, "created": 0, "left": 0}
    assert states(world, dag)["b"] == "queued"
    bad = ReplayObjectsOperator(task_id="bad", asset=incoming.asset.name, since="yesterday")
    bad._sleep = serve
    with pytest.raises(DefinitionError, match="since of the replay.*expected an ISO 8601 time"):
        bad._ask(store)


def test_a_task_without_a_service_is_tried_again() -> None:
    from airflow_provider_oscar.core.errors import TransientError
    from airflow_provider_oscar.operators.replay import ReplayObjectsOperator

    store = FakeStore()
    operator = ReplayObjectsOperator(task_id="alone", asset="a", answer_timeout=0.001)
    operator._sleep = lambda _: None
    with pytest.raises(TransientError, match="no triggerer answered"):
        operator._ask(store)
    assert not store
