# SPDX-License-Identifier: Apache-2.0
"""A faulty wire in front of a healthy S3 store: what no store can be asked to do itself.

It passes requests on as they are (the ``Host`` header included, which is signed) and changes answers: listings that
fail or break off, a clock that steps, and objects that share a second. An object keeps the time it was given.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import http.server
import re
import threading
import urllib.parse
from datetime import UTC, datetime, timedelta
from typing import Any

_MODIFIED = re.compile(rb"<LastModified>[^<]*</LastModified>")
_CONTENTS = re.compile(rb"<Contents>.*?</Contents>", re.S)
_KEY = re.compile(rb"<Key>([^<]*)</Key>")
_KEPT = ("content-type", "etag", "content-length", "x-amz-request-id")


class S3Proxy:
    """Listens on loopback and forwards to ``endpoint``; every field may be set while it runs.

    :param endpoint: the store's URL.
    """

    def __init__(self, endpoint: str) -> None:
        self.target = urllib.parse.urlsplit(endpoint).netloc
        self.fail_listings = 0
        self.truncate_listings = 0
        self.clock_offset = timedelta(0)
        self.pinned: datetime | None = None
        """While set, objects written get exactly this time."""
        self.listings = 0
        self.broken = 0
        self._times: dict[str, datetime] = {}
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        """Serve in a thread."""
        threading.Thread(target=self._server.serve_forever, name="s3-proxy", daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def now(self) -> datetime:
        """The store's clock as clients see it."""
        return datetime.now(tz=UTC) + self.clock_offset

    def take(self, name: str) -> bool:
        """Count a fault down and say whether there was one left."""
        with self._lock:
            left: int = getattr(self, name)
            if left > 0:
                setattr(self, name, left - 1)
                self.broken += 1
            return left > 0

    def note_put(self, path: str) -> None:
        """Give an object that is about to be written its time, if it is not to have its own."""
        if self.pinned is not None:
            self._times[_key(path)] = self.pinned
        elif self.clock_offset:
            self._times[_key(path)] = self.now().replace(microsecond=0)

    def modified(self, key: str) -> datetime | None:
        """Return the time an object was given, or None if it has its own."""
        return self._times.get(key)

    def rewrite(self, body: bytes) -> bytes:
        """Put the times into a listing."""

        def one(match: re.Match[bytes]) -> bytes:
            entry = match.group()
            key = _KEY.search(entry)
            when = self.modified(urllib.parse.unquote_plus(key[1].decode())) if key else None
            if when is None:
                return entry
            return _MODIFIED.sub(f"<LastModified>{when:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>".encode(), entry)

        return _CONTENTS.sub(one, body)


def _key(path: str) -> str:
    return urllib.parse.unquote(path.partition("?")[0]).lstrip("/").partition("/")[2]


class _Handler(http.server.BaseHTTPRequestHandler):
    owner: S3Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Pass a request on, and its answer back."""
        proxy = self.owner
        listing = self.command == "GET" and "list-type=2" in self.path
        if listing:
            proxy.listings += 1
            if proxy.take("fail_listings"):
                self._answer(503, {}, b"<Error><Code>SlowDown</Code><Message>fault</Message></Error>")
                return
        if self.command == "PUT":
            proxy.note_put(self.path)
        try:
            status, headers, body = self._forward()
        except (OSError, http.client.HTTPException):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self._answer(502, {}, b"")
            return
        if listing and status == 200:
            body = proxy.rewrite(body)
            headers["content-length"] = str(len(body))
            if proxy.take("truncate_listings"):
                body = body[: len(body) // 2]
                self.close_connection = True
        elif (when := proxy.modified(_key(self.path))) is not None:
            headers["last-modified"] = email.utils.format_datetime(when, usegmt=True)
        self._answer(status, headers, body)

    do_PUT = do_HEAD = do_DELETE = do_POST = do_GET

    def _forward(self) -> tuple[int, dict[str, str], bytes]:
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length) if length else None
        connection = http.client.HTTPConnection(self.owner.target, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.putheader("Connection", "close")
            connection.endheaders(data)
            answer = connection.getresponse()
            headers = {n.lower(): v for n, v in answer.getheaders()}
            body = answer.read()
        kept = {name: value for name, value in headers.items() if name in (*_KEPT, "last-modified")}
        if self.command != "HEAD":
            kept["content-length"] = str(len(body))
        return answer.status, kept, body

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        headers.setdefault("content-length", str(len(body)))
        self.send_response_only(status)
        self.send_header("Date", email.utils.format_datetime(self.owner.now(), usegmt=True))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
