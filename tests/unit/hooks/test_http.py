# SPDX-License-Identifier: Apache-2.0
"""What all hooks share: the table of statuses, Retry-After, and headers that stay the bytes they were."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError
from airflow_provider_oscar.hooks.http.errors import http_error, retry_after
from airflow_provider_oscar.hooks.http.flows import Flow, run


@given(st.integers(100, 599))
def test_every_status_has_a_class_and_a_system_can_differ(status):
    assert str(http_error(status, "words")) == "words"
    assert type(http_error(status, "words", overrides={status: DefinitionError})) is DefinitionError


def test_delay_is_kept_by_errors_that_pass():
    error = http_error(503, "busy", delay=7.0)
    assert isinstance(error, TransientError)
    assert error.delay == 7.0
    assert type(http_error(400, "no", delay=7.0)) is PermanentError


@pytest.mark.parametrize("text", ["", "soon", "-1", "1e9", "9" * 20, "\u0663"])
def test_retry_after_that_cannot_be_read_gives_the_default(text):
    assert retry_after({"retry-after": text}, 5.0) == 5.0


values = st.binary(max_size=40).map(lambda raw: raw.translate(None, b"\r\n\0"))


@given(st.lists(st.tuples(st.sampled_from([b"Content-Location", b"X-Odd", b"Server"]), values), max_size=5))
def test_headers_stay_the_bytes_they_were(headers):
    def flow() -> Flow[httpx.Response]:
        return (yield httpx.Request("GET", "https://door.example/x"))

    sent = httpx.Response(200, headers=headers, content=b"{}")
    with httpx.Client(transport=httpx.MockTransport(lambda _: sent)) as client:
        answer = run(client, flow())
    assert [pair for pair in answer.headers.raw if pair[0].lower() != b"content-length"] == headers
    assert answer.content == b"{}"
