# SPDX-License-Identifier: Apache-2.0
"""The two drivers of flows: what they send, what they bound, and how transport errors come out.

Keeps row T5 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import asyncio
import gzip
import ssl

import httpx
import pytest

from airflow_provider_oscar.core.errors import (
    DefinitionError,
    PermanentError,
    TransientError,
)
from airflow_provider_oscar.hooks.http.flows import Flow, arun, run


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
        send(refused, secret(), where="connection 'x'")
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
