# SPDX-License-Identifier: Apache-2.0
"""Door and frontend are two views of one namespace: one path is one file, and a version has one identity in both."""

from __future__ import annotations

import json

import httpx
import pytest
from airflow.sdk import Connection

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError
from airflow_provider_oscar.hooks.dcache import DCacheHook, events, rest, webdav
from airflow_provider_oscar.hooks.dcache.entries import split_etag
from airflow_provider_oscar.hooks.dcache.propfind import PropfindParser
from airflow_provider_oscar.hooks.dcache.settings import DCacheSettings

PNFSID = "0000C40A0D0C4D9B4A9EB9B05CD0AE3F291C"
FRONTEND = "https://front.example:3880"


def connection(host: str = "https://door.example:2880/base", **extra: object) -> Connection:
    fields = {"frontend_url": FRONTEND, **extra}
    return Connection(conn_id="dc", conn_type="dcache", host=host, login="u", password="pw", extra=json.dumps(fields))


def hook_with(answer, **extra: object) -> DCacheHook:
    """A hook whose requests a function answers."""
    hook = DCacheHook("dc", connection=connection(**extra))
    hook._client = httpx.Client(transport=httpx.MockTransport(answer))
    return hook


def response(href: str, props: str, status: str = "<D:status>HTTP/1.1 200 OK</D:status>") -> str:
    return f"<D:response><D:href>{href}</D:href><D:propstat><D:prop>{props}</D:prop>{status}</D:propstat></D:response>"


def multistatus(*responses: str) -> bytes:
    return f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{"".join(responses)}</D:multistatus>'.encode()


DIRECTORY = response(
    "/base/in/", f'<D:resourcetype><D:collection/></D:resourcetype><D:getetag>"{PNFSID}_1"</D:getetag>'
)
FILE = response(
    "/base/in/a",
    f'<D:getcontentlength>3</D:getcontentlength><D:getetag>"{PNFSID}_543413332"</D:getetag>'
    "<D:getlastmodified>Sat, 28 Nov 2026 07:00:00 GMT</D:getlastmodified>",
)


@pytest.mark.parametrize(
    ("host", "extra", "seen"),
    [
        ("https://door.example:2880", {}, "/in"),
        ("https://door.example:2880/base", {}, "/base/in"),
        ("https://door.example:2880/b%C3%A4se/", {}, "/b%C3%A4se/in"),
        ("https://door.example:2880/base", {"door_root": "/pnfs/site"}, "/pnfs/site/base/in"),
        ("https://door.example:2880/base", {"door_root": "/pnfs/site", "frontend_root": "/pnfs"}, "/site/base/in"),
        ("https://door.example:2880/base", {"frontend_root": "/base/"}, "/in"),
    ],
    ids=["root", "path", "not ASCII", "root of the door", "both roots", "root of the frontend"],
)
def test_one_path_is_one_file_at_door_and_frontend(host, extra, seen):
    settings = DCacheSettings.from_connection(connection(host, **extra))
    request = next(rest.stat(rest.RestEndpoint(settings), "/in"))
    assert request.url.raw_path.partition(b"?")[0].decode() == f"/api/v1/namespace{seen}"
    assert webdav.WebDavEndpoint(settings).url("/in") == f"{host.rstrip('/')}/in"


def test_frontend_that_does_not_show_the_directory_is_refused():
    with pytest.raises(DefinitionError, match="not below the extra 'frontend_root'"):
        DCacheSettings.from_connection(connection(frontend_root="/elsewhere"))


def test_paths_of_the_frontend_come_back_as_paths_of_the_connection():
    frontend = rest.RestEndpoint(DCacheSettings.from_connection(connection()))
    assert frontend.relative(frontend.absolute("/in/a")) == "/in/a"
    assert frontend.relative("/base") == "/"
    assert frontend.relative("/basement/x") == "/basement/x"


def test_version_has_one_identity_in_both_views():
    parser = PropfindParser("/base", what="test")
    parser.feed(multistatus(DIRECTORY, FILE))
    parser.close()
    at_door = list(parser.take())[1]
    body = {"fileType": "REGULAR", "pnfsId": PNFSID, "size": 3, "mtime": 1795849200123, "fileLocality": "ONLINE"}
    at_frontend = rest.entry_from_json(body, "/in/a")
    events_of = [entry.to_event(conn_id="dc", container="/in") for entry in (at_door, at_frontend)]
    assert events_of[0].id == events_of[1].id
    assert at_door.pnfsid == PNFSID


