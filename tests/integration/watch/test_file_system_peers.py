# SPDX-License-Identifier: Apache-2.0
"""File systems whose servers hang, drip, reset or speak something else: an error in time, and nobody else waits."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_oscar.core.errors import OscarProviderError, TransientError
from airflow_provider_oscar.hooks import connections
from airflow_provider_oscar.hooks.connections import StoreConnection
from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook
from tests.support.accepting import accept_all
from tests.support.loop_watchdog import require_free_loop

WORKERS, DEADLINE = 2, 0.4


class Server:
    """Accepts connections, and does with each what ``play`` says."""

    def __init__(self, play: Callable[[Server, socket.socket], None]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.play = play
        self.place = f"http://127.0.0.1:{self._socket.getsockname()[1]}/in"
        self.over = threading.Event()
        accept_all(self._socket, self._one)

    def _one(self, found: socket.socket) -> None:
        with found, contextlib.suppress(OSError):
            found.recv(65536)
            self.play(self, found)

    def close(self) -> None:
        self.over.set()
        self._socket.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100000\r\n\r\n"


def _silent(server: Server, _: socket.socket) -> None:
    server.over.wait()


def _drip(server: Server, found: socket.socket) -> None:
    found.sendall(HEAD)
    while not server.over.wait(0.02):
        found.sendall(b" ")


def _reset(server: Server, found: socket.socket) -> None:
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _well(server: Server, found: socket.socket) -> None:
    page = b'<a href="a.h5">a</a>'
    found.sendall(
        b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nETag: "1"\r\n'
        b"Content-Length: %d\r\n\r\n%s" % (len(page), page)
    )


PEERS = {
    "never answers": _silent,
    "drips": _drip,
    "resets": _reset,
    "closes": lambda server, found: None,
    "garbage": lambda server, found: found.sendall(bytes(range(256)) * 4),
    "ends early": lambda server, found: found.sendall(HEAD + b"<a href="),
}


@pytest.fixture(params=PEERS)
def sick(request: pytest.FixtureRequest) -> Iterator[Server]:
    made = Server(PEERS[request.param])
    yield made
    made.close()


def connection(display_name: str, protocol: str, *, deadline: float = DEADLINE) -> StoreConnection[FileSystemHook]:
    def open_hook() -> FileSystemHook:
        hook = FileSystemHook(protocol)
        _ = hook.fs
        return hook

    return StoreConnection(display_name, open_hook, workers=WORKERS, deadline=deadline)


async def names(store: StoreConnection[FileSystemHook], directory: str) -> list[str]:
    async with store.hook() as hook:
        return await store.call(lambda: [each.key for each in hook.iter_entries(directory)])


async def test_a_sick_file_system_is_told_and_a_healthy_one_is_listed_meanwhile(sick: Server, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"x")
    other = connection("file system connection 'sick'", "http")
    well = connection("file system connection 'well'", "file", deadline=60)
    told = list[BaseException | list[str]]()

    async def ask() -> None:
        told.extend(await asyncio.gather(*(names(other, sick.place) for _ in range(6)), return_exceptions=True))

    async def listen() -> None:
        listed, asking = 0, asyncio.create_task(ask())
        while not asking.done() or listed < 10:
            assert await names(well, str(tmp_path)) == ["a.h5"]
            listed += 1
            await asyncio.to_thread(lambda: None)  # what the triggerer shares is free
        await asking

    # The client of HTTP is imported with the first call, in a thread, which is not what is measured.
    await asyncio.gather(names(other, sick.place), return_exceptions=True)
    await require_free_loop(listen)
    assert told
    assert all(isinstance(each, OscarProviderError) for each in told), told
    assert all("connection 'sick'" in str(each) or "file system 'http'" in str(each) for each in told)
    other.close()
    well.close()


async def test_calls_that_would_hang_for_ever_are_given_up_and_the_server_is_heard_when_it_is_well(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "GIVE_UP_AFTER", 1)
    opened: list[Hanging] = []
    before = set(threading.enumerate())
    well = threading.Event()

    class Hanging:
        """A client without a time-out: what it waits for never comes, though the server is well again."""

        def __init__(self) -> None:
            self.over = threading.Event()
            opened.append(self)

        def ask(self) -> str:
            if not well.is_set():
                self.over.wait(60)
            return "answer"

        def close(self) -> None:
            self.over.set()

    store = StoreConnection("file system connection 'c'", Hanging, workers=WORKERS, deadline=0.05)

    async def ask() -> str:
        async with store.hook() as hook:
            return await store.call(hook.ask)

    try:
        for _ in range(6 * WORKERS * (connections._MOST_GIVEN_UP + 1)):
            with pytest.raises(TransientError, match="connection 'c'"):
                await ask()
        # Bounded: one pool at work, and those given up.
        hung = [each for each in threading.enumerate() if each not in before and each.name.startswith("store_")]
        assert len(hung) <= WORKERS * (connections._MOST_GIVEN_UP + 1)
        assert caplog.text.count("are given up") == connections._MOST_GIVEN_UP
        well.set()
        opened[0].over.set()  # the system gives up the oldest connection
        async with asyncio.timeout(120):
            while True:
                with contextlib.suppress(TransientError):
                    assert await ask() == "answer"
                    break
    finally:
        for each in opened:
            each.over.set()
        store.close()


@pytest.mark.parametrize("play", [_silent, _drip], ids=["silent", "drips"])
async def test_a_file_system_that_is_well_again_is_listed_again(
    play: Callable[[Server, socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "GIVE_UP_AFTER", 1)
    server = Server(play)
    store = connection("file system connection 'c'", "http")
    try:
        for _ in range(WORKERS + 2):
            with pytest.raises(TransientError):
                await names(store, server.place)
        server.play = _well  # the connections from before hang on
        async with asyncio.timeout(120):
            while True:
                with contextlib.suppress(TransientError):
                    assert await names(store, server.place) == ["a.h5"]
                    break
    finally:
        server.close()
        store.close()
