# SPDX-License-Identifier: Apache-2.0
"""A store that accepts connections and never answers: the sick neighbour of the healthy ones."""

from __future__ import annotations

import contextlib
import socket
import threading


class HungStore:
    """Listens on a port of its own; what is sent there is read by nobody."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, name="hung-store", daemon=True)

    @property
    def url(self) -> str:
        """Endpoint of the store."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def accepted(self) -> int:
        """Connections that wait for an answer, or gave up."""
        return len(self._held)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def stop(self) -> None:
        """Close everything."""
        # A thread in accept() is not woken by close().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._held:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._held.append(self._listener.accept()[0])
