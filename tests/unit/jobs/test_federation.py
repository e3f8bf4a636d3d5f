# SPDX-License-Identifier: Apache-2.0
"""A job that OSCAR hands to another cluster is found, waited for, logged and cancelled there."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager

import httpx
import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.hooks.oscar.federation import Member, get_members
from airflow_provider_oscar.jobs.backend import open_backend
from airflow_provider_oscar.jobs.oscar import OscarBackend, OscarWork
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.operators.oscar_service import apply_services
from airflow_provider_oscar.sensors.oscar import OscarJobSensor
from tests.support.fakes import context
from tests.support.oscar_faults import connect, connected_oscar, embedded_oscar

NAME = "svc-1"


@contextmanager
def two_clusters(monkeypatch, tmp_path, conn_id="south"):
    """The default connection's OSCAR, which hands every job to another; connections of both."""
    with embedded_oscar(tmp_path / "south") as (south, there), httpx.HTTPTransport() as direct:
        member = {"type": "oscar", "cluster_id": "south", "service_name": "svc", "priority": 1}
        cluster = {"endpoint": there, "auth_user": "oscar", "auth_password": "pw", "ssl_verify": False}
        federation = {"group_id": "g", "topology": "star", "members": [member]}
        secrets = {"secrets": {"refresh_token": "r"}}
        # It is made with the one that has it as a member.
        httpx.delete(f"{there}/system/services/svc", auth=("oscar", "pw"))
        fields = {"federation": federation, "clusters": {"south": cluster}, "environment": secrets}
        with embedded_oscar(tmp_path / "north", **fields) as (north, here):
            connect(monkeypatch, here, direct)
            other = {"conn_type": "oscar", "host": there, "login": "oscar", "password": "pw"}
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(other))
            north.faults.no_room = True
            yield north, south


def submitted(**arguments):
    backend = OscarBackend(conn_id="oscar_default", service="svc", sleep=lambda _: None, **arguments)
    backend.submit(RunningJob(submission_id=NAME, job_id=NAME), OscarWork(b'{"a": 1}'))
    return backend


def test_a_job_that_was_handed_on_is_seen_and_cancelled_where_it_is(monkeypatch, tmp_path):
    with two_clusters(monkeypatch, tmp_path) as (north, south):
        backend = submitted()
        assert (list(north.runner.jobs("svc")), list(south.runner.jobs("svc"))) == ([], [NAME])
        assert backend.status(NAME).phase is JobPhase.PENDING
        again = OscarBackend(conn_id="oscar_default", service="svc")
        assert again.status(NAME).phase is JobPhase.PENDING, "a later try knows nothing of the first"
        assert again.cancel(NAME).found
        assert list(south.runner.jobs("svc")) == []
        assert not again.cancel(NAME).found


def test_the_triggerer_waits_for_it_and_cancels_it_there(monkeypatch, tmp_path):
    with two_clusters(monkeypatch, tmp_path, "mine") as (_, south):
        backend = submitted(members={"south": "mine"})
        stored = backend.arguments()
        assert json.loads(stored["elsewhere"]) == [["mine", "svc"]]
        place = open_backend("oscar", stored)
        assert place.key == backend.key

        async def look():
            async with place.open() as client:
                return (await client.statuses())[NAME], await client.log(NAME)

        status, text = asyncio.run(look())
        assert (status.phase, text) == (JobPhase.PENDING, None)
        assert asyncio.run(place.acancel(NAME)).found
        assert list(south.runner.jobs("svc")) == []


@pytest.mark.parametrize("body", [b"aGVsbG8=", b'{"a": 1}'], ids=["base64", "event"])
def test_what_it_is_about_arrives_with_it(monkeypatch, tmp_path, body):
    with two_clusters(monkeypatch, tmp_path) as (_, south):
        backend = OscarBackend(conn_id="oscar_default", service="svc", sleep=lambda _: None)
        backend.submit(RunningJob(submission_id=NAME, job_id=NAME), OscarWork(body))
        event = south.runner.jobs("svc")[NAME].environment["EVENT"]
    assert json.loads(event)["event"].encode() == body


def test_its_log_is_read_there(monkeypatch, tmp_path):
    with two_clusters(monkeypatch, tmp_path) as (_, south):
        backend = submitted()
        job = south.runner.jobs("svc")[NAME]
        monkeypatch.setattr(type(job), "has_pod", lambda _: True)
        job.status = "Running"
        monkeypatch.setattr(type(south.runner), "log", lambda *_: b"moo\n")
        assert backend.log(NAME) == "moo\n"
        place = open_backend("oscar", backend.arguments())

        async def read():
            async with place.open() as client:
                return await client.log(NAME)

        assert asyncio.run(read()) == "moo\n"


