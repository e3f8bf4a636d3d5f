# SPDX-License-Identifier: Apache-2.0
"""Every schedule with every source: the table of docs/detection.md, one test for each of its cells."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset, AssetAll, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable
from msgspec.structs import replace

from airflow_provider_oscar.core.events import describe_outputs
from airflow_provider_oscar.core.objects import ObjectEvent, Reason, StoreType
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.ingest import NewObjects, get_objects
from tests.integration.ingest.test_asset_runs import start
from tests.support.metadata_db import World, consumer
from tests.support.object_events import made

_NUMBERS = itertools.count(1)
Tell = Callable[[World, Any, ObjectEvent], None]


def watcher(reason: Reason, source: StoreType = StoreType.S3) -> Tell:
    def tell(world: World, asset: Any, found: ObjectEvent) -> None:
        where = {"container": "/data"} if source is StoreType.DCACHE else {}
        world.tell(asset, replace(found, reason=reason, source=source, **where))

    return tell


def receiver(world: World, asset: Any, found: ObjectEvent) -> None:
    world.event(asset, {"object": found.to_dict()})


def rest(world: World, asset: Any, found: ObjectEvent) -> None:
    world.event(asset, {"bucket": found.container, "key": found.key, "conn_id": found.conn_id})


def rest_key(world: World, asset: Any, found: ObjectEvent) -> None:
    world.event(asset, {}, partition_key=found.uri)


def job(world: World, asset: Any, found: ObjectEvent) -> None:
    told = describe_outputs(f"s3://{found.container}/", found.conn_id, [(found.key, "0" * 64)])
    world.event(asset, {"job_id": f"job-{found.key}", "objects": told}, partition_key=f"run-{found.key}")


SOURCES: dict[str, Tell] = {
    "S3 listing": watcher(Reason.LISTED),
    "S3 notification": watcher(Reason.CREATED),
    "dCache listing": watcher(Reason.LISTED, StoreType.DCACHE),
    "dCache event": watcher(Reason.CREATED, StoreType.DCACHE),
    "receiver": receiver,
    "REST API": rest,
    "REST API, partition key": rest_key,
    "job result": job,
}
PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "[asset]": lambda first, second: [first],
    "AssetAny": AssetAny,
    "AssetAll": AssetAll,
    "AssetOrTimeSchedule": lambda first, second: AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 6 * * *", timezone="UTC"), assets=[first]
    ),
}


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that has whatever is asked for."""
    monkeypatch.setattr(OscarS3Hook, "head", lambda self, bucket, key: made(key, container=bucket))


def told_asset() -> Any:
    return Asset(f"told {next(_NUMBERS)} {datetime.now(UTC).timestamp()}", extra={"watches": "told"})


def objects(world: World, dag: Any) -> list[list[str]]:
    """Keys of the objects that a task of each run gets."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(DagRun).filter_by(dag_id=dag.dag_id).order_by(DagRun.id).all()
        events = [[*sorted(run.consumed_asset_events, key=lambda event: event.id)] for run in found]
        session.expunge_all()
    contexts = [
        {"dag_run": SimpleNamespace(conf=None), "params": {}, "triggering_asset_events": {"asset": each}}
        for each in events
    ]
    return [[found.key for found in get_objects(context)] for context in contexts]


@pytest.mark.parametrize("source", SOURCES)
def test_each_object_of_the_source_has_a_run(world: World, source: str) -> None:
    asset = told_asset()
    dag = consumer(NewObjects(asset).each())
    world.add(dag)
    for name in ("a", "b"):
        SOURCES[source](world, asset, made(name))
    world.hand_over(dag)
    assert objects(world, dag) == [["a"], ["b"]]


@pytest.mark.parametrize("source", SOURCES)
def test_a_batch_of_the_source_has_a_run(world: World, source: str) -> None:
    asset = told_asset()
    dag = consumer(NewObjects(asset).batch(size=2, wait=60))
    world.add(dag)
    for name in ("a", "b", "c"):
        SOURCES[source](world, asset, made(name))
    world.hand_over(dag)
    assert objects(world, dag) == [["a", "b"]]
    world.hand_over(dag, later=timedelta(seconds=61))
    assert objects(world, dag) == [["a", "b"], ["c"]]


@pytest.mark.parametrize("source", SOURCES)
def test_a_group_of_the_source_has_a_run(world: World, source: str) -> None:
    asset = told_asset()
    dag = consumer(NewObjects(asset).group(key=r"(run_\d+)", complete=[".h5", ".json"]))
    world.add(dag)
    for name in ("run_1.h5", "run_2.json", "run_1.json"):
        SOURCES[source](world, asset, made(name))
    world.hand_over(dag)
    assert objects(world, dag) == [["run_1.h5", "run_1.json"]]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("schedule", PLAIN)
def test_a_schedule_of_airflow_itself_gets_all_objects_of_the_source(world: World, schedule: str, source: str) -> None:
    first, second = told_asset(), told_asset()
    if source == "job result":  # an outlet like any other
        first, second = Asset(f"outlet of {first.name}"), Asset(f"outlet of {second.name}")
    dag = consumer(PLAIN[schedule](first, second), start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False)
    world.add(dag)
    for name in ("a", "b", "c"):
        SOURCES[source](world, first, made(name))
    start(world, dag, end="success")
    SOURCES[source](world, first, made("d"))
    start(world, dag, end="success")
    assert objects(world, dag) == [["a", "b", "c"], ["d"]]


@pytest.mark.parametrize(("first", "second"), itertools.combinations(SOURCES, 2))
def test_two_sources_feed_one_dag(world: World, first: str, second: str) -> None:
    places = told_asset(), told_asset()
    dag = consumer((NewObjects(places[0]) | NewObjects(places[1])).each())
    world.add(dag)
    for name, place, source in (("a", places[0], first), ("b", places[1], second)):
        SOURCES[source](world, place, made(name))
    world.hand_over(dag)
    assert sorted(objects(world, dag)) == [["a"], ["b"]]
