# SPDX-License-Identifier: Apache-2.0
"""Answers of any form end in a result or in an error of ours; found by ``make fuzz``."""

from __future__ import annotations

import contextlib
import json

import httpx
import pytest
from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import LostContactError, OscarProviderError
from airflow_provider_oscar.core.shapes import as_list, as_mapping, as_mappings, sendable, sentence
from airflow_provider_oscar.hooks.dcache import DCacheHook, tape
from airflow_provider_oscar.hooks.http.flows import run
from airflow_provider_oscar.hooks.oscar.api import OscarCalls
from airflow_provider_oscar.hooks.oscar.requests import OscarRequests
from airflow_provider_oscar.hooks.slurm import SlurmHook
from airflow_provider_oscar.operators.oscar_calls import _buckets

ODD = st.sampled_from([None, True, 0, 1.5, "a", "\ud800", [], [1], {}, {"a": 1}])


class _Oscar(OscarCalls):
    api = OscarRequests("https://oscar", "connection 'o'")


@given(st.one_of(ODD, st.lists(ODD), st.dictionaries(st.text(), ODD)))
def test_what_is_of_another_form_is_empty(value):
    assert as_mapping(value) == (value if isinstance(value, dict) else {})
    assert as_list(value) == (value if isinstance(value, list) else [])
    assert as_mappings(value) == [each for each in as_list(value) if isinstance(each, dict)]


@given(st.text(alphabet=st.characters()))
def test_what_is_sent_can_be_encoded_and_is_else_unchanged(text):
    assert sendable(text).encode().decode() == sendable(text)
    assert sendable(text) == text or any("\ud800" <= letter <= "\udfff" for letter in text)


@pytest.mark.parametrize("errors", [True, 1.5, {"a": 1}, "text", [3]])
def test_slurm_may_say_anything_of_its_errors(errors):
    body = json.dumps({"jobs": [], "errors": errors})
    hook = SlurmHook(
        connection=Connection(conn_id="s", conn_type="http", host="h", extra=json.dumps({"api_version": "v0.0.40"}))
    )
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    hook.client = lambda: httpx.Client(base_url="http://h", transport=transport)
    with contextlib.suppress(OscarProviderError):
        assert hook.jobs() == []


@pytest.mark.parametrize("files", [True, 1.5, {"a": 1}, "text", [3]])
def test_dcache_may_say_anything_of_staged_files(files):
    connection = Connection(
        conn_id="dc", conn_type="dcache", host="https://door", extra=json.dumps({"frontend_url": "https://front"})
    )
    frontend = DCacheHook(connection=connection).frontend
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=json.dumps({"files": files})))
    with httpx.Client(transport=transport) as client:
        assert run(client, tape.stage_status(frontend, "\ud800"), display_name="x").states == {}


def test_a_page_that_cannot_be_asked_for_is_no_end_of_the_list():
    asked = []

    def answer(request):
        asked.append(request.url.query)
        if request.url.query:
            return httpx.Response(500)
        return httpx.Response(200, content=json.dumps({"jobs": {}, "next_page": "\ud800", "remaining_jobs": 1}))

    with httpx.Client(transport=httpx.MockTransport(answer)) as client, pytest.raises(OscarProviderError):
        run(client, _Oscar().list_jobs("svc"), display_name="connection 'o'")
    assert b"page=%3F" in asked


@pytest.mark.parametrize("entries", [True, 1.5, {"a": 1}, "text", [3], None])
def test_a_service_may_hold_anything_for_inputs(entries):
    assert _buckets({"input": entries, "output": [{"path": "b/x", "storage_provider": "minio.default"}]}) == {"b"}


@pytest.mark.parametrize("body", ["3", "true", "{}", '"text"'])
def test_an_answer_without_a_list_of_services_does_not_say_that_there_are_none(body):
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    with httpx.Client(transport=transport) as client, pytest.raises(LostContactError, match="not a list"):
        run(client, _Oscar().list_services(), display_name="connection 'o'")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"errors":[{"message":"Permission denied","status":"403"}]}', "Permission denied"),  # dCache 12
        ('{"errors":[{"message":"a"},{"message":"b"},{"message":"a"}]}', "a; b"),
        (json.dumps({"errors": [{"message": str(n)} for n in range(5)]}), "0; 1; 2; and 2 more"),
        ('{"kind":"Status","status":"Failure","message":"no pod \\"a\\"","reason":"NotFound"}', 'no pod "a"'),
        ('{"error":"invalid_grant","error_description":"Token is\\n expired"}', "Token is expired"),
        ('{"type":"about:blank","title":"Forbidden","status":403,"detail":"no such right"}', "no such right"),
        ('{"error":{"code":401,"message":"Request had invalid credentials"}}', "Request had invalid credentials"),
        ('{"errors":[{"error":"Invalid user id","error_number":2010}]}', "Invalid user id"),  # slurmrestd
        ('{"error":"service not found"}', "service not found"),  # OSCAR
        ('"only a string"', "only a string"),
        ("<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access &lt;Denied&gt;.</Message></Error>",
         "Access <Denied>."),
        ("plain words", "plain words"),
        ('{"a": 1}', '{"a": 1}'),
        ('{"message": ""}', '{"message": ""}'),
        ('{"cut": "of', '{"cut": "of'),
        (b"\xff bytes", "\ufffd bytes"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_sentence_of_an_answer_is_told_without_what_is_around_it(body, said):
    assert sentence(body) == said


@given(st.recursive(st.none() | st.text() | st.integers(), lambda each: st.lists(each) | st.dictionaries(
    st.sampled_from(["message", "errors", "error", "detail", "x"]), each)))  # fmt: skip
def test_any_answer_says_something_if_it_is_not_empty(value):
    assert sentence(json.dumps(value)).strip()