def test_a_cluster_without_a_connection_is_refused_before_a_job_is_sent(monkeypatch, tmp_path):
    with two_clusters(monkeypatch, tmp_path, "another") as (north, south):
        with pytest.raises(DefinitionError, match=r"cluster 'south'.*neither seen nor.*members=\{'south'"):
            submitted()
        assert (north.runner.jobs("svc"), south.runner.jobs("svc")) == ({}, {})


def test_a_service_that_is_not_federated_costs_no_further_list(monkeypatch, tmp_path):
    with connected_oscar(monkeypatch, tmp_path):
        assert submitted().arguments() == {"conn_id": "oscar_default", "service": "svc"}


def test_a_sensor_finds_a_job_that_was_handed_on_and_waits_for_it_there(monkeypatch, tmp_path):
    with two_clusters(monkeypatch, tmp_path, "mine") as (north, south):
        submitted(members={"south": "mine"})
        sensor = OscarJobSensor(task_id="wait", service="svc", job_id=NAME, members={"south": "{{ params.there }}"})
        sensor.render_template_fields({"params": {"there": "mine"}})
        with pytest.raises(TaskDeferred) as raised:
            sensor.execute(context())
        assert json.loads(raised.value.trigger.backend_arguments["elsewhere"]) == [["mine", "svc"]]
        south.runner.jobs("svc")[NAME].status = "Succeeded"
        monkeypatch.setattr(type(south.runner.jobs("svc")[NAME]), "has_pod", lambda _: True)
        assert sensor.execute(context()) == "succeeded"
        assert list(north.runner.jobs("svc")) == []


def test_a_sensor_says_which_cluster_it_cannot_look_at(monkeypatch, tmp_path):
    with two_clusters(monkeypatch, tmp_path, "another"):
        sensor = OscarJobSensor(task_id="wait", service="svc", job_id=NAME)
        with pytest.raises(AirflowFailException, match=r"cluster 'south'.*members=\{'south'"):
            sensor.execute(context())


@pytest.mark.parametrize(
    ("service", "found"),
    [
        ({}, ()),
        ({"federation": {"members": None}}, ()),
        ({"federation": {"members": "x"}, "clusters": []}, ()),
        ({"federation": {"members": [{"type": "endpoint", "url": "http://x"}, 3]}}, ()),
        ({"name": "a", "replicas": [{"type": "OSCAR", "cluster_id": "c"}]}, (Member("c", "a"),)),
        (
            {
                "name": "a",
                "federation": {"members": [{"cluster_id": c, "service_name": "a"} for c in ("here", "c", "c")]},
                "clusters": {"here": {"endpoint": "https://h/"}, "c": {"endpoint": "https://c"}},
            },
            (Member("c", "a", "https://c"),),
        ),
    ],
)
def test_members_are_read_in_every_form_a_server_has(service, found):
    assert get_members(service, endpoint="https://h") == found


def test_a_member_that_has_the_service_already_would_lose_it_which_is_refused(monkeypatch, tmp_path):
    with embedded_oscar(tmp_path / "south") as (south, there), embedded_oscar(tmp_path / "north") as (_, here):
        for conn_id, url in (("oscar_default", here), ("south", there)):
            fields = {"conn_type": "oscar", "host": url, "login": "oscar", "password": "pw"}
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        cluster = {"endpoint": there, "auth_user": "oscar", "auth_password": "pw", "ssl_verify": False}
        member = {"type": "oscar", "cluster_id": "south", "service_name": "svc", "priority": 1}
        federated = ServiceDefinition(
            name="other",
            image="i",
            script="true",
            federation={"group_id": "g", "topology": "star", "members": [member]},
            clusters={"south": cluster},
            environment={"secrets": {"refresh_token": "r"}},
        )
        with pytest.raises(DefinitionError, match="'south'.*service 'svc' already.*delete that one first"):
            apply_services([federated], clusters={}, conn_id="oscar_default")
        assert south.services.get("svc") is not None
        made = httpx.post(f"{here}/system/services", json=federated.to_api(), auth=("oscar", "pw"))
        assert (made.status_code, "rollback completed" in made.text) == (500, True)
        assert south.services.get("svc") is None, "what we refuse to let happen"
