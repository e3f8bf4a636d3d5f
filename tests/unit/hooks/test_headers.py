# SPDX-License-Identifier: Apache-2.0
"""Headers are whatever bytes a server sends: each call ends with a result or an error of ours, and bytes stay bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import traceback
from datetime import timedelta

import httpx
import pytest
import urllib3
from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError
from airflow_provider_oscar.hooks.dcache import DCacheHook, events, rest, tape, webdav
from airflow_provider_oscar.hooks.http.cookies import cookie_jar
from airflow_provider_oscar.hooks.http.flows import arun, run, transport_error
from airflow_provider_oscar.hooks.http.headers import UnsendableHeaderError, require_sendable
from airflow_provider_oscar.hooks.http.pace import paced
from airflow_provider_oscar.hooks.http.paced_pools import pace_pools
from airflow_provider_oscar.hooks.oscar.api import OscarCalls
from airflow_provider_oscar.hooks.oscar.requests import OscarRequests

STATUSES = [200, 201, 204, 207, 301, 302, 303, 307, 400, 401, 403, 404, 409, 412, 429, 500, 503, 507]
NAMES = [
    "Location", "Content-Location", "Content-Type", "Content-Disposition", "Content-Encoding", "Content-Length", "Date",
    "Digest", "ETag", "Last-Modified", "Link", "Request-Url", "Retry-After", "Server", "Set-Cookie", "WWW-Authenticate",
    "X-Anything",
]  # fmt: skip
#: What a header field may hold on the wire, and the places where parsers break.
VALUES = st.one_of(
    st.lists(st.integers(0x20, 0xFF).filter(lambda byte: byte != 0x7F), max_size=40).map(bytes),
    st.sampled_from(
        [
            "https://door/données".encode("latin-1"), "https://pool/données".encode(), b"https://[::1", b"http://\xff/",
            b"//", b"https://xn--/", b"https://a:99999/", b"text/plain;charset=\xe9", b"application/json;charset=none",
            b"adler32=\xe9", b"99999999999999999999", b"Thu, 99 Foo 0000", b"https://h/api/v1/events/channels/\xfc",
        ]
    ),
)  # fmt: skip
ANSWERS = st.tuples(
    st.sampled_from(STATUSES),
    st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=4),
    st.sampled_from([b"", b"{}", b"[]", b"<html>", b'{"status": "AUTHENTICATED"}', "données".encode("latin-1")]),
)

FIELDS = {"frontend_url": "https://front:3880"}
HOOK = DCacheHook(
    connection=Connection(
        conn_id="dc", conn_type="dcache", host="https://door:2880", login="u", password="p", extra=json.dumps(FIELDS)
    )
)


class _Oscar(OscarCalls):
    api = OscarRequests("https://oscar", "connection 'o'")


OSCAR = _Oscar()
FLOWS = {
    "stat": lambda: rest.stat(HOOK.frontend, "/a"),
    "children": lambda: rest.children(HOOK.frontend, "/a"),
    "user": lambda: rest.user(HOOK.frontend),
    "stage": lambda: tape.stage(HOOK.frontend, ["/a"], disk_lifetime=timedelta(hours=1)),
    "stage status": lambda: tape.stage_status(HOOK.frontend, "x"),
    "channel": lambda: events.create_channel(HOOK.frontend),
    "watch": lambda: events.watch(HOOK.frontend, "/events/channels/x", "/a"),
    "heartbeat": lambda: events.heartbeat(HOOK.frontend, "/events/channels/x"),
    "look": lambda: webdav.stat(HOOK.door, "/a"),
    "read": lambda: webdav.read(HOOK.door, "/a"),
    "head": lambda: webdav.head(HOOK.door, "/a"),
    "write": lambda: webdav.write(HOOK.door, "/a/b", b"x"),
    "make directory": lambda: webdav.make_directory(HOOK.door, "/a/b"),
    "move": lambda: webdav.move(HOOK.door, "/a", "/b"),
    "delete": lambda: webdav.delete(HOOK.door, "/a"),
    "is dcache": lambda: webdav.is_dcache(HOOK.door),
    "macaroon": lambda: webdav.mint_macaroon(HOOK.door, "/a", activities=("DOWNLOAD",), lifetime=timedelta(hours=1)),
    "oscar": lambda: OSCAR.list_services(),
}


def server(answers):
    """Answers one request after the other; the last answer again and again."""
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        status, headers, body = left.pop(0) if len(left) > 1 else left[0]
        raw = [(name.encode(), value) for name, value in headers if name != "Content-Encoding"]
        return httpx.Response(status, headers=raw, stream=httpx.ByteStream(body))

    return httpx.MockTransport(answer)


@pytest.mark.parametrize("name", FLOWS)
@given(answers=st.lists(ANSWERS, min_size=1, max_size=3))
def test_any_header_ends_in_a_result_or_in_an_error_of_ours(name, answers):
    client = httpx.Client(transport=server(answers), cookies=cookie_jar())
    with client, contextlib.suppress(OscarProviderError):
        run(client, FLOWS[name](), display_name="connection 'dc'")


@given(value=VALUES)
def test_a_cookie_that_cannot_be_sent_back_does_not_break_the_calls_that_follow(value):
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("cookie", ""))
        return httpx.Response(200, headers=[(b"Set-Cookie", b"node=a"), (b"Set-Cookie", b"odd=" + value)])

    def flow():
        yield httpx.Request("GET", "https://door/a")
        yield client.build_request("GET", "https://door/a")

    with httpx.Client(transport=httpx.MockTransport(answer), cookies=cookie_jar()) as client:
        run(client, flow())
    assert "node=a" in asked[1], "a load balancer's cookie is kept"
    assert asked[1].isascii()


@given(status=st.sampled_from([200, 404, 503]), headers=st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6))
def test_headers_reach_a_flow_as_they_were_sent(status, headers):
    coded = {"Content-Encoding", "Content-Length"}
    sent = [(name.encode(), value) for name, value in headers if name not in coded]

    def flow():
        answer = yield httpx.Request("GET", "https://door/a")
        return answer.headers.raw

    transport = server([(status, headers, b"")])
    with httpx.Client(transport=transport) as client:
        found = run(client, flow(), display_name="x")

    async def later():
        async with httpx.AsyncClient(transport=transport) as client:
            return await arun(client, flow(), display_name="x")

    for raw in (found, asyncio.run(later())):
        assert [pair for pair in raw if pair[0].lower() != b"content-length"] == sent


UNSENDABLE = ["hush\n", "hush\r\nX-More: 1", " hush", "hush\t", "hu\0sh", "hu\fsh"]


@pytest.mark.parametrize("value", UNSENDABLE, ids=repr)
def test_a_value_that_no_header_can_hold_is_not_shown(value):
    """h11 quotes what it refuses, and Airflow masks a token as it was entered, not as Python writes it."""
    told = []
    request = httpx.Request("GET", "http://127.0.0.1:9/", headers={"X-Token": value})
    with paced(httpx.Client()) as client, pytest.raises(httpx.LocalProtocolError) as raised:
        client.send(request)
    told.append(raised.value)

    async def ask():
        async with paced(httpx.AsyncClient()) as client:
            await client.send(request)

    with pytest.raises(httpx.LocalProtocolError) as raised:
        asyncio.run(ask())
    told.append(raised.value)
    for error in told:
        ours = transport_error(error, request=request, display_name="connection 'c'")
        assert isinstance(ours, DefinitionError)
        assert "connection 'c'" in str(ours)
        assert "'X-Token' cannot be sent" in str(ours)
        assert "hush" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("value", [each for each in UNSENDABLE if "\n" in each], ids=repr)
def test_clients_on_urllib3_do_not_show_it_either(value):
    pool = urllib3.PoolManager(retries=False)
    pace_pools(pool)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(UnsendableHeaderError) as raised:
        pool.request("GET", f"http://127.0.0.1:{server.getsockname()[1]}/", headers={"Authorization": value})
    assert "hush" not in "".join(traceback.format_exception(raised.value))


def test_what_can_be_sent_is_sent():
    require_sendable([(b"a", b""), (b"b", b"x y\tz"), (b"c", "d\xe9j\xe0".encode())])
