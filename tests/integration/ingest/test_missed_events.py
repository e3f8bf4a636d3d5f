# SPDX-License-Identifier: Apache-2.0
"""Plain asset-aware DAGs run for events that Airflow does not queue: of a paused DAG, and of a run with a partition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset, AssetAll

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar.ingest import NewObjects
from airflow_provider_oscar.ingest.missed_events import MissedEvents
from tests.support.metadata_db import MakePlace, World, consumer
from tests.support.object_events import made, result


def queued(dag: Any) -> int:
    from airflow.models.asset import AssetDagRunQueue

    with db.transaction() as session:
        return int(session.query(AssetDagRunQueue).filter_by(target_dag_id=dag.dag_id).count())


def test_objects_that_came_while_the_dag_was_paused_make_a_run_when_it_goes_on(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag, paused=True)
    world.tell(incoming.asset, made("a"), made("b"))
    missed, now = MissedEvents(), datetime.now(UTC)
    assert missed.queue(now=now) == []
    world.schedule()
    assert world.runs(dag) == []
    world.pause(dag, False)
    assert [dag_id for dag_id, _ in missed.queue(now=now)] == [dag.dag_id]
    world.schedule()
    assert world.keys(dag) == [["a", "b"]]


def test_a_dag_that_is_scheduled_by_the_outlet_of_a_run_with_a_partition_runs(world: World, place: MakePlace) -> None:
    incoming, counted, told = place(), Asset("counted-by-a-job"), Asset("told-by-a-task")
    from airflow.providers.standard.operators.empty import EmptyOperator

    first = consumer(incoming.each())
    with first:
        EmptyOperator(task_id="tell", outlets=[told])
    second, third = consumer([counted]), consumer([told])
    stranger = consumer([Asset("strangers-outlet")])
    world.add(first, second, third, stranger)
    world.tell(incoming.asset, made("a"))
    (run_id,) = world.hand_over(first)
    key = world.runs(first)[0].partition_key
    world.event(counted, result("s3://results/a/", "a.txt"), partition_key=key)
    world.event(told, {}, partition_key=key)
    world.event(Asset("strangers-outlet"), {}, partition_key="their own")
    world.schedule()
    assert world.runs(second) == []  # Airflow leaves it alone
    assert len(MissedEvents().queue(now=datetime.now(UTC))) == 2
    world.schedule()
    assert [len(world.runs(dag)) for dag in (second, third, stranger)] == [1, 1, 0]
    assert run_id


def test_nothing_is_queued_while_airflow_is_about_to_make_a_run(world: World, place: MakePlace) -> None:
    incoming, other = place(), place()
    dag, both = consumer([incoming.asset], max_active_runs=1), consumer(AssetAll(incoming.asset, other.asset))
    world.add(dag, both)
    world.tell(incoming.asset, made("a"))
    missed = MissedEvents()
    assert missed.queue(now=datetime.now(UTC)) == []
    world.schedule(start=False)
    world.tell(incoming.asset, made("b"))
    assert missed.queue(now=datetime.now(UTC)) == []
    world.schedule()
    assert world.keys(dag) == [["a", "b"]]
    assert queued(dag) == 0  # what came before it began is with it, and makes no run of nothing
    assert world.runs(both) == []


def test_a_run_that_did_not_take_the_events_is_asked_for_more_and_more_seldom(world: World, place: MakePlace) -> None:
    from airflow.models.asset import AssetDagRunQueue

    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag, paused=True)
    world.tell(incoming.asset, made("a"))
    world.pause(dag, False)
    missed, now, asked = MissedEvents(), datetime.now(UTC), 0
    for _ in range(600):
        asked += len(missed.queue(now=now))
        with db.transaction() as session:
            session.query(AssetDagRunQueue).delete()
        now += timedelta(seconds=1)
    assert asked == 7  # at 0, 5, 15, 35, 75, 155 and 315 s


def test_a_version_that_is_told_again_while_the_dag_is_paused_makes_no_run(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag)
    world.tell(incoming.asset, made("a"))
    world.schedule()
    world.end(dag, "success")
    world.pause(dag)
    world.tell(incoming.asset, made("a"))
    world.pause(dag, False)
    assert MissedEvents().queue(now=datetime.now(UTC)) == []
    assert len(world.runs(dag)) == 1


def test_a_look_at_nothing_new_reads_no_events(world: World, place: MakePlace) -> None:
    from sqlalchemy import event

    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag)
    world.tell(incoming.asset, *(made(str(n)) for n in range(20)))
    world.schedule()
    missed, now = MissedEvents(), datetime.now(UTC)
    missed.queue(now=now)
    statements: list[str] = []
    with db.transaction() as session:
        engine = session.get_bind()
    listen = lambda *args: statements.append(args[2])  # noqa: E731
    event.listen(engine, "before_cursor_execute", listen)
    try:
        missed.queue(now=now + timedelta(seconds=1))
    finally:
        event.remove(engine, "before_cursor_execute", listen)
    assert len(statements) == 4  # the newest event, and the schedules by asset, name and URI


def test_the_result_of_a_chain_is_taken_once_by_a_plain_schedule(world: World, place: MakePlace) -> None:
    incoming, counted = place(), Asset("counted-in-a-chain")
    first, second = consumer(incoming.each()), consumer([counted])
    named = consumer(NewObjects(counted).each())
    world.add(first, second, named)
    for name in ("a", "b"):
        world.event(counted, result(f"s3://results/{name}/", "words.txt"), partition_key=name)
    world.event(counted, result("s3://results/a/", "words.txt"), partition_key="a")  # a task that was tried again
    MissedEvents().queue(now=datetime.now(UTC))
    world.schedule()
    assert [len(run.consumed) for run in world.runs(second)] == [2]
    world.hand_over(named)
    assert len(world.runs(named)) == 2


def test_a_repetition_does_not_count_in_a_condition_of_several_assets(world: World, place: MakePlace) -> None:
    one, other = place(), place()
    both = consumer(AssetAll(one.asset, other.asset))
    world.add(both)
    missed, now = MissedEvents(), datetime.now(UTC)
    world.tell(one.asset, made("a"))
    world.tell(other.asset, made("b"))
    missed.queue(now=now)
    world.schedule(both)
    world.end(both, "success")
    world.tell(one.asset, made("a"))
    assert queued(both) == 1
    missed.queue(now=now)
    assert queued(both) == 0
    world.tell(other.asset, made("c"))
    missed.queue(now=now)
    world.schedule(both)
    assert world.keys(both) == [["a", "b"]]
    world.tell(one.asset, made("d"))
    missed.queue(now=now)
    world.schedule(both)
    assert world.keys(both) == [["a", "b"], ["c", "d"]]


def test_a_repetition_of_what_failed_still_makes_a_run(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer([incoming.asset])
    world.add(dag)
    missed, now = MissedEvents(), datetime.now(UTC)
    world.tell(incoming.asset, made("a"))
    missed.queue(now=now)
    world.schedule(dag)
    world.end(dag, "failed")
    world.tell(incoming.asset, made("a"))
    missed.queue(now=now)
    world.schedule(dag)
    assert world.keys(dag) == [["a"], ["a"]]
