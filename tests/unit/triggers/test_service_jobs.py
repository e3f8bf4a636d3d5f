# SPDX-License-Identifier: Apache-2.0
"""Jobs that OSCAR starts by itself, as objects that a DAG waits for."""

from __future__ import annotations

import json
import uuid

import httpx
import pytest

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.ingest import NewObjects
from airflow_provider_oscar.triggers.service_jobs import OscarServiceJobsTrigger
from airflow_provider_oscar.watch import state_store
from airflow_provider_oscar.watch.sources.service_jobs import is_named_by_oscar
from tests.support.fakes import FakeOscar
from tests.unit.watch.conftest import FakeStore


def own(service="infer"):
    """A name as OSCAR makes it."""
    return f"{service if len(service) < 25 else service[:16]}-{uuid.uuid4()}"


def trigger(**arguments):
    return OscarServiceJobsTrigger(**{"asset_name": "done", "service": "infer", "start": "all"} | arguments)


class Process:
    """One triggerer process: looks when it is told to, and may die before its events are stored."""

    def __init__(self, made):
        self.trigger = made
        self.watcher = made.watcher()

    async def look(self, *, stored=True):
        self.places = {}
        async for page in self.trigger.arguments.source().full_listing():
            found = await self.watcher.process(page)
            self.places |= {event.key: (event.conn_id, event.container) for event in found}
            await self.watcher.commit(page)
            if stored:
                for commit in page.commits.values():
                    await commit()
        return [*self.places]


@pytest.fixture
def oscar(monkeypatch):
    monkeypatch.setattr(state_store, "AssetStateStoreAccessor", FakeStore().accessor)
    return FakeOscar().install(monkeypatch)


async def test_each_job_that_ended_well_is_reported_once(oscar):
    running, done, failed = own(), own(), own()
    oscar.jobs |= {running: "Running", done: "Succeeded", failed: "Failed"}
    process = Process(trigger())
    assert await process.look() == [done]
    assert await process.look() == []
    oscar.jobs[running] = "Succeeded"
    assert await process.look() == [running]


async def test_a_triggerer_that_starts_again_reports_what_was_not_stored_and_nothing_twice(oscar):
    first, second = own(), own()
    oscar.jobs[first] = "Succeeded"
    assert await Process(trigger()).look() == [first]
    oscar.jobs[second] = "Succeeded"
    assert await Process(trigger()).look(stored=False) == [second]
    assert await Process(trigger()).look() == [second]
    assert await Process(trigger()).look() == []


async def test_start_now_takes_what_is_there_as_known(oscar):
    oscar.jobs[own()] = "Succeeded"
    process = Process(trigger(start="now"))
    assert await process.look() == []
    oscar.jobs[late := own()] = "Succeeded"
    assert await process.look() == [late]


async def test_jobs_that_a_task_submitted_are_left_to_their_task(oscar):
    oscar.jobs |= {"infer-0123456789abcdef": "Succeeded", (mine := own()): "Succeeded"}
    assert await Process(trigger()).look() == [mine]
    assert sorted(await Process(trigger(submitted=True)).look()) == sorted(oscar.jobs)


async def test_failed_jobs_are_reported_where_they_are_asked_for(oscar):
    oscar.jobs |= {(bad := own()): "Failed", (good := own()): "Succeeded"}
    assert await Process(trigger(states=["failed"])).look() == [bad]
    assert sorted(await Process(trigger(states=["failed", "succeeded"])).look()) == sorted([bad, good])


class Federation:
    """The service's own cluster, and another of the federation under another name."""

    def __init__(self, monkeypatch, *, conn_id="south"):
        self.north, self.south = FakeOscar().install(monkeypatch), FakeOscar()
        member = {"type": "oscar", "cluster_id": "south", "service_name": "infer-eu", "priority": 1}
        self.north.fields = {
            "federation": {"group_id": "g", "topology": "star", "members": [member]},
            "clusters": {"south": {"endpoint": "https://south.test"}},
        }
        transport = httpx.MockTransport(self)
        monkeypatch.setattr(
            OscarHook, "async_client", lambda self: httpx.AsyncClient(auth=self.auth, transport=transport)
        )
        if conn_id:
            there = {"conn_type": "oscar", "host": "https://south.test", "login": "u", "password": "p"}
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(there))

    def __call__(self, request):
        return (self.south if request.url.host == "south.test" else self.north)(request)

    def hand_over(self, job):
        """OSCAR's resource manager sends a job on and forgets it."""
        self.south.jobs[job] = self.north.jobs.pop(job)


