# SPDX-License-Identifier: Apache-2.0
"""Rucio's datasets as a place to watch, over a server that answers as Rucio 41 does and refuses what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_plus

import httpx
import pytest
from airflow.sdk import Connection

from airflow_provider_oscar import NewObjects
from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, OscarProviderError, TransientError
from airflow_provider_oscar.hooks.connections import Connections
from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook
from airflow_provider_oscar.hooks.rucio.client import RucioClient, RucioSettings
from airflow_provider_oscar.hooks.rucio.filesystem import RucioFileSystem
from airflow_provider_oscar.rucio_fs import get_fs
from airflow_provider_oscar.watch.sources.filesystem import FileSystemSource


class Rucio:
    """Datasets by (scope, name), and tokens that end when a test says so."""

    def __init__(self) -> None:
        self.datasets: dict[tuple[str, str], list[Any]] = {}
        self.tokens = 0
        self.valid = ""
        self.accounts = ["reader"]
        self.cut = False
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0]
        self.asked.append(path)
        if path == "/auth/userpass":
            return self._authenticate(request)
        if request.headers.get("X-Rucio-Auth-Token") != self.valid or not self.valid:
            return self._error(401, "CannotAuthenticate", "Cannot authenticate with given credentials")
        if request.headers.get("Accept") != "application/x-json-stream":
            return self._error(406, "NotAcceptable", "")
        _, kind, scope, name, what = path.split("/")
        files = self.datasets.get((unquote_plus(scope), unquote_plus(name)))
        assert (kind, what) == ("dids", "files")
        if files is None:
            return self._error(404, "DataIdentifierNotFound", "Data identifier not found")
        body = "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in files)
        if self.cut:
            return httpx.Response(200, stream=Cut(body.encode()))
        return httpx.Response(200, content=body, headers={"Content-Type": "application/x-json-stream"})

    def _authenticate(self, request: httpx.Request) -> httpx.Response:
        given = {name: request.headers.get(f"X-Rucio-{name}") for name in ("Username", "Password", "Account")}
        if (given["Username"], given["Password"]) != ("me", "secret"):
            return self._error(401, "CannotAuthenticate", "Cannot authenticate to account with given credentials")
        if not given["Account"] and len(self.accounts) > 1:
            return httpx.Response(206, headers={"X-Rucio-Auth-Accounts": ",".join(self.accounts)})
        self.tokens += 1
        self.valid = f"token-{self.tokens}"
        return httpx.Response(200, headers={"X-Rucio-Auth-Token": self.valid})

    def _error(self, status: int, kind: str, message: str) -> httpx.Response:
        return httpx.Response(status, headers={"ExceptionClass": kind, "ExceptionMessage": message})


class Cut(httpx.SyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Any:
        yield self._body[:10]
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


def file(
    name: str, *, scope: str = "user.me", adler32: str | None = "0a1b2c3d", size: int | None = 5
) -> dict[str, Any]:
    return {"scope": scope, "name": name, "bytes": size, "adler32": adler32, "guid": None, "events": None}


def connection(**fields: Any) -> Connection:
    extra = fields.pop("extra", {})
    given = {"host": "https://rucio.example", "login": "me", "password": "secret", **fields}
    return Connection(conn_id="grid", conn_type="generic", extra=json.dumps(extra), **given)


@pytest.fixture
def rucio() -> Rucio:
    return Rucio()


@pytest.fixture
def files(rucio: Rucio) -> RucioFileSystem:
    return file_system(rucio)


def file_system(rucio: Callable[[httpx.Request], httpx.Response], **fields: Any) -> RucioFileSystem:
    found = RucioFileSystem("grid")
    settings = RucioSettings.from_connection(connection(**fields))
    found.__dict__["client"] = RucioClient(settings, transport=httpx.MockTransport(rucio))
    return found


def source_of(files: RucioFileSystem, url: str) -> FileSystemSource:
    def open_hook(place: str) -> FileSystemHook:
        hook = FileSystemHook("rucio", "grid")
        hook.__dict__["fs"] = files
        return hook

    return FileSystemSource(conn_id="grid", url=url, interval=1, connections=Connections("file system", open_hook))


async def test_the_files_of_a_dataset_are_objects_whose_version_is_their_checksum(rucio, files):
    rucio.datasets["user.me", "run/2026+1"] = [
        file("a.h5"),
        file("/store/b.h5", adler32=None) | {"guid": "7c0a"},
        file("c.h5", scope="other"),
        file("d.h5", size=None),
    ]
    pages = [page async for page in source_of(files, "rucio://user.me/run/2026+1").full_listing()]
    events = {event.key: event for page in pages for event in page.events}
    assert {key: (event.size, event.etag) for key, event in events.items()} == {
        "a.h5": (5, "0a1b2c3d"),
        "store/b.h5": (5, "7c0a"),
        "other:c.h5": (5, "0a1b2c3d"),
        "d.h5": (None, "0a1b2c3d"),
    }
    assert events["a.h5"].uri == "rucio://grid@user.me/run/2026%2B1/a.h5"
    assert (pages[-1].last, pages[-1].unreadable) == (True, 0)
    assert rucio.asked == ["/auth/userpass", "/dids/user.me/run%2F2026%2B1/files"]


async def test_lines_that_cannot_be_read_are_counted(rucio, files):
    rucio.datasets["user.me", "run"] = [file("a"), "{broken", "[1]", {"scope": "user.me"}, file("b", size=-1)]
    pages = [page async for page in source_of(files, "rucio://user.me/run").full_listing()]
    assert ([event.key for page in pages for event in page.events], pages[-1].unreadable) == (["a"], 4)


async def test_an_answer_that_is_cut_short_is_no_listing(rucio, files):
    rucio.datasets["user.me", "run"] = [file("a")]
    rucio.cut = True
    with pytest.raises(TransientError, match="Rucio connection 'grid' .*RemoteProtocolError"):
        _ = [page async for page in source_of(files, "rucio://user.me/run").full_listing()]


async def test_a_dataset_that_is_not_there_is_named(files):
    with pytest.raises(BadInputError, match="'user.me/missing'"):
        _ = [page async for page in source_of(files, "rucio://user.me/missing").full_listing()]


def test_a_token_that_has_expired_is_asked_for_once_more(rucio, files):
    rucio.datasets["user.me", "run"] = [file("a")]
    for _ in range(2):
        files.ls("user.me/run")
    rucio.valid = "another"
    files.ls("user.me/run")
    assert rucio.tokens == 2


def test_a_cookie_that_cannot_be_sent_back_stops_nothing(rucio):
    """Those of load balancers come with the token, before the first list."""
    rucio.datasets["user.me", "run"] = [file("a")]

    def balanced(request: httpx.Request) -> httpx.Response:
        answer = rucio(request)
        answer.headers = httpx.Headers([*answer.headers.raw, (b"Set-Cookie", "route=caf\xe9".encode("latin-1"))])
        return answer

    files = file_system(balanced)
    for _ in range(2):
        assert len(files.ls("user.me/run")) == 1


def test_an_account_without_rights_is_refused_and_not_asked_for_ever(rucio):
    files = file_system(rucio, password="wrong")
    with pytest.raises(PermissionError, match="401 'CannotAuthenticate"):
        files.ls("user.me/run")
    assert rucio.asked == ["/auth/userpass"]


def test_a_user_of_several_accounts_is_told_to_choose(rucio):
    rucio.accounts = ["reader", "writer"]
    with pytest.raises(DefinitionError, match="extra 'account' to one of 'reader,writer'"):
        file_system(rucio).ls("user.me/run")
    rucio.datasets["user.me", "run"] = [file("a")]
    assert file_system(rucio, extra={"account": "reader"}).ls("user.me/run", detail=False) == ["user.me/run/a"]


def test_a_token_of_a_connection_is_used_as_it_is(rucio):
    rucio.valid = "mine"
    rucio.datasets["user.me", "run"] = [file("a")]
    files = file_system(rucio, login=None, password="mine")
    assert files.exists("user.me/run")
    assert files.info("user.me/run/a")["size"] == 5
    assert not files.exists("user.me/other")
    assert "/auth/userpass" not in rucio.asked


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"host": ""}, "the host is ''"),
        ({"host": "http://rucio.example"}, "expected https://"),
        ({"password": ""}, "the password is empty"),
        ({"extra": {"auth_type": "gss"}}, "extra 'auth_type' is 'gss'"),
    ],
)
def test_a_connection_that_cannot_be_used_says_why(fields, words):
    with pytest.raises(OscarProviderError, match=f"connection 'grid': .*{words}|{words}"):
        RucioSettings.from_connection(connection(**fields))
    assert "secret" not in repr(RucioSettings.from_connection(connection()))


def test_a_dataset_is_a_place_of_new_objects_and_of_object_storage():
    incoming = NewObjects("rucio://grid@user.me/run", suffix=".h5")
    arguments = incoming.assets[0].watchers[0].trigger.arguments
    assert (arguments.url, arguments.conn_id, arguments.quiet_period) == ("rucio://user.me/run", "grid", 0)
    assert isinstance(get_fs("grid"), RucioFileSystem)


def test_an_endless_answer_that_is_no_list_of_files_is_given_up_after_a_megabyte():
    sent = 0

    class Endless(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            nonlocal sent
            while True:
                sent += 65536
                yield b"<a>" * 21845 + b"x"

    settings = RucioSettings.from_connection(
        Connection(conn_id="r", conn_type="generic", host="https://rucio", password="t", extra='{"auth_type": "token"}')
    )
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless()))
    with pytest.raises(TransientError, match="answered more than 1048576 bytes"):
        list(RucioClient(settings, transport=transport).files("s", "n"))
    assert sent < 4 * 1024 * 1024
