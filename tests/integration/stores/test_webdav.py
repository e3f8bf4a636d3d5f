# SPDX-License-Identifier: Apache-2.0
"""The dCache hook against Apache's mod_dav: a plain WebDAV server, without frontend and macaroons."""

from __future__ import annotations

import json
import socket
import threading
from datetime import timedelta

import pytest
from msgspec.structs import replace

from airflow_provider_oscar.core.errors import (
    BadInputError,
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
)
from airflow_provider_oscar.hooks.dcache import webdav

HOUR = timedelta(hours=1)
ODD_NAMES = [
    "a b.txt", "ü.h5", "new\nline", "x+y%20.bin", "q?#&.x", "k'\"<>&", "a" * 250, "..x", "tab\tx", "-rf", "%2F", "%",
    "$(id)",
]  # fmt: skip


def test_odd_names_are_listed_as_they_were_written(make_dav):
    hook = make_dav()
    for name in ODD_NAMES:
        hook.put_bytes("/odd/deep", name, name.encode())
    found = hook.list_directory("/odd", recursive=True)
    assert {event.key for event in found} == {f"deep/{name}" for name in ODD_NAMES}
    for event in found:
        assert hook.read_bytes(event.uri, 1000) == event.key.removeprefix("deep/").encode()
        assert hook.head("/odd", event.key).id == event.id


def test_a_listing_is_of_one_directory_unless_asked(make_dav):
    hook = make_dav()
    hook.put_bytes("/one/sub", "b", b"")
    hook.put_bytes("/one", "a", b"")
    assert [event.key for event in hook.list_directory("/one")] == ["a"]
    assert {entry.path: entry.is_directory for entry in hook.list_entries("/one")} == {
        "/one/a": False,
        "/one/sub": True,
    }
    with pytest.raises(PermanentError, match="more than"):
        hook.list_directory("/one", recursive=True, max_entries=2)
    with pytest.raises(PermanentError, match="directories"):
        hook.list_directory("/one", recursive=True, max_directories=1)


def test_a_missing_directory_is_not_an_empty_one(make_dav):
    with pytest.raises(BadInputError, match="no such path"):
        make_dav().list_directory("/absent")


def test_files_are_moved_and_deleted(make_dav):
    hook = make_dav()
    hook.put_bytes("/mv", "part", b"x")
    hook.move("/mv/part", "/mv/whole name")
    assert (hook.exists("/mv", "part"), hook.exists("/mv", "whole name")) == (False, True)
    hook.delete("/mv", "whole name")
    hook.delete("/mv", "whole name")
    assert not hook.exists("/mv", "whole name")


def test_reading_is_bounded_and_absence_is_none(make_dav):
    hook = make_dav()
    hook.put_bytes("/read", "big", b"x" * 100)
    assert hook.read_bytes("dcache://dav/read/none", 1) is None
    with pytest.raises(PermanentError, match="more than 99 bytes"):
        hook.read_bytes("dcache://dav/read/big", 99)


def test_credentials_are_not_handed_out_without_consent(make_dav, dav_server):
    hook = make_dav()
    hook.put_bytes("/st", "a", b"x")
    event = hook.head("/st", "a")
    with pytest.raises(DefinitionError, match="allow_credential_forwarding") as caught:
        hook.stage_in(event, lifetime=HOUR)
    assert dav_server.password not in str(caught.value)
    consenting = make_dav(extra={"allow_credential_forwarding": True})
    assert consenting.stage_in(event, lifetime=HOUR).headers["Authorization"].startswith("Basic ")
    open_server = make_dav(host=dav_server.open_url, login=None, password=None)
    assert open_server.stage_in(open_server.head("/st", "a"), lifetime=HOUR).headers == {}
    stage_out = open_server.stage_out("dcache://dav/st/out/", submission_id="job-1", lifetime=HOUR)
    assert (stage_out.uri, stage_out.url) == ("dcache://dav/st/out/job-1/", f"{dav_server.open_url}/st/out/job-1/")
    assert open_server.stat("/st/out/job-1").is_directory