@pytest.mark.parametrize("etag", ["abc", "", "0123_4", f"{PNFSID}", f"{PNFSID.lower()}_1"])
def test_tag_of_another_server_is_left_as_it_is(etag):
    assert split_etag(etag) == (etag, "")


def test_entry_without_status_or_length_is_read_where_the_server_is_not_dcache():
    parser = PropfindParser("/base", what="test", plain=True)
    parser.feed(multistatus(response("/base/in/a", "<D:getetag>x</D:getetag>", status="")))
    parser.close()
    (entry,) = parser.take()
    assert entry.etag == "x"
    assert entry.size is None
    assert entry.complete


def test_frontend_that_is_down_hides_nothing_since_the_door_is_listed():
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "front.example":
            return httpx.Response(503)
        return httpx.Response(207, content=multistatus(DIRECTORY, FILE), headers={"Server": "dCache/12.0.1"})

    hook = hook_with(answer)
    assert [entry.name for entry in hook.list_entries("/in")] == ["a"]


@pytest.mark.parametrize(
    "failure",
    [500, 502, 503, 504, 429, httpx.ConnectError("refused"), httpx.ReadTimeout("hangs"), httpx.ReadError("cut")],
    ids=str,
)
def test_frontend_that_fails_is_left_alone_for_a_while_and_then_asked_again(failure):
    asked, now = [], [1000.0]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "front.example":
            asked.append(now[0])
            if now[0] > 1100:
                return httpx.Response(200, json={"fileType": "DIR", "children": [{"fileName": "b"}]})
            if isinstance(failure, Exception):
                raise failure
            return httpx.Response(failure)
        return httpx.Response(207, content=multistatus(DIRECTORY, FILE), headers={"Server": "dCache/12.0.1"})

    hook = hook_with(answer)
    hook._clock = lambda: now[0]
    for later in (0, 1, 10, 20):  # one that hangs costs one timeout, not one for each call
        now[0] = 1000.0 + later
        assert [entry.name for entry in hook.list_entries("/in")] == ["a"]
    assert asked == [1000.0]
    now[0] = 1200.0
    assert [entry.name for entry in hook.list_entries("/in")] == ["b"]
    assert asked == [1000.0, 1200.0]


def test_frontend_that_refuses_is_not_passed_over():
    def answer(request: httpx.Request) -> httpx.Response:
        status = 403 if request.url.host == "front.example" else 207
        return httpx.Response(status, content=multistatus(DIRECTORY, FILE))

    with pytest.raises(DefinitionError, match="permission denied"):
        hook_with(answer).list_entries("/in")


@pytest.mark.parametrize("frontend", [True, False], ids=["frontend", "door"])
def test_directory_that_may_not_be_listed_fails_the_test_button(frontend):
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/user"):
            return httpx.Response(200, json={"status": "AUTHENTICATED", "username": "u"})
        if "children" in request.url.params or request.method == "GET" and request.url.host != "front.example":
            return httpx.Response(403)
        if request.url.host == "front.example":
            return httpx.Response(200, json={"fileType": "DIR", "pnfsId": PNFSID})
        listed = multistatus(DIRECTORY.replace("/base/in/", "/base/"))
        return httpx.Response(207, content=listed, headers={"Server": "dCache/12.0.1"})

    connected, words = hook_with(answer, **({} if frontend else {"frontend_url": ""})).test_connection()
    assert not connected
    assert "permission denied" in words


