# SPDX-License-Identifier: Apache-2.0
"""The loop beside the triggerer: quiet when nothing happens, just between DAGs, and stopped by none of them."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar.ingest import listeners
from airflow_provider_oscar.ingest import service as module
from airflow_provider_oscar.ingest.listeners import HandOverListener
from airflow_provider_oscar.ingest.service import HandOverService
from tests.support.metadata_db import MakePlace, World, consumer
from tests.support.object_events import made


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def test_new_events_are_handed_over_at_once_and_the_rest_in_its_time(world: World, place: MakePlace) -> None:
    incoming = place()
    each, batch = consumer(incoming.each()), consumer(incoming.batch(size=9, wait=60))
    world.add(each, batch)
    clock = Clock()
    service = HandOverService(clock=clock)
    service.run_once()
    world.tell(incoming.asset, made("a"))
    service.run_once()
    assert (world.keys(each), world.keys(batch)) == ([["a"]], [])
    clock.now += timedelta(minutes=10)  # the event is as old as the machine is slow
    service.run_once()
    assert world.keys(batch) == [["a"]]


def test_a_look_at_nothing_new_asks_one_question(
    world: World, place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(consumer(place().each()))
    clock = Clock()
    service = HandOverService(clock=clock)
    service.run_once()
    monkeypatch.setattr(db, "find_consumers", lambda *_, **__: pytest.fail("asked for the DAGs again"))
    assert service.run_once() is False


def test_a_dag_that_is_switched_on_needs_no_new_event(world: World, place: MakePlace) -> None:
    incoming = place()
    dag = consumer(incoming.each())
    world.add(dag, paused=True)
    world.tell(incoming.asset, made("a"))
    clock = Clock()
    service = HandOverService(clock=clock)
    service.run_once()
    world.pause(dag, False)
    clock.now += timedelta(seconds=module.RESCAN_INTERVAL)
    service.run_once()
    assert world.keys(dag) == [["a"]]


def test_a_dag_that_cannot_be_run_stops_no_other(
    world: World, place: MakePlace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = place()
    broken = consumer(incoming.each(), dag_id="a_broken_one")
    well = consumer(incoming.each())
    world.add(broken, well)
    world.tell(incoming.asset, made("a"))
    create = db_events.create_run

    def refuse(session: Any, dag: Any, **arguments: Any) -> Any:
        if dag.dag_id == "a_broken_one":
            raise ValueError("its parameters are not valid")
        return create(session, dag, **arguments)

    monkeypatch.setattr(db_events, "create_run", refuse)
    clock = Clock()
    service = HandOverService(clock=clock)
    for _ in range(4):
        service.run_once()
        clock.now += timedelta(seconds=20)
    assert world.keys(well) == [["a"]]
    assert world.runs(broken) == []
    monkeypatch.undo()
    clock.now += timedelta(seconds=60)
    service.run_once()
    assert world.keys(broken) == [["a"]]
    assert any("a_broken_one" in record.getMessage() for record in caplog.records)


def test_a_long_backlog_of_one_dag_lets_the_others_have_their_turn(world: World, place: MakePlace) -> None:
    incoming, other = place(), place()
    busy, quick = consumer(incoming.batch(size=1, wait=0), dag_id="a_busy_one"), consumer(other.each())
    world.add(busy, quick)
    world.tell(incoming.asset, *(made(str(n)) for n in range(30)))
    world.tell(other.asset, made("x"))
    service = HandOverService(clock=Clock())
    assert service.run_once() is True
    assert world.keys(quick) == [["x"]]
    assert len(world.runs(busy)) < 30
    while service.run_once():
        pass


def test_a_database_that_is_away_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = threading.Event()
    looks: list[int] = []

    class Service(HandOverService):
        def run_once(self) -> bool:
            looks.append(1)
            if len(looks) == 3:
                stopped.set()
            raise OSError("no database")

    monkeypatch.setattr(stopped, "wait", lambda pause: None)
    Service().run(stopped)
    assert len(looks) == 3


def test_the_service_starts_with_a_triggerer_only(monkeypatch: pytest.MonkeyPatch) -> None:
    started = threading.Event()
    monkeypatch.setattr(listeners, "START_DELAY", 0)
    monkeypatch.setattr(HandOverService, "run", lambda self, stopped: started.set())

    def wait_for_thread() -> None:
        for thread in threading.enumerate():
            if thread.name == "oscar-hand-over":
                thread.join(120)

    listener = HandOverListener()
    listener.on_starting(object())  # what a task process is announced as
    scheduler = SimpleNamespace(job_type=None)
    listener.on_starting(scheduler)
    scheduler.job_type = "SchedulerJob"
    wait_for_thread()
    assert not started.is_set()
    triggerer = SimpleNamespace(job_type=None)
    listener.on_starting(triggerer)
    time.sleep(0)
    triggerer.job_type = "TriggererJob"
    wait_for_thread()
    assert started.is_set()


def test_the_plugin_announces_timetable_and_listeners() -> None:
    from airflow.plugins_manager import get_timetables_plugins

    from airflow_provider_oscar.ingest.timetable import TIMETABLE

    assert TIMETABLE in get_timetables_plugins()
