# SPDX-License-Identifier: Apache-2.0
"""Takes down what the commands of the jobs say, wherever they run; nothing of it goes through what is on trial."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from oscar_testbed.process import LOOPBACK

#: No entry is longer.
_LONGEST = 1 << 16


class LedgerServer:
    """Appends each JSON object that is posted to a file, as a line.

    :param path: the ledger.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self._lock = threading.Lock()
        note = self.note

        class Handler(BaseHTTPRequestHandler):
            """One entry a request."""

            def do_POST(self) -> None:  # noqa: N802 - the name is http.server's
                body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), _LONGEST))
                try:
                    note(json.loads(body))
                except ValueError:
                    self.send_error(400)
                    return
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        """Of loopback."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve in a thread."""
        threading.Thread(target=self._server.serve_forever, name="ledger", daemon=True).start()

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()

    def note(self, entry: Any) -> None:
        """Write a line."""
        line = json.dumps(entry)
        with self._lock, self.path.open("a") as ledger:
            ledger.write(f"{line}\n")

    def lines(self) -> list[str]:
        """Return what was written until now."""
        return self.path.read_text().splitlines()