@pytest.mark.parametrize("frontend", [True, False], ids=["frontend", "door"])
def test_entries_that_cannot_be_read_are_counted_for_the_caller(frontend, capsys):
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "front.example":
            children = [{"fileName": "a", "fileType": "REGULAR"}, {"fileName": "../b"}, 7]
            return httpx.Response(200, json={"fileType": "DIR", "children": children})
        if request.method == "GET":
            raise AssertionError("a directory with entries that cannot be read is not an empty one")
        elsewhere = [response(href, "<D:getetag>x</D:getetag>") for href in ("/else/b", "/else/c")]
        return httpx.Response(207, content=multistatus(DIRECTORY, *elsewhere), headers={"Server": "dCache/12.0.1"})

    hook = hook_with(answer, **({} if frontend else {"frontend_url": ""}))
    counts: list[int] = []
    assert [entry.name for entry in hook.iter_entries("/in", unreadable=counts.append)] == ["a"] * frontend
    assert (counts, capsys.readouterr().out) == ([2], "")
    for _ in range(3):
        hook.list_entries("/in")
    assert capsys.readouterr().out.count("2 entries of '/in' could not be read") == 1


@pytest.mark.parametrize("status", [401, 403])
def test_directory_that_may_not_be_listed_is_not_an_empty_one(status):
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(status)
        return httpx.Response(207, content=multistatus(DIRECTORY), headers={"Server": "dCache/12.0.1"})

    hook = hook_with(answer, frontend_url="")
    with pytest.raises(DefinitionError):
        hook.list_entries("/in")


def test_test_button_compares_both_views():
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/user"):
            return httpx.Response(200, json={"status": "AUTHENTICATED", "username": "u"})
        if request.url.host == "front.example":
            return httpx.Response(200, json={"fileType": "DIR", "pnfsId": "F" * 36})
        return httpx.Response(207, content=multistatus(DIRECTORY.replace("/base/in/", "/base/")))

    connected, words = hook_with(answer).test_connection()
    assert not connected
    assert "do not show the same directory" in words


def test_404_of_a_pool_is_not_an_absent_file():
    door = webdav.WebDavEndpoint(DCacheSettings.from_connection(connection()))
    flow = webdav.read(door, "/in/a")
    next(flow)
    flow.send(httpx.Response(302, headers={"location": "https://pool.example/x?dcache-http-uuid=1"}))
    with pytest.raises(TransientError, match="pool"):
        flow.send(httpx.Response(404))


FLOWS = {
    "read": lambda door: webdav.read(door, "/in/a"),
    "head": lambda door: webdav.head(door, "/in/a"),
    "stat": lambda door: webdav.stat(door, "/in/a"),
}
WRITES = {
    "delete": lambda door: webdav.delete(door, "/in/a"),
    "move": lambda door: webdav.move(door, "/in/a", "/in/b"),
}


@pytest.mark.parametrize("ask", {**FLOWS, **WRITES}.values(), ids={**FLOWS, **WRITES})
def test_404_of_a_proxy_before_the_door_is_not_an_absent_file(ask):
    door = webdav.WebDavEndpoint(DCacheSettings.from_connection(connection()))
    flow = ask(door)
    next(flow)
    probe = flow.send(httpx.Response(404, text="404 page not found"))
    assert (probe.method, probe.url.path) == ("PROPFIND", "/base/")
    with pytest.raises(TransientError, match="404 to everything"):
        flow.send(httpx.Response(404))


@pytest.mark.parametrize("ask", FLOWS.values(), ids=FLOWS)
def test_an_absent_file_is_one_by_the_doors_own_word(ask):
    door = webdav.WebDavEndpoint(DCacheSettings.from_connection(connection()))
    flow = ask(door)
    asked = next(flow)
    with pytest.raises(StopIteration) as ended:  # a dCache says who it is
        flow.send(httpx.Response(404, headers={"server": "dCache/12.0.1"}))
    assert ended.value.value is None
    for root in (207, 403, 405):  # another server shows its root, and is asked again, since it may have been away
        flow = ask(door)
        next(flow)
        flow.send(httpx.Response(404))
        again = flow.send(httpx.Response(root))
        assert (again.method, again.url) == (asked.method, asked.url)
        with pytest.raises(StopIteration) as ended:
            flow.send(httpx.Response(404))
        assert ended.value.value is None


def test_subscription_that_dcache_cannot_end_is_not_taken_for_gone():
    frontend = rest.RestEndpoint(DCacheSettings.from_connection(connection()))
    flow = events.unsubscribe(frontend, "/events/channels/A/subscriptions/inotify/AA%2FA")
    next(flow)
    with pytest.raises(PermanentError, match="cannot end"):
        flow.send(httpx.Response(404))
