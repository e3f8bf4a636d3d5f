# SPDX-License-Identifier: Apache-2.0
"""Exposed services: waited for, started, called and stopped, against the embedded OSCAR and a program of ours."""

from __future__ import annotations

import base64
import json

import httpx
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.operators.oscar_exposed import OscarExposedServiceOperator
from airflow_provider_oscar.sensors.oscar import OscarExposedServiceSensor
from tests.support.fakes import context

TOKEN = "t" * 64


class Oscar:
    """One exposed service, in the state that a test says; ``after`` is what it is after so many looks."""

    def __init__(self, monkeypatch):
        self.service = {"name": "svc", "token": TOKEN, "expose": {"api_port": [5000], "set_auth": True}}
        self.states = ["ready"]
        self.answers = [httpx.Response(200, json={"ok": True})]
        self.old = False
        self.stops = None
        self.calls = []
        self.actions = []
        self.now = self.takes = 0.0
        fields = {"conn_type": "oscar", "host": "https://o.test", "login": "u", "password": "p"}
        monkeypatch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps(fields))
        transport = httpx.MockTransport(self)
        monkeypatch.setattr(OscarHook, "client", lambda self: httpx.Client(auth=self.auth, transport=transport))

    def __call__(self, request):
        path = request.url.path
        if "/exposed" in path:
            self.calls.append(request)
            self.now += self.takes
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if path.endswith("/deployment"):
            if self.old:
                return httpx.Response(404, text="404 page not found")
            return httpx.Response(200, json={"state": self.states.pop(0) if len(self.states) > 1 else self.states[0]})
        if path.endswith("/deployment/logs"):
            return httpx.Response(200, json={"entries": [{"message": "no such module"}]})
        if path.endswith("/stop") and self.stops is not None:
            return self.stops
        if request.method == "POST":
            self.actions.append(path.rpartition("/")[2])
            return httpx.Response(200, json={"state": "ready"})
        return httpx.Response(200, json=self.service) if self.service else httpx.Response(404)


@pytest.fixture
def oscar(monkeypatch):
    monkeypatch.setattr(OscarExposedServiceOperator, "sleep", staticmethod(lambda _: None))
    return Oscar(monkeypatch)


def call(**arguments):
    task = OscarExposedServiceOperator(**{"task_id": "t", "service": "svc", "path": "/predict?n=1"} | arguments)
    return task.execute(context())


def test_it_is_called_when_it_is_ready_with_its_own_token_alone(oscar):
    oscar.states = ["pending", "pending", "ready"]
    assert call(payload={"x": 1}) == {"ok": True}
    (request,) = oscar.calls
    assert (request.url.path, request.url.query) == ("/system/services/svc/exposed/predict", b"n=1")
    assert json.loads(request.content) == {"x": 1}
    word = request.headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(word).decode() == f"svc:{TOKEN}"


def test_without_authentication_no_account_is_sent(oscar):
    oscar.service["expose"]["set_auth"] = False
    call(payload="x", method="PUT")
    assert "authorization" not in oscar.calls[0].headers


def test_a_proxy_that_finds_nothing_yet_is_asked_again(oscar):
    oscar.answers = [httpx.Response(503), httpx.Response(502), httpx.Response(200, text="hi")]
    assert call(answer="text") == "hi"


@pytest.mark.parametrize(("status", "seconds"), [(504, 0.0), (502, 60.0), (503, 6.0)])
def test_a_call_that_may_have_begun_is_not_made_again(oscar, monkeypatch, status, seconds):
    monkeypatch.setattr(OscarExposedServiceOperator, "clock", staticmethod(lambda: oscar.now))
    oscar.answers, oscar.takes = [httpx.Response(status), httpx.Response(200, json={"ok": True})], seconds
    with pytest.raises(TransientError, match=f"answered {status} to POST .* may have begun its work"):
        call()
    assert len(oscar.calls) == 1


def test_a_call_that_changes_nothing_is_made_again_whatever_became_of_it(oscar):
    oscar.answers = [httpx.Response(504), httpx.Response(200, json={"ok": True})]
    assert call(method="get") == {"ok": True}


def test_it_is_started_before_and_stopped_after_also_when_it_fails(oscar):
    oscar.answers = [httpx.Response(400, text="bad")]
    with pytest.raises(AirflowFailException, match="answered 400"):
        call(start=True, stop_after=True)
    assert oscar.actions == ["start", "stop"]


@pytest.mark.parametrize("answer", ["json", "text"])
def test_a_redirect_is_no_answer(oscar, answer):
    oscar.answers = [httpx.Response(302, headers={"Location": "https://login.test/?next=x"})]
    with pytest.raises(AirflowFailException, match=r"redirects POST '/predict\?n=1' to 'https://login.test.* \(302\)"):
        call(answer=answer)


def test_an_answer_without_content_is_none(oscar):
    oscar.answers = [httpx.Response(204)]
    assert call() is None
    assert call(answer="text") == ""


@pytest.mark.parametrize("fails", [False, True])
def test_a_service_that_cannot_be_stopped_is_said_and_costs_nothing_else(oscar, fails):
    if fails:
        oscar.answers = [httpx.Response(400, text="bad")]
    oscar.stops = httpx.Response(403)
    task = OscarExposedServiceOperator(task_id="t", service="svc", path="/predict", stop_after=True)
    if fails:
        with pytest.raises(AirflowFailException, match="answered 400"):
            task.execute(context())
    else:
        assert task.execute(context()) == {"ok": True}


@pytest.mark.parametrize("path", ["../../../logs/svc", "a/../../x", "%2e%2e/x", "./x"])
def test_a_path_that_leads_out_of_the_service_is_refused(oscar, path):
    with pytest.raises(AirflowFailException, match="leads out of service 'svc'"):
        call(path=path)
    assert oscar.calls == []


def test_a_service_that_never_answers_ends_the_wait(oscar):
    oscar.states = ["pending"]
    with pytest.raises(TransientError, match="did not answer within 0 seconds.*Last lines of its log: no such module"):
        call(wait=0)


def test_a_failed_deployment_fails_the_task_with_its_last_lines(oscar):
    oscar.states = ["failed"]
    with pytest.raises(AirflowFailException, match="no such module"):
        OscarExposedServiceSensor(task_id="s", service="svc").poke(context())


def test_the_sensor_waits_and_asks_an_old_server_by_calling(oscar):
    sensor = OscarExposedServiceSensor(task_id="s", service="svc")
    assert sensor.mode == "reschedule"
    oscar.states = ["pending", "ready"]
    assert [sensor.poke(context()), sensor.poke(context())] == [False, True]
    oscar.old, oscar.answers = True, [httpx.Response(503), httpx.Response(200)]
    assert [sensor.poke(context()), sensor.poke(context())] == [False, True]


def test_what_is_not_exposed_is_refused(oscar):
    oscar.service["expose"] = {"api_port": [0]}
    with pytest.raises(AirflowFailException, match="is not exposed"):
        call()
    oscar.service = None
    with pytest.raises(AirflowFailException, match="there is no OSCAR service"):
        call()
    with pytest.raises(DefinitionError, match="expected 'json' or 'text'"):
        OscarExposedServiceOperator(task_id="t", service="svc", answer="xml")


def test_an_answer_that_is_no_json_says_so(oscar):
    oscar.answers = [httpx.Response(200, text="<html>")]
    with pytest.raises(AirflowFailException, match="did not answer JSON"):
        call()
