# SPDX-License-Identifier: Apache-2.0
"""Services of other people: their own scripts get a payload or an event, and success is observed by a rule."""

from __future__ import annotations

import base64
import json

import pytest

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.jobs.oscar import OscarBackend
from airflow_provider_oscar.jobs.success import observe
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from tests.support.fakes import EVENT, Store, context
from tests.unit.operators.test_oscar import deferred, ended, resumed

pytestmark = pytest.mark.usefixtures("supervisor")


async def never_awaited(job):
    return False


def plain(**arguments):
    return OscarJobOperator(**{"task_id": "infer", "service": "cowsay", "payload": "hello"} | arguments)


@pytest.mark.parametrize(
    "rule", ["status", {"log": "^moo"}, lambda job: "moo" in job.log], ids=["status", "log", "function"]
)
def test_ordinary_service_succeeds_by_the_rule_of_its_author(oscar, rule):
    task, seen = plain(success_when=rule), context()
    pause = deferred(task, seen)
    (name,) = oscar.jobs
    oscar.jobs[name], oscar.logs[name] = "Succeeded", "moo hello\n"
    found = resumed(task, seen, pause, ended())
    assert (found["proof"], found["submission_id"], found["exit_code"]) == ("observed", name, 0)


def test_retry_does_not_repeat_a_job_whose_success_can_be_observed(oscar):
    store = Store()
    deferred(plain(success_when={"log": "moo"}), context(store))
    (name,) = oscar.jobs
    oscar.jobs[name], oscar.logs[name] = "Succeeded", "moo hello\n"
    assert plain(success_when={"log": "moo"}).execute(context(store))["proof"] == "observed"
    assert (oscar.posts(), list(oscar.jobs)) == (1, [name])


@pytest.mark.parametrize(
    "rule", [{"log": "moo"}, lambda job: "moo" in job.log, None], ids=["pattern", "function", "marker of a manifest"]
)
def test_retry_that_cannot_read_the_log_removes_no_job_that_ended_well(oscar, monkeypatch, rule):
    store = Store()
    deferred(plain(success_when=rule), context(store))
    (name,) = oscar.jobs
    oscar.jobs[name] = "Succeeded"

    def unreachable(backend, job_id):
        raise TransientError("the log is away")

    with monkeypatch.context() as patch:
        patch.setattr(OscarBackend, "log", unreachable)
        with pytest.raises(TransientError, match="the log is away"):
            plain(success_when=rule).execute(context(store))
    assert (oscar.posts(), list(oscar.jobs)) == (1, [name])


def test_rule_that_is_not_satisfied_is_not_success(oscar):
    task, seen = plain(success_when={"log": "moo"}), context()
    pause = deferred(task, seen)
    (name,) = oscar.jobs
    oscar.jobs[name], oscar.logs[name] = "Succeeded", "error\n"
    with pytest.raises(Exception, match="not proven"):
        resumed(task, seen, pause, ended(seconds_ago=600))


def test_object_is_sent_as_a_complete_event(oscar):
    deferred(plain(payload=None, event_format="minio", object_event=EVENT), context())
    (body,) = oscar.bodies.values()
    record = json.loads(body)["Records"][0]
    assert record["eventSource"] == "minio:s3"
    assert record["eventTime"]
    assert (record["s3"]["bucket"]["name"], record["s3"]["bucket"]["arn"]) == ("in", "arn:aws:s3:::in")


@pytest.mark.parametrize(
    ("form", "field"), [("dcache", "subscription"), ("webdav", "event"), ("rucio", "event_type"), ("s3", "Records")]
)
def test_every_form_of_event_is_json(oscar, form, field):
    deferred(plain(payload=None, event_format=form, object_event=EVENT), context())
    assert field in json.loads(next(iter(oscar.bodies.values())))


