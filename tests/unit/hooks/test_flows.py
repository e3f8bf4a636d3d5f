# SPDX-License-Identifier: Apache-2.0
"""The two drivers of flows: what they send, what they bound, and how transport errors come out.

Keeps row T5 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import ssl

import httpx
import pytest

from airflow_provider_oscar.core.errors import (
    DefinitionError,
    PermanentError,
    TransientError,
)
from airflow_provider_oscar.hooks.http import flows
from airflow_provider_oscar.hooks.http.flows import KEEP_END, LINES_BEFORE, Flow, arun, run


def collect(pages: int) -> Flow[list[str]]:
    texts = []
    for page in range(pages):
        answer = yield httpx.Request("GET", f"http://h/{page}")
        texts.append(answer.text)
    return texts


def adopt() -> Flow[str]:
    try:
        answer = yield httpx.Request("POST", "http://h/job")
    except httpx.ConnectError:
        answer = yield httpx.Request("GET", "http://h/job")
    return answer.text


def send_sync(handler, flow, **options):
    with httpx.Client(transport=httpx.MockTransport(handler)) as client:
        return run(client, flow, **options)


def send_async(handler, flow, **options):
    async def main():
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            return await arun(client, flow, **options)

    return asyncio.run(main())


both = pytest.mark.parametrize("send", [send_sync, send_async], ids=["sync", "async"])


def echo(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, text=request.url.path)


def refused(request: httpx.Request) -> httpx.Response:
    if request.method == "POST":
        raise httpx.ConnectError("refused", request=request)
    return echo(request)


@both
def test_answers_are_sent_back_in_order(send):
    assert send(echo, collect(3)) == ["/0", "/1", "/2"]


@both
def test_a_flow_may_handle_a_transport_error_itself(send):
    assert send(refused, adopt()) == "/job"


@both
def test_an_unhandled_transport_error_names_the_connection_and_hides_the_query(send):
    def secret() -> Flow[None]:
        yield httpx.Request("POST", "http://user:pw@h/job?X-Amz-Signature=s3cret")

    with pytest.raises(TransientError, match="connection 'x'.*http://h/job") as caught:
        send(refused, secret(), display_name="connection 'x'")
    assert "s3cret" not in str(caught.value)
    assert "pw" not in str(caught.value)


@both
def test_an_untrusted_certificate_is_for_the_user_to_correct(send):
    def untrusted(request):
        try:
            raise ssl.SSLCertVerificationError(1, "certificate verify failed")
        except ssl.SSLError as error:
            raise httpx.ConnectError("x", request=request) from error

    with pytest.raises(DefinitionError, match="'verify'"):
        send(untrusted, collect(1))


@both
def test_a_body_above_the_limit_is_refused_even_when_it_is_compressed(send):
    bomb = gzip.compress(b"x" * 1_000_000)
    assert len(bomb) < 10_000
    with pytest.raises(PermanentError, match="more than 10000 bytes"):
        send(
            lambda request: httpx.Response(200, content=bomb, headers={"content-encoding": "gzip"}),
            collect(1),
            limit=10_000,
        )


@both
def test_compressed_answers_arrive_decoded_once(send):
    packed = gzip.compress(b"hello")
    assert send(
        lambda r: httpx.Response(200, content=packed, headers={"content-encoding": "gzip"}),
        collect(1),
    ) == ["hello"]


@both
def test_the_page_of_an_error_is_cut_and_does_not_count_against_the_limit(send):
    def status(request):
        return httpx.Response(404, content=b"x" * 1_000_000)

    def look() -> Flow[tuple[int, int]]:
        answer = yield httpx.Request("GET", "http://h/")
        return answer.status_code, len(answer.content)

    assert send(status, look(), limit=10) == (404, 64 * 1024)


LINES = b"".join(b"%d\n" % number for number in range(20_000))


def long_log(request):
    """A body in pieces that end anywhere."""
    return httpx.Response(200, content=(LINES[start : start + 997] for start in range(0, len(LINES), 997)))


def long_log_async(request):
    """The same; httpx takes the body of its asynchronous client from an asynchronous generator."""

    async def chunks():
        for chunk in long_log(request).iter_bytes():
            yield chunk

    return httpx.Response(200, content=chunks())


def log_of(keep_end: int) -> Flow[httpx.Response]:
    return (yield httpx.Request("GET", "http://h/log", extensions={KEEP_END: keep_end}))


@both
@pytest.mark.parametrize("keep_end", [1, 996, 5_000, 1_000_000])
def test_of_an_answer_of_any_size_the_end_is_kept_with_the_number_of_its_first_line(send, keep_end):
    found = send(long_log if send is send_sync else long_log_async, log_of(keep_end), limit=10)
    assert LINES.endswith(found.content)
    assert min(keep_end, len(LINES)) <= len(found.content) <= keep_end + keep_end // 4 + 997
    assert found.extensions[LINES_BEFORE] == LINES[: len(LINES) - len(found.content)].count(b"\n")


def test_an_answer_that_does_not_end_is_left(monkeypatch):
    monkeypatch.setattr(flows, "ENDLESS", 100_000)
    endless = itertools.repeat(b"moo\n" * 100)
    assert len(send_sync(lambda _: httpx.Response(200, content=endless), log_of(1000)).content) < 3000
