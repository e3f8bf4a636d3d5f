# SPDX-License-Identifier: Apache-2.0
"""What the WebDAV door and the pool of the embedded dCache have in common: answers, bodies, checksum headers."""

from __future__ import annotations

import http
from collections.abc import Callable, Iterator
from typing import Any

from oscar_testbed.fakes.dcache.entries import Entry
from oscar_testbed.webserver import REASON

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
SERVER = "dCache/12.0.1"
_BLOCK = 1 << 18
_PLAIN = ("Content-Type", "text/plain;charset=utf-8")
_PHRASES = {207: "Multi-status", 413: "Request Entity Too Large"}


def phrase(status: int) -> str:
    """What dCache says beside a status."""
    return _PHRASES.get(status) or http.HTTPStatus(status).phrase


def answered(
    start_response: StartResponse, status: int, body: str | bytes, *headers: tuple[str, str], reason: str = ""
) -> list[bytes]:
    """Begin an answer and return its body.

    :param body: a text is sent as plain text, unless ``headers`` say what it is.
    :param reason: for the status line, where it is not the usual one.
    """
    content = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body
    named = {name.lower() for name, _ in headers}
    kind = [_PLAIN] if isinstance(body, str) and body and "content-type" not in named else []
    extra = [(REASON, reason)] if reason else []
    start_response(f"{status} {phrase(status)}", [("Content-Length", str(len(content))), *kind, *headers, *extra])
    return [content]


def received(environ: Environ) -> Iterator[bytes]:
    """The body of a request.

    :raises ValueError: if it broke off.
    """
    declared = environ.get("CONTENT_LENGTH")
    left = int(declared) if declared else None
    if left is None and "chunked" not in str(environ.get("HTTP_TRANSFER_ENCODING", "")).lower():
        return
    source = environ["wsgi.input"]
    while left is None or left > 0:
        block = source.read(_BLOCK if left is None else min(_BLOCK, left))
        if not block:
            break
        left = None if left is None else left - len(block)
        yield block
    if left:
        raise ValueError("the body broke off")


def digest_header(entry: Entry, wanted: str) -> tuple[str, str] | None:
    """The ``Digest`` header for a ``Want-Digest`` request, if adler32 is wanted and known.

    dCache 12.0 does not answer ``Want-Repr-Digest``.
    """
    if "adler32" not in wanted.lower() or not entry.adler32 or entry.size is None:
        return None
    return "Digest", f"adler32={entry.adler32}"


def message_headers(*found: tuple[str, str] | None) -> list[tuple[str, str]]:
    """The headers that there are."""
    return [each for each in found if each is not None]
