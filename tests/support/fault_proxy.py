# SPDX-License-Identifier: Apache-2.0
"""A proxy before a server that fails at random, from one seed: refusals in bursts, and connections that are reset
before or after the server acted, or that end within the answer."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "content-encoding"}
#: Kinds of faults: what becomes of a request, and whether the server acts before. 401, 403 and 404 come in bursts, as
#: from an issuer or a proxy that is away for a moment; a proxy's 404 has a text.
NAMED = ("401", "403", "404", "reset before", "reset after", "cut after")
_OTHERS = (*(f"{status} {when}" for status in (429, 500, 502, 503) for when in ("before", "after")),)
_BURSTS = ("401", "403", "404")
#: Closing sends a reset.
_LINGER = struct.pack("ii", 1, 0)


class FaultProxy:
    """Decides what becomes of each request.

    First the kinds of ``NAMED`` come once each, with every third request; then each kind comes as often as each other.

    :param share: of the later requests that begin a fault, 0 to 1.
    :param seed: of what is drawn.
    :param burst: requests in a row that are answered by 401, 403 or 404.
    """

    def __init__(self, share: float, *, seed: int, burst: int = 3) -> None:
        self.share = share
        #: Faults so far, by kind; each answer of a burst is one.
        self.faults: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._burst = burst
        self._due: list[str] = []
        self._first = [fault for kind in self._random.sample(NAMED, len(NAMED)) for fault in (kind, "", "")]
        self._left: list[str] = []
        self._lock = threading.Lock()

    def draw(self) -> str:
        """Return the kind of fault of the next request; empty for none."""
        with self._lock:
            fault = self._draw()
            if fault:
                self.faults[fault] += 1
            return fault

    def _draw(self) -> str:
        if self._left:
            return self._left.pop()
        if self._first:
            fault = self._first.pop()
        elif self._random.random() >= self.share:
            fault = ""
        else:
            if not self._due:
                kinds = (*NAMED, *_OTHERS)
                self._due = self._random.sample(kinds, len(kinds))
            fault = self._due.pop()
        if fault in _BURSTS:
            self._left = [fault] * (self._burst - 1)
        return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = self.server.proxy.draw()
        what, _, when = fault.partition(" ")
        if not fault or when == "after":
            answer = self._ask(body)
        if not fault:
            self._answer(answer.status_code, dict(answer.headers), answer.content)
        elif what == "cut":
            self._answer(answer.status_code, dict(answer.headers), answer.content, missing=1)
        elif what == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            self.close_connection = True
        else:
            self._answer(int(what), {"content-type": "text/plain"}, b"404 page not found" if what == "404" else b"")

    def _ask(self, body: bytes) -> httpx.Response:
        passed = [(name, value) for name, value in self.headers.items() if name.lower() not in _HOP]
        url = httpx.URL(self.server.upstream).copy_with(raw_path=self.path.encode())
        return self.server.client.request(self.command, url, content=body, headers=passed)

    def _answer(self, status: int, headers: dict[str, str], body: bytes, *, missing: int = 0) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.close_connection or bool(missing)

    do_GET = do_POST = do_PUT = do_DELETE = _pass

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str, proxy: FaultProxy, client: httpx.Client) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.proxy, self.client = upstream, proxy, client

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away."""

    def shutdown_request(self, request: Any) -> None:
        # Without the polite end that socketserver sends first, so that a reset is one.
        self.close_request(request)


@contextmanager
def failing(upstream: str, proxy: FaultProxy) -> Iterator[str]:
    """Serve before a server; yields the address.

    :param upstream: URL of the server.
    :param proxy: decides over requests.
    """
    with httpx.Client(timeout=60, trust_env=False) as client, _Server(upstream, proxy, client) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