def test_an_overwritten_file_is_not_staged_in(make_dav, dav_server):
    hook = make_dav(host=dav_server.open_url, login=None, password=None)
    hook.put_bytes("/ow", "a", b"x")
    event = hook.head("/ow", "a")
    hook.put_bytes("/ow", "a", b"longer")
    with pytest.raises(BadInputError, match="overwritten"):
        hook.stage_in(event, lifetime=HOUR)
    hook.delete("/ow", "a")
    with pytest.raises(BadInputError, match="is gone"):
        hook.stage_in(event, lifetime=HOUR)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "WebDAV door answers"),
        ({"password": "wrong"}, "does not accept the credentials"),
        ({"host": None}, "host is empty"),
        ({"host": "http://127.0.0.1:9"}, "cannot connect"),
        ({"host": "http://example.org"}, "plain http"),
    ],
    ids=["fine", "password", "host", "unreachable", "http"],
)
def test_the_test_button_says_what_is_wrong(make_dav, fields, words):
    ok, text = make_dav(**fields).test_connection()
    assert ok is (not fields)
    assert words in text


def test_a_server_without_tls_fails_the_test_button(make_dav, dav_server):
    ok, text = make_dav(host="https" + dav_server.url[4:]).test_connection()
    assert not ok
    assert "TLS" in text


def test_object_storage_path_reads_and_writes(make_dav, dav_server, monkeypatch):
    connection = {
        "conn_type": "dcache",
        "host": dav_server.url,
        "login": dav_server.user,
        "password": dav_server.password,
    }
    monkeypatch.setenv("AIRFLOW_CONN_DAV", json.dumps(connection))
    from airflow.sdk import ObjectStoragePath

    folder = ObjectStoragePath("dcache://dav@/osp")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.txt", "b c.txt", "x?#%20.txt"):
        with (folder / name).open("wb") as file:
            file.write(b"hello")
        assert (folder / name).read_bytes() == b"hello"
        assert (folder / name).stat().st_size == 5
    assert {path.name for path in folder.iterdir()} == {"a.txt", "b c.txt", "x?#%20.txt"}
    assert sorted(path.name for path in (dav_server.root / "osp").iterdir()) == ["a.txt", "b c.txt", "x?#%20.txt"]


class Canned:
    """A server that answers every connection with the same bytes and keeps what it was sent."""

    def __init__(self, answer: bytes) -> None:
        self.received: list[bytes] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                self.received.append(peer.recv(65536))
                try:
                    peer.sendall(self._answer)
                except OSError:
                    continue

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(120)


@pytest.fixture
def canned():
    made = []

    def make(answer: bytes) -> Canned:
        made.append(Canned(answer))
        return made[-1]

    yield make
    for server in made:
        server.close()


def test_credentials_do_not_follow_a_redirect_to_another_server(make_dav, canned):
    pool = canned(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndata")
    head = f"HTTP/1.1 302 Found\r\nLocation: {pool.url}/x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    door = canned(head.encode())
    assert make_dav(host=door.url).read_bytes("dcache://dav/a", 10) == b"data"
    assert b"authorization: basic" in door.received[0].lower()
    assert b"authorization" not in pool.received[0].lower()


HOSTILE = {
    "header line of 1 MB": b"HTTP/1.1 207 Multi-Status\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "no http": b"\x00\xff\x00garbage\r\n\r\n",
    "nothing": b"",
    "cut short": b'HTTP/1.1 207 M\r\nContent-Length: 999\r\n\r\n<multistatus xmlns="DAV:">',
    "endless nesting": b"HTTP/1.1 207 M\r\nConnection: close\r\n\r\n" + b"<a>" * 100_000,
    "html": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>",
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_server_gives_a_short_error_that_names_the_connection(make_dav, canned, answer):
    with pytest.raises(OscarProviderError, match="'dav'") as caught:
        make_dav(host=canned(answer).url).list_directory("/in")
    assert isinstance(caught.value, TransientError | PermanentError)
    assert len(str(caught.value)) < 1000


def test_the_streamed_and_the_single_look_agree(make_dav):
    hook = make_dav()
    hook.put_bytes("/agree", "a", b"abc")
    (listed,) = hook.list_entries("/agree")
    looked = hook.run(webdav.stat(hook.door, "/agree/a"))
    assert looked == replace(listed, unsized=looked.unsized)  # of a file that has a size it says nothing
