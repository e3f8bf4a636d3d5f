# SPDX-License-Identifier: Apache-2.0
"""Every schedule with every source: the table of docs/detection.md, one test for each of its cells."""

from __future__ import annotations

import functools
import itertools
import json
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset, AssetAll, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable
from msgspec.structs import replace

from airflow_provider_oscar.core.events import describe_outputs
from airflow_provider_oscar.core.notification_formats import detect
from airflow_provider_oscar.core.objects import ObjectEvent, Reason, StoreType
from airflow_provider_oscar.hooks.filesystem.entries import read_entry
from airflow_provider_oscar.hooks.filesystem.onedata import list_directory
from airflow_provider_oscar.hooks.oscar.requests import OscarJob
from airflow_provider_oscar.hooks.rucio.filesystem import RucioFileSystem
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.ingest import NewObjects, get_objects
from airflow_provider_oscar.ingest.notifications import ReceiverRule, as_listed
from airflow_provider_oscar.watch.sources.service_jobs import job_event
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


def kafka(world: World, asset: Any, found: ObjectEvent) -> None:
    """A topic's message names the object, which is looked at, as each is that a channel names."""
    record = {"s3": {"bucket": {"name": found.container}, "object": {"key": found.key}}}
    (named,) = detect(json.dumps({"Records": [{"eventName": "ObjectCreated:Put", **record}]}))
    looked_at = OscarS3Hook(found.conn_id).head(named.container, named.key)
    world.tell(asset, as_listed(looked_at, named))


def file_system(container: str, info: Callable[[str], Mapping[str, object]]) -> Tell:
    """A file system of fsspec, listed; ``info`` is what it says of a file."""

    def tell(world: World, asset: Any, found: ObjectEvent) -> None:
        said = info(found.key)
        entry = read_entry(said, str(said["name"]).rpartition("/")[0])
        assert entry is not None
        world.tell(asset, entry.to_event(conn_id="files", container=container, key=entry.key))

    return tell


def rucio_file(name: str) -> Mapping[str, object]:
    client = SimpleNamespace(files=lambda scope, dataset: [{"scope": scope, "name": name, "bytes": 1, "adler32": "1"}])
    file_system = RucioFileSystem.__new__(RucioFileSystem)
    file_system.__dict__["client"] = client
    (found,) = file_system.ls("user.anna/raw", detail=True)
    return dict(found)


def onedata_file(name: str) -> Mapping[str, object]:
    page = {"children": [{"name": name, "type": "REG", "size": 1, "mtime": 1_763_000_000}], "isLast": True}
    (found,) = list_directory(SimpleNamespace(list_children=lambda *args, **more: page), "space/raw")
    return found


def service_job(world: World, asset: Any, found: ObjectEvent) -> None:
    ended = OscarJob.from_oscar(found.key, {"status": "Succeeded", "finish_time": "2026-11-22T12:00:00Z"})
    world.tell(asset, job_event("oscar_default", "count-words", ended, now=datetime.now(UTC)))


def webhook(world: World, asset: Any, found: ObjectEvent) -> None:
    """A delivery of a form of its own, read by JSON pointers."""
    entry = {"conn_id": found.conn_id, "buckets": [found.container], "json": {"bucket": "/where", "key": "/what"}}
    rule = ReceiverRule.from_extra(entry, display_name="the rule")
    (named,) = rule.notifications(json.dumps({"where": found.container, "what": found.key}).encode(), [])
    assert rule.allows(named)
    world.event(asset, {"object": as_listed(made(named.key, container=named.container), named).to_dict()})


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
    "Kafka": kafka,
    "file system": file_system("file:///data/in", lambda name: {"name": f"/data/in/{name}", "size": 1, "mtime": 1.5}),
    "Rucio": file_system("rucio://user.anna/raw", rucio_file),
    "Onedata": file_system("onedata://space/raw", onedata_file),
    "OSCAR's own jobs": service_job,
    "receiver": receiver,
    "receiver, JSON pointers": webhook,
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


@pytest.mark.parametrize("sources", [*itertools.pairwise([*SOURCES, *SOURCES][: len(SOURCES) + 1]), tuple(SOURCES)],
                         ids=lambda each: f"{each[0]} and {each[1]}" if len(each) == 2 else "all at once")  # fmt: skip
def test_two_sources_feed_one_dag(world: World, sources: tuple[str, ...]) -> None:
    places = {source: told_asset() for source in sources}
    dag = consumer(functools.reduce(operator.or_, map(NewObjects, places.values())).each())
    world.add(dag)
    for number, (source, place) in enumerate(places.items()):
        SOURCES[source](world, place, made(f"object-{number}"))
    world.hand_over(dag)
    assert sorted(objects(world, dag)) == sorted([f"object-{number}"] for number in range(len(sources)))
