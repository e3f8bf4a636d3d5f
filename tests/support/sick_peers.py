# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.support.sick_peers KIND``: a server that does with connections what no server library would.

In a process of its own, whose processor time is not that of the clients. It prints its port, and then a line for each
connection of which it read something, and one for each that it played to its end.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.accepting import accept_all

Play = Callable[[socket.socket], None]


def _head(kind: str = "application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n" % kind.encode()


def _hang(_: socket.socket) -> None:
    while True:
        time.sleep(60)


def _drip(found: socket.socket) -> None:
    found.sendall(_head() + b"Content-Length: 100000\r\n\r\n")
    while True:
        time.sleep(0.02)
        found.sendall(b" ")


def _reset(found: socket.socket) -> None:
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _whole(body: bytes, kind: str = "application/json") -> Play:
    return lambda found: found.sendall(_head(kind) + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))


def _endless(piece: bytes, kind: str = "application/json") -> Play:
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece)

    def play(found: socket.socket) -> None:
        found.sendall(_head(kind) + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            found.sendall(chunk)

    return play


#: By what they do; :data:`LARGE` are those that send megabytes.
PEERS: dict[str, Callable[[], Play]] = {
    "never answers": lambda: _hang,
    "drips": lambda: _drip,
    "resets": lambda: _reset,
    "garbage": lambda: lambda found: found.sendall(bytes(range(256)) * 4),
    "megabytes of objects": lambda: _whole(b"[" + b'{"metadata": {"name": "x"}},' * 60_000 + b"{}]"),
    "8 MB of numbers": lambda: _whole(b'{"files": [' + b"1," * 4_000_000 + b"1]}"),
    "many lists": lambda: _whole(b'{"items": [' + b"[]," * 60_000 + b"1]}"),
    "long lines": lambda: _whole((b'data: {"Records": [' + b"[]," * 100_000 + b"1]}\n\n") * 4, "text/event-stream"),
    "endless": lambda: _endless(b'{"a": [' * 8192),
    "an endless page": lambda: _endless(b'<a href="x">x</a>' * 4096, "text/html"),
}
LARGE = frozenset(list(PEERS)[4:])


class Peer:
    """A peer in its process.

    :param kind: what it does, of :data:`PEERS`.
    """

    def __init__(self, kind: str, process: subprocess.Popen[str]) -> None:
        self.kind = kind
        assert process.stdout is not None
        self._told = process.stdout
        self.port = int(self._told.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        self.asked = self.played = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        for line in self._told:
            if line == "asked\n":
                self.asked += 1
            else:
                self.played += 1


@contextmanager
def running(kind: str) -> Iterator[Peer]:
    """Run a peer for a while."""
    command = [sys.executable, "-m", "tests.support.sick_peers", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Peer(kind, process)
        finally:
            process.kill()


def main(kind: str) -> None:
    """Serve until killed."""
    play = PEERS[kind]()

    def serve(found: socket.socket) -> None:
        with found, contextlib.suppress(OSError):
            found.recv(65536)
            print("asked", flush=True)
            try:
                play(found)
            finally:
                print("played", flush=True)

    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    accept_all(server, serve)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