@pytest.mark.parametrize(("conn_id", "members"), [("south", None), ("mine", {"south": "mine"})])
async def test_a_job_that_was_handed_to_another_cluster_is_reported_once_and_with_where_it_is(
    oscar, monkeypatch, conn_id, members
):
    clusters = Federation(monkeypatch, conn_id=conn_id)
    clusters.north.jobs |= {(stays := own()): "Succeeded", (moves := own()): "Pending"}
    process = Process(trigger(members=members))
    assert await process.look() == [stays]
    clusters.hand_over(moves)
    clusters.south.jobs |= {moves: "Running", own("infer-eu"): "Succeeded"}
    assert await process.look() == []
    clusters.south.jobs[moves] = "Succeeded"
    assert await process.look() == [moves]
    assert process.places == {moves: (conn_id, "infer-eu")}
    assert await process.look() == []
    assert await Process(trigger(members=members)).look() == [], "what is remembered outlives the triggerer"


async def test_jobs_of_the_own_cluster_are_reported_while_another_is_away(oscar, monkeypatch):
    clusters = Federation(monkeypatch)
    clusters.north.jobs[mine := own()] = "Succeeded"
    clusters.south.refuse["GET", "/system/logs"] = 500
    process = Process(trigger())
    with pytest.raises(TransientError):
        await process.look()
    assert [*process.places] == [mine]
    clusters.south.refuse.clear()
    clusters.south.jobs[theirs := own()] = "Succeeded"
    assert await process.look() == [theirs]


async def test_a_cluster_without_a_connection_is_named_with_the_remedy(oscar, monkeypatch):
    Federation(monkeypatch, conn_id="")
    with pytest.raises(DefinitionError, match=r"cluster 'south'.*say members=\{'south': '<connection id>'\}"):
        await Process(trigger()).look()


@pytest.mark.parametrize("service", ["a", "infer", "a" * 24, "a" * 25, "a-b" * 13])
def test_names_of_oscar_s_own_making_are_known(service):
    assert is_named_by_oscar(service, own(service))
    assert not is_named_by_oscar(service, f"{service}-{uuid.uuid4().hex}")
    assert not is_named_by_oscar(service, f"other-{uuid.uuid4()}")


def test_the_event_says_service_job_and_how_it_ended_and_survives_the_database():
    made = trigger(states=["failed"], poll_interval=5, members={"south": "mine"})
    path, stored = made.serialize()
    assert path == "airflow_provider_oscar.triggers.service_jobs.OscarServiceJobsTrigger"
    assert OscarServiceJobsTrigger(**json.loads(json.dumps(stored))).serialize() == (path, stored)
    event = ObjectEvent.from_dict(
        {"source": "oscar", "conn_id": "c", "container": "infer", "key": "infer-1", "modified": "2026-11-28T06:00:00Z"}
    )
    assert (event.source, event.uri) == (StoreType.OSCAR, "oscar://c/infer/infer-1")


def test_new_objects_stand_for_the_jobs_of_a_service():
    (asset,) = NewObjects("oscar:///infer", poll_interval=20).assets
    (watcher,) = asset.watchers
    assert isinstance(watcher.trigger, OscarServiceJobsTrigger)
    arguments = watcher.trigger.arguments
    assert (arguments.conn_id, arguments.service, arguments.poll_interval) == ("oscar_default", "infer", 20)
    assert asset.uri == "oscar://oscar_default/infer"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: trigger(service=""), "service of a watcher is empty"),
        (lambda: trigger(states=["done"]), "expected 'succeeded' or 'failed'"),
        (lambda: trigger(states=[]), "expected some of"),
        (lambda: trigger(sentinel="_SUCCESS"), "no sentinel"),
        (lambda: NewObjects("oscar://c"), "names no service"),
        (lambda: NewObjects("oscar://c/a/b"), "names no service"),
        (lambda: NewObjects("oscar://c/a", sentinel=".done"), "nothing to filter"),
    ],
)
def test_what_cannot_work_is_refused_in_the_dag_file(make, words):
    with pytest.raises(DefinitionError, match=words):
        make()
