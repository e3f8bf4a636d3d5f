# SPDX-License-Identifier: Apache-2.0
"""The pool of the embedded dCache: hands out and takes bytes at one-time URLs, without asking who it is."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from oscar_testbed.fakes.dcache.entries import Entry
from oscar_testbed.fakes.dcache.messages import (
    Environ,
    StartResponse,
    answered,
    digest_header,
    message_headers,
    received,
)
from oscar_testbed.fakes.dcache.namespace import Namespace
from oscar_testbed.webserver import AsgiServer, from_wsgi

_BLOCK = 1 << 18
_BOUNDARY = "__AAAAAAAAAAAAAAAA__"
_PART_OF_RANGE = re.compile(r"([0-9]*)-([0-9]*)")
_RANGES = ("Accept-Ranges", "bytes")
#: Characters a path has in dCache's Content-Location, besides those of every URL.
_PATH = "/!$&'()*+,;=:@~"


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str
    door: str
    entry: Entry | None
    """None for a file to be written."""


class Pool:
    """The bytes of all files.

    :param namespace: knows where they are.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._tickets: dict[str, _Ticket] = {}
        self._used: dict[str, _Ticket] = {}
        self.server = AsgiServer(from_wsgi(self._serve, workers=8), date_header=False)

    def ticket(self, path: str, door: str, entry: Entry | None = None) -> str:
        """A URL that serves the file once, or takes a new one.

        :param path: absolute path of the file.
        :param door: URL of the door, without slash.
        """
        ticket = str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
        self._tickets[ticket] = _Ticket(path, door, entry)
        return (
            f"{self.server.url}{quote(path, safe='/')}?dcache-http-uuid={ticket}&dcache-http-ref={quote(door, safe='')}"
        )

    def _serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        name = str(environ.get("QUERY_STRING", "")).rpartition("dcache-http-uuid=")[2].partition("&")[0]
        ticket = self._tickets.get(name)
        method = environ["REQUEST_METHOD"]
        if ticket is None:
            return self._expired(start_response, name)
        if method == "PUT" and ticket.entry is None:
            self._use(name)
            return self._take(environ, start_response, ticket)
        if method in ("GET", "HEAD") and ticket.entry is not None:
            return self._give(environ, start_response, name, ticket, ticket.entry)
        return answered(start_response, 501, b"", reason="The requested operation is not supported by dCache")

    def _use(self, name: str) -> None:
        if (ticket := self._tickets.pop(name, None)) is not None:
            self._used[name] = ticket

    def _expired(self, start_response: StartResponse, name: str) -> Iterable[bytes]:
        """A used URL leads back to the door; one that never was leads nowhere."""
        if (used := self._used.get(name)) is None:
            return answered(start_response, 404, "")
        place = used.door + quote(used.path, safe=_PATH)
        return answered(start_response, 307, "", ("Location", place), reason="Request is no longer valid")

    def _take(self, environ: Environ, start_response: StartResponse, ticket: _Ticket) -> Iterable[bytes]:
        with self._namespace.begin_upload(ticket.path) as upload:
            for block in received(environ):
                upload.write(block)
            upload.commit()
        place = ticket.door + quote(ticket.path, safe=_PATH)
        return answered(start_response, 201, f"{upload.size} bytes uploaded\r\n\r\n", ("Location", place))

    def _give(
        self, environ: Environ, start_response: StartResponse, name: str, ticket: _Ticket, entry: Entry
    ) -> Iterable[bytes]:
        size = entry.size or 0
        digest = message_headers(digest_header(entry, str(environ.get("HTTP_WANT_DIGEST", ""))))
        if "HTTP_RANGE" in environ and environ["REQUEST_METHOD"] == "GET":
            return self._give_parts(environ, start_response, entry, digest)
        headers = [  # no ETag: dCache's pools send none
            ("Content-Length", str(size)),
            _RANGES,
            ("Content-Disposition", _disposition(entry.name)),
            ("Content-Location", ticket.door + _latin(ticket.path)),
            *digest,
        ]
        start_response("200 OK", headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        self._use(name)
        return self._read(entry, 0, size)

    def _give_parts(
        self, environ: Environ, start_response: StartResponse, entry: Entry, digest: list[tuple[str, str]]
    ) -> Iterable[bytes]:
        """One part as it is, several in the envelope of a pool."""
        size = entry.size or 0
        try:
            parts = parse_ranges(str(environ["HTTP_RANGE"]), size)
        except ValueError as error:
            return answered(start_response, 400, b"", reason=str(error))
        if not parts:
            return answered(start_response, 416, b"", reason="Invalid (empty) list of valid ranges")
        if len(parts) == 1:
            ((first, last),) = parts
            more = [("Content-Range", f"bytes {first}-{last}/{size}"), _RANGES, *digest]
            start_response("206 Partial Content", [("Content-Length", str(last + 1 - first)), *more])
            return self._read(entry, first, last + 1 - first)
        body = b"".join(
            f"\r\n--{_BOUNDARY}\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n".encode()
            + b"".join(self._read(entry, first, last + 1 - first))
            for first, last in parts
        )
        kind = ("Content-Type", f'multipart/byteranges;boundary="{_BOUNDARY}"')
        return answered(start_response, 206, body + f"\r\n--{_BOUNDARY}--\r\n".encode(), kind, _RANGES, *digest)

    def _read(self, entry: Entry, first: int, length: int) -> Iterator[bytes]:
        """Yield a part of a file; listeners are told of it before its reader has all, so before what that does next."""
        self._namespace.tell_read(entry, "IN_OPEN")
        ended = False
        try:
            with self._namespace.open(entry) as source:
                source.seek(first)
                block = source.read(min(_BLOCK, length))
                while block and len(block) < length:
                    length -= len(block)
                    yield block
                    block = source.read(min(_BLOCK, length))
            ended = True
            self._namespace.tell_read(entry, "IN_ACCESS")
            self._namespace.tell_read(entry, "IN_CLOSE_NOWRITE")
            yield block
        finally:
            if not ended:
                self._namespace.tell_read(entry, "IN_CLOSE_NOWRITE")


def _latin(path: str) -> str:
    """A path as dCache's pools write it: ASCII escaped as in every URL, Latin-1 as it is, ``?`` for the rest."""
    return "".join(quote(each, safe=_PATH) if each < "\xa0" else each if each <= "\xff" else "?" for each in path)


def _disposition(name: str) -> str:
    """How a pool names the file: plainly, or encoded if it has other characters than a token."""
    if all(each.isascii() and (each.isalnum() or each in "!#$%&'*+-.^_`|~") for each in name):
        return f"attachment;filename={name}"
    return f"attachment;filename*=UTF-8''{quote(name, safe='!$&+-.^_`|~')}"


def parse_ranges(header: str, size: int) -> list[tuple[int, int]]:
    """First and last byte of each part that a file has of those that are asked for.

    :raises ValueError: if the header is not of the form ``bytes=…``, in dCache's words.
    """
    unit, _, asked = header.partition("=")
    if unit.strip() != "bytes" or not asked.strip():
        raise ValueError("Invalid definition of ranges")
    found = []
    for each in asked.split(","):
        part = _PART_OF_RANGE.fullmatch(each.strip())
        if part is None or not (part[1] or part[2]):
            continue
        first = int(part[1]) if part[1] else max(0, size - int(part[2]))
        last = min(int(part[2]), size - 1) if part[1] and part[2] else size - 1
        if first <= last:
            found.append((first, last))
    return found
