# SPDX-License-Identifier: Apache-2.0
"""A wire that breaks: passes bytes on between a client and a server, and resets or hangs when told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from urllib.parse import urlsplit

_RESET = struct.pack("ii", 1, 0)


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
    def _reset(client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        client.close()