def test_raw_event_is_a_file(oscar):
    deferred(plain(payload=None, event_format="raw", object_event=EVENT), context())
    assert json.loads(base64.b64decode(next(iter(oscar.bodies.values()))))["key"] == EVENT["key"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"object_event": EVENT}, "object_event would be ignored.*event_format"),
        ({"event_format": "minio"}, "exactly one of command, payload and event_format"),
        ({"payload": None, "event_format": "kafka"}, "expected 'minio', .* or 'raw'"),
        ({"success_when": "always"}, "expected 'status'"),
        ({"success_when": {"log": "("}}, "is not a pattern"),
        ({"success_when": {"log": ""}}, "log is ''; expected a text"),
        ({"success_when": {"log": None}}, "log is 'None'; expected a text"),
        ({"success_when": {"objects": ["s3://a/b"]}}, "objects is .*; expected a text"),
        ({"success_when": {}}, "expected 'status'"),
        ({"success_when": never_awaited}, "is an async function"),
        ({"success_when": lambda: True}, r"function of \(\); expected one of a single EndedJob"),
        ({"success_when": lambda job, log: True}, "function of .*; expected one of a single EndedJob"),
        ({"success_when": {"objects": "ftp://x/y"}}, "cannot read the object URI"),
        ({"payload": None, "command": ["x"], "output_uri": "s3://a/b", "success_when": "status"}, "proves its success"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused_in_the_dag_file(arguments, message):
    with pytest.raises(DefinitionError, match=message):
        plain(**arguments)


def succeeded(oscar, rule, store=None):
    """A task whose job has ended well as far as OSCAR knows, and what its trigger says."""
    task, seen = plain(success_when=rule), context(store)
    pause = deferred(task, seen)
    (name,) = oscar.jobs
    oscar.jobs[name], oscar.logs[name] = "Succeeded", "moo\n"
    return task, seen, pause


def test_a_function_that_raises_is_named_and_a_retry_asks_it_again_without_another_job(oscar):
    store, said = Store(), []

    def has_cow(job):
        said.append(job.job_id)
        if len(said) == 1:
            raise KeyError("cow")
        return True

    task, seen, pause = succeeded(oscar, has_cow, store)
    with pytest.raises(TransientError, match=r"success_when: has_cow raised KeyError \(.*cow.*\) about job .*stays"):
        resumed(task, seen, pause, ended())
    assert plain(success_when=has_cow).execute(context(store))["proof"] == "observed"
    assert (oscar.posts(), len(said)) == (1, 2)


def test_the_place_of_a_rule_may_be_a_template_and_its_pattern_is_none(oscar, monkeypatch):
    asked = []

    def remember(rule, job, log, **_):
        asked.append(rule)
        return observe("status", job, log, output_conn_id="")

    monkeypatch.setattr("airflow_provider_oscar.operators.oscar.observe", remember)
    rule = {"log": "mo{1,2}", "objects": "s3://out/{{ run_id }}/{job_id}/*", "conn_id": "{{ run_id }}"}
    resumed(*succeeded(oscar, rule), ended())
    assert asked == [{"log": "mo{1,2}", "objects": "s3://out/run-1/{job_id}/*", "conn_id": "run-1"}]


@pytest.mark.parametrize(
    "found",
    [["s3://b/x"], ("s3://b/x",), {"s3://b/x": 1}.keys(), {"s3://b/x"}, iter(["s3://b/x"])],
    ids=["list", "tuple", "keys", "set", "iterator"],
)
def test_a_function_lists_outputs_in_whatever_holds_several(oscar, found):
    task, seen, pause = succeeded(oscar, lambda job: found)
    assert [each["key"] for each in resumed(task, seen, pause, ended())["outputs"]] == ["s3://b/x"]


def test_a_function_whose_answer_would_have_to_be_awaited_is_not_success(oscar):
    task, seen, pause = succeeded(oscar, lambda job: never_awaited(job))
    with pytest.raises(Exception, match="returns something to be awaited"):
        resumed(task, seen, pause, ended())


def test_payload_that_json_cannot_say_is_refused_before_a_job_is_started(oscar):
    with pytest.raises(Exception, match="the payload of task 'infer' cannot be sent as JSON"):
        plain(payload={"a": {1, 2}}).execute(context())
    assert oscar.posts() == 0


@pytest.mark.parametrize(
    "event",
    [
        {"Records": [{"eventSource": "minio:s3", "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}}]},
        {"event": {"mask": []}, "subscription": "x"},
        {"event_type": "close"},
    ],
)
def test_event_that_would_end_the_supervisor_with_a_key_error_is_not_sent(oscar, event):
    with pytest.raises(Exception, match="which OSCAR's supervisor needs"):
        plain(payload=event).execute(context())
    assert oscar.posts() == 0
