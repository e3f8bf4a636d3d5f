# SPDX-License-Identifier: Apache-2.0
"""Calling services, deleting them, and buckets, against a small OSCAR in memory."""

from __future__ import annotations

import base64
import json

import httpx
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.operators.oscar_calls import (
    OscarBucketOperator,
    OscarDeleteServiceOperator,
    OscarInvokeOperator,
)
from tests.support.fakes import context

SERVICE = {
    "name": "svc",
    "token": "t" * 64,
    "input": [{"storage_provider": "minio.default", "path": "svc/in"}],
    "output": [{"storage_provider": "minio.default", "path": "kept/out"}, {"storage_provider": "s3.x", "path": "o/o"}],
}


class Oscar:
    """One service that deletes one of its two buckets, and answers calls."""

    def __init__(self, monkeypatch) -> None:
        self.buckets = {"svc", "kept", "other"}
        self.service = dict(SERVICE)
        self.jobs: dict[str, str] = {}
        self.answer = httpx.Response(200, text="")
        self.sent: list[httpx.Request] = []
        fields = {"conn_type": "oscar", "host": "https://o.test", "login": "u", "password": "p"}
        monkeypatch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps(fields))
        transport = httpx.MockTransport(self)
        monkeypatch.setattr(OscarHook, "client", lambda self: httpx.Client(auth=self.auth, transport=transport))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        route = (request.method, request.url.path)
        if route == ("GET", "/system/services/svc"):
            return httpx.Response(200, json=self.service) if self.service else httpx.Response(404)
        if route == ("DELETE", "/system/services/svc"):
            self.service = {}
            self.buckets.discard("svc")
            return httpx.Response(204)
        if route == ("GET", "/system/logs/svc"):
            return httpx.Response(200, json={"jobs": {name: {"status": word} for name, word in self.jobs.items()}})
        if request.url.path.startswith("/system/buckets"):
            return self.bucket(request)
        return self.answer

    def bucket(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=[{"bucket_name": name} for name in sorted(self.buckets)] or None)
        if request.method == "DELETE":
            self.buckets.discard(request.url.path.rsplit("/", 1)[1])
        elif request.method == "POST":
            self.buckets.add(json.loads(request.content)["bucket_name"])
        return httpx.Response(204)


@pytest.fixture
def oscar(monkeypatch):
    return Oscar(monkeypatch)


@pytest.mark.parametrize(
    ("answer", "sent", "returned"),
    [
        ("text", base64.b64encode(b"moo\n"), "moo\n"),
        ("text", b"plain words", "plain words"),
        ("json", b'{"a": [1]}', {"a": [1]}),
        ("base64", base64.b64encode(b"\xff\x00"), "/wA="),
        ("text", b"test", "test"),
        ("text", b"12345678\n", "12345678\n"),
        ("json", b"true", True),
        ("json", b"12345678", 12345678),
        ("json", base64.b64encode(b'{"a": 1}'), {"a": 1}),
        ("text", base64.b64encode("é".encode()), "é"),
        ("base64", base64.b64encode(bytes(range(90))), base64.b64encode(bytes(range(90))).decode()),
    ],
)
def test_answer_of_a_service_is_decoded(oscar, answer, sent, returned):
    oscar.answer = httpx.Response(200, content=sent)
    assert OscarInvokeOperator(task_id="t", service="svc", payload="x", answer=answer).execute(context()) == returned
    call = oscar.sent[-1]
    assert (call.url.path, call.headers["authorization"]) == ("/run/svc", f"Bearer {'t' * 64}")
    assert call.content == base64.b64encode(b"x")


def test_event_is_sent_as_json(oscar):
    OscarInvokeOperator(task_id="t", service="svc", payload={"Key": "a b"}).execute(context())
    assert json.loads(oscar.sent[-1].content) == {"Key": "a b"}


def test_server_without_a_serverless_backend_is_named_with_the_remedy(oscar):
    oscar.answer = httpx.Response(404, text="404 page not found")
    with pytest.raises(AirflowFailException, match=r"no serverless backend.*OscarJobOperator"):
        OscarInvokeOperator(task_id="t", service="svc").execute(context())


def test_deletion_says_which_buckets_went_and_which_stayed(oscar):
    found = OscarDeleteServiceOperator(task_id="t", service="svc", delete_buckets=True).execute(context())
    assert found == {"service": "svc", "result": "deleted", "deleted_buckets": ["svc"], "kept_buckets": ["kept"]}
    again = OscarDeleteServiceOperator(task_id="t", service="svc", delete_buckets=True).execute(context())
    assert again["result"] == "absent"


def test_deletion_where_oscar_has_no_buckets_says_that_all_stayed(oscar, monkeypatch):
    monkeypatch.setattr(oscar, "bucket", lambda request: httpx.Response(404, text="404 page not found"))
    found = OscarDeleteServiceOperator(task_id="t", service="svc", delete_buckets=True).execute(context())
    assert (found["result"], found["kept_buckets"]) == ("deleted", ["kept", "svc"])


def test_buckets_of_the_users_of_a_service_are_its_own(oscar):
    oscar.service["bucket_list"] = ["other", None]
    found = OscarDeleteServiceOperator(task_id="t", service="svc", delete_buckets=True).execute(context())
    assert found["kept_buckets"] == ["kept", "other"]


def test_a_payload_that_json_cannot_say_is_refused(oscar):
    with pytest.raises(AirflowFailException, match="payload of task 't' cannot be sent as JSON"):
        OscarInvokeOperator(task_id="t", service="svc", payload={"at": object()}).execute(context())


def test_service_with_running_jobs_is_not_deleted_unless_that_is_meant(oscar):
    oscar.jobs = {"svc-1": "Running", "svc-0": "Succeeded"}
    with pytest.raises(TransientError, match="1 running job.*'svc-1'.*running_jobs='cancel'"):
        OscarDeleteServiceOperator(task_id="t", service="svc", delete_buckets=True).execute(context())
    assert oscar.service
    task = OscarDeleteServiceOperator(task_id="t", service="svc", delete_buckets=True, running_jobs="cancel")
    assert task.execute(context())["result"] == "deleted"


def test_bucket_is_created_changed_and_deleted(oscar):
    assert OscarBucketOperator(task_id="t", bucket="new").execute(context()) == "created"
    assert OscarBucketOperator(task_id="t", bucket="new", visibility="public").execute(context()) == "updated"
    assert json.loads(oscar.sent[-1].content)["visibility"] == "public"
    gone = OscarBucketOperator(task_id="t", bucket="new", action="delete", delete_objects=True)
    assert [gone.execute(context()), gone.execute(context())] == ["deleted", "absent"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OscarInvokeOperator(task_id="t", service="s", answer="xml"), "expected 'text', 'json' or 'base64'"),
        (lambda: OscarDeleteServiceOperator(task_id="t", service="s"), "delete_buckets=True"),
        (lambda: OscarBucketOperator(task_id="t", bucket="b", action="delete"), "delete_objects=True"),
        (lambda: OscarBucketOperator(task_id="t", bucket="b", visibility="all"), "expected 'private'"),
    ],
)
def test_mistakes_are_found_in_the_dag_file(make, message):
    with pytest.raises(DefinitionError, match=message):
        make()
