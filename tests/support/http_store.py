# SPDX-License-Identifier: Apache-2.0
"""A small real HTTP server that is an S3 bucket with POST policies and a WebDAV door, with faults on order."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Fault = Callable[["Handler"], None]


class Store(ThreadingHTTPServer):
    """What it holds and what was asked; ``faults[method]`` are used up one per request, None lets one pass."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.objects: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        #: Headers of a WebDAV door's answer to HEAD; without them it does not know the method.
        self.door: dict[str, str] = {}
        #: What S3 answers to an upload, made from its content; None for a store that says nothing.
        self.tag: Callable[[bytes], str] | None = None
        self.connections = 0
        self.fields: dict[str, dict[str, str]] = {}
        self.directories: set[str] = {"/"}
        self.overwrite = True
        self.faults: defaultdict[str, deque[Fault | None]] = defaultdict(deque)
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    def paths(self, method: str) -> list[str]:
        return [path for asked, path, _ in self.requests if asked == method]

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the game."""


class Handler(BaseHTTPRequestHandler):
    server: Store
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class names it)
        pass

    def _begin(self) -> bool:
        self.server.requests.append((self.command, self.path, dict(self.headers.items())))
        planned = self.server.faults[self.command]
        fault = planned.popleft() if planned else None
        if fault is not None:
            fault(self)
        return fault is None

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def do_GET(self) -> None:
        if self._begin():
            data = self.server.objects.get(unquote(urlsplit(self.path).path))
            if data is None:
                self.answer(404, b"<Code>NoSuchKey</Code>")
            else:
                self.answer_part(data)

    def do_HEAD(self) -> None:
        if self._begin():
            known = unquote(urlsplit(self.path).path) in self.server.objects
            self.send_response(501 if not self.server.door else 200 if known else 404)
            for name, value in self.server.door.items():
                self.send_header(name, value)
            self.end_headers()

    def answer_part(self, data: bytes) -> None:
        """The whole, or the bytes asked for."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        if asked is None:
            self.answer(200, data, **self.server.headers)
        elif int(asked[1]) >= len(data):
            self.answer(416)
        else:
            last = min(int(asked[2] or len(data)), len(data) - 1)
            part = f"bytes {asked[1]}-{last}/{len(data)}"
            self.answer(206, data[int(asked[1]) : last + 1], Content_Range=part, **self.server.headers)

    def do_POST(self) -> None:
        if not self._begin():
            return
        fields, data = parse_form(self.headers["Content-Type"], self.body())
        key = fields["key"].replace("${filename}", fields["filename"])
        if not key.startswith(fields.get("x-allowed", "")):
            self.answer(403, b"<Code>AccessDenied</Code>")
            return
        self.server.objects[urlsplit(self.path).path.rstrip("/") + "/" + key] = data
        self.server.fields[key] = fields
        self.answer(204, **({"ETag": self.server.tag(data)} if self.server.tag else {}))

    def do_PUT(self) -> None:
        if not self._begin():
            return
        data = self.body()
        path = unquote(self.path)
        orphan = path.rpartition("/")[0] + "/" not in self.server.directories
        if orphan or (path in self.server.objects and not self.server.overwrite):
            self.answer(409)
        else:
            self.server.objects[path] = data
            wanted = self.headers["Want-Digest"] == "adler32" and self.server.tag
            self.answer(201, **({"Digest": f"adler32={self.server.tag(data)}"} if wanted and self.server.tag else {}))

    def do_MKCOL(self) -> None:
        if not self._begin():
            return
        path = unquote(self.path)
        if path in self.server.directories:
            self.answer(405)
        elif path.rstrip("/").rpartition("/")[0] + "/" not in self.server.directories:
            self.answer(409)
        else:
            self.server.directories.add(path)
            self.answer(201)

    def do_DELETE(self) -> None:
        if self._begin():
            self.answer(204 if self.server.objects.pop(unquote(self.path), None) is not None else 404)


def parse_form(content_type: str, body: bytes) -> tuple[dict[str, str], bytes]:
    """Split multipart/form-data by hand, so that a writer's slip is not healed by a forgiving parser."""
    boundary = b"--" + content_type.partition("boundary=")[2].encode()
    parts = body.split(boundary + b"\r\n")
    assert parts[0] == b""
    fields: dict[str, str] = {}
    data = b""
    for number, part in enumerate(parts[1:], start=1):
        head, _, value = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        assert name is not None
        if name[1] == b"file":
            assert number == len(parts) - 1, "S3 ignores what follows the file"
            data = value.removesuffix(b"\r\n" + boundary + b"--\r\n")
            filename = re.search(rb'filename="([^"]*)"', head)
            assert filename is not None
            fields["filename"] = filename[1].decode()
        else:
            fields[name[1].decode()] = value.removesuffix(b"\r\n").decode()
    return fields, data


@contextmanager
def running_store() -> Iterator[Store]:
    store = Store()
    thread = threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield store
    finally:
        store.shutdown()
        thread.join()
        store.server_close()


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer with a status after reading the body."""

    def fault(handler: Handler) -> None:
        if handler.headers["Content-Length"]:
            handler.body()
        handler.answer(code, body, **headers)

    return fault


def refuse_at_once(code: int) -> Fault:
    """Answer without reading the body, and close."""

    def fault(handler: Handler) -> None:
        handler.close_connection = True
        handler.answer(code, b"<Code>AccessDenied</Code>", Connection="close")

    return fault


def cut(data: bytes, at: int) -> Fault:
    """Promise all of the data, send part of it, close."""

    def fault(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:at])
        handler.wfile.flush()
        handler.close_connection = True

    return fault


def reset(handler: Handler) -> None:
    """End the connection without an answer, data unread: the client gets a reset."""
    handler.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: close with RST
    handler.rfile.close()
    handler.connection.close()
    handler.close_connection = True
    raise ConnectionResetError


def slow(seconds: float) -> Fault:
    """Say nothing for a while, then hang up."""

    def fault(handler: Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def redirect(code: int, location: str) -> Fault:
    return status(code, Location=location)
