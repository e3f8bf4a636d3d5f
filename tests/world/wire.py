# SPDX-License-Identifier: Apache-2.0
"""A wire that breaks: passes bytes on between a client and a server, and resets or hangs when told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from urllib.parse import urlsplit

_RESET = struct.pack("ii", 1, 0)
_WORDS = b"<Error><Code>XMinioStorageFull</Code><Message>Storage backend has no free drive.</Message></Error>"
_FULL = b"HTTP/1.1 507 Insufficient Storage\r\nContent-Type: application/xml\r\nConnection: close\r\n" + (
    b"Content-Length: %d\r\n\r\n%s" % (len(_WORDS), _WORDS)
)


class Wire:
    """Listens on loopback in front of one server.

    :param url: of the server, ``http://host:port``.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 80)
        self.reset_before = 0
        """So many of the next requests are reset before the server sees them."""
        self.reset_after = 0
        """So many of the next requests are reset when the server has acted and before it is heard."""
        self.hanging = threading.Event()
        """While set, nothing gets through; connections are taken and kept."""
        self.full = threading.Event()
        """While set, what would write is answered 507, as by a store whose disks are full."""
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def start(self) -> None:
        """Serve in threads."""
        threading.Thread(target=self._accept, name="wire", daemon=True).start()

    def stop(self) -> None:
        """End."""
        self._open.set()
        self._server.close()

    def _take(self, name: str) -> bool:
        with self._lock:
            left: int = getattr(self, name)
            if left > 0:
                setattr(self, name, left - 1)
            return left > 0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            first = client.recv(65536)
            while self.hanging.is_set() and not self._open.wait(0.2):
                pass
            if not first or self._take("reset_before"):
                self._reset(client)
                return
            if self.full.is_set() and first.startswith((b"PUT ", b"POST ")):
                self._refuse(client, first)
                return
            with socket.create_connection(self._target, timeout=60) as server:
                server.settimeout(None)
                server.sendall(first)
                if self._take("reset_after"):
                    threading.Thread(target=self._copy, args=(client, server), daemon=True).start()
                    server.recv(1)
                    self._reset(client)
                    return
                back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
                back.start()
                self._copy(client, server)
                back.join()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    @staticmethod
    def _refuse(client: socket.socket, first: bytes) -> None:
        """Say that the disks are full, and read on, since a connection closed with bytes unread is reset."""
        if b"100-continue" not in first.lower():
            client.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while client.recv(65536):
                    pass
        client.sendall(_FULL)
        client.shutdown(socket.SHUT_WR)

    @staticmethod
    def _reset(client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        client.close()
