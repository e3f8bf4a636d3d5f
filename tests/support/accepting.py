# SPDX-License-Identifier: Apache-2.0
"""Servers of a few lines, for what no server library would ever do with a connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable


def accept_all(server: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    """Give each connection a thread of its own, until the server's socket is closed.

    :param server: listens.
    :param serve: does with a connection what the test is about.
    """

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
