# SPDX-License-Identifier: Apache-2.0
"""The WebDAV door of the embedded dCache, a WSGI application: what dCache 12.0 answers, word for word where it matters.

Bytes are the pool's matter (:mod:`.pool`), properties :mod:`.properties`', macaroons :mod:`.access`'.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from oscar_testbed.fakes.dcache import properties
from oscar_testbed.fakes.dcache.access import Access, AccessError, Principal
from oscar_testbed.fakes.dcache.entries import Entry, NamespaceError
from oscar_testbed.fakes.dcache.messages import (
    SERVER,
    Environ,
    StartResponse,
    answered,
    digest_header,
    message_headers,
    received,
)
from oscar_testbed.fakes.dcache.namespace import Namespace
from oscar_testbed.fakes.dcache.pool import Pool

_STAGING_PATIENCE = 30.0
_PART = "door"
_MACAROON = "application/macaroon-request"
_HTML = ("Content-Type", "text/html;charset=utf-8")
_XML = (("Content-Type", "application/xml; charset=utf-8"), ("DAV", "1, 2"))
#: Levels that dCache shows of an infinite depth.
_INFINITY = 3
_RANGES = ("Accept-Ranges", "bytes")

#: Verbs that the door knows, and does not serve.
_KNOWN = frozenset({"LOCK", "REPORT", "TRACE", "UNLOCK"})


class Door:
    """The application.

    :param stage: asks for a file to be brought from tape.
    """

    def __init__(self, namespace: Namespace, access: Access, pool: Pool, stage: Callable[[str], None]) -> None:
        self._namespace = namespace
        self._access = access
        self._faults = namespace.faults
        self._pool = pool
        self._stage = stage
        self.url = ""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        start_response = self._with_date(start_response)
        address = str(environ.get("HTTP_X_FORWARDED_FOR") or environ["REMOTE_ADDR"]).partition(",")[0].strip()
        if (fault := self._fault(address, start_response)) is not None:
            return fault
        return _Request(self, environ, start_response, address).answer()

    def _with_date(self, start_response: StartResponse) -> StartResponse:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            date = email.utils.formatdate(self._namespace.now(), usegmt=True)
            return start_response(status, [*headers, ("Server", SERVER), ("Date", date)], *rest)

        return start

    def _fault(self, address: str, start_response: StartResponse) -> Iterable[bytes] | None:
        if delay := self._faults.delay_at(_PART):
            time.sleep(delay)
        busy = "Server is busy. Please try again later."
        if wait := self._access.barred(_PART, address):
            return answered(start_response, 429, busy, ("Retry-After", str(int(wait) + 1)))
        match self._faults.refusal_at(_PART):
            case None:
                return None
            case 429:
                return answered(start_response, 429, busy, ("Retry-After", "1"))
            case 401:
                return _unauthorized(start_response)
            case status:
                return answered(start_response, status, "Internal problem\n")


class _Request:
    """One request to the door."""

    def __init__(self, door: Door, environ: Environ, start_response: StartResponse, address: str) -> None:
        self._door = door
        self._environ = environ
        self._start = start_response
        self._address = address
        self._names = door._namespace
        self._method = str(environ["REQUEST_METHOD"])
        target = urlsplit(str(environ["REQUEST_URI"]))
        self._shown = unquote(target.path, errors="surrogateescape")
        self._path = self._shown.rstrip("/") or "/"
        self._who = Principal("", 0)
        query = parse_qs(target.query).get("authz", [])
        self._authorization = str(environ.get("HTTP_AUTHORIZATION", "")) or (f"Bearer {query[0]}" if query else "")

    def answer(self) -> Iterable[bytes]:
        """Log in and do what is asked."""
        if self._method == "OPTIONS" and not self._authorization:
            return self._options()
        try:
            self._who = self._door._access.authenticate(self._authorization, self._address)
        except AccessError:
            self._door._access.note_unauthorized(_PART, self._address)
            return _unauthorized(self._start)
        serve = {
            "GET": self._get, "HEAD": self._get, "PUT": self._put, "POST": self._post, "DELETE": self._delete,
            "MKCOL": self._mkcol, "MOVE": self._move, "COPY": self._copy, "OPTIONS": self._options,
            "PROPFIND": self._propfind, "PROPPATCH": self._proppatch,
        }.get(self._method)  # fmt: skip
        if serve is None and self._method in _KNOWN:
            return self._say(501, f"Method {self._method} is not implemented.\n")
        if serve is None:
            return self._say(500, b"", reason="Server Error")
        try:
            return serve()
        except AccessError:
            return self._say(403, f"Permission denied for {self._method} on path {self._shown}\n")
        except NamespaceError as error:
            return self._refused(error)

    def _refused(self, error: NamespaceError) -> Iterable[bytes]:
        match error.status:
            case 404:
                return self._say(404, f"Path not found: {self._shown}\n")
            case 405:
                return self._say(405, f"Method {self._method} is not allowed.\n")
            case 409:
                return self._say(409, b"<html><body><h1>Conflict</h1></body></html>")
            case 412:
                return self._say(412, "")
            case status:
                return self._say(status, f"{error}\n")

    def _say(self, status: int, body: str | bytes, *headers: tuple[str, str], reason: str = "") -> list[bytes]:
        return answered(self._start, status, body, *headers, reason=reason)

    def _get(self) -> Iterable[bytes]:
        self._who.require("READ_METADATA", self._path)
        entry = self._names.require(self._path)
        if entry.directory:
            return self._directory(entry)
        if self._method == "HEAD":
            return self._head(entry)
        self._who.require("DOWNLOAD", self._path)
        if entry.locality == "NEARLINE":
            entry = self._from_tape()
        if not entry.online:
            raise NamespaceError(409, f"cannot be read now, its locality is {entry.locality}")
        return self._say(302, b"", ("Location", self._door._pool.ticket(self._path, self._door.url, entry)))

    def _directory(self, entry: Entry) -> Iterable[bytes]:
        place = self._door.url + quote(self._path, safe="/")
        if not self._shown.endswith("/"):
            return self._say(302, b"", ("Location", f"{place}/"))
        self._who.require("LIST", self._path)
        if not self._names.listable(entry):
            raise AccessError(403, "Forbidden")
        link = f'<{place.rstrip("/")}/?type=metalink>; rel=describedby; type="application/metalink4+xml"'
        rows = "".join(f"<li>{quote(each.name)}</li>" for each in self._names.children(entry))
        page = f"<!DOCTYPE html>\n<html><body><ul>{rows}</ul></body></html>"
        return self._say(200, page, *_tagged(entry), _modified(entry), ("Link", link), _HTML)

    def _head(self, entry: Entry) -> Iterable[bytes]:
        digest = message_headers(digest_header(entry, str(self._environ.get("HTTP_WANT_DIGEST", ""))))
        kind = ("Content-Type", properties.content_type(entry))
        size = [] if entry.size is None else [("Content-Length", str(entry.size))]
        self._start("200 OK", [*_tagged(entry), _modified(entry), kind, *size, *digest])
        return [b""]

    def _from_tape(self) -> Entry:
        self._door._stage(self._path)
        deadline = time.monotonic() + _STAGING_PATIENCE
        while not (entry := self._names.require(self._path)).online and time.monotonic() < deadline:
            time.sleep(0.05)
        return entry

    def _put(self) -> Iterable[bytes]:
        self._who.require("UPLOAD", self._path)
        declared = self._environ.get("CONTENT_LENGTH")
        limit = self._who.max_upload
        only_new = self._environ.get("HTTP_IF_NONE_MATCH", "").strip() == "*"
        old = self._names.stat(self._path)
        tags = str(self._environ.get("HTTP_IF_MATCH", ""))
        if tags and (old is None or (tags.strip() != "*" and f'"{old.etag}"' not in tags)):
            raise NamespaceError(412, "another version")
        if old is not None:
            if only_new:
                raise NamespaceError(412, "exists")
            if old.directory:
                raise NamespaceError(405, "is a directory")
            self._who.require("DELETE", self._path)  # dCache replaces a file by deleting it first
        if self._door._faults.full or (limit is not None and (not declared or int(declared) > limit)):
            raise NamespaceError(507, "Insufficient storage: SER_DISK_FULL")
        if self._environ.get("HTTP_EXPECT", "").lower() == "100-continue":
            place = self._door._pool.ticket(self._path, self._door.url)
            return self._say(307, b"", ("Location", place), ("Connection", "close"))
        md5 = hashlib.md5(usedforsecurity=False)
        with self._names.begin_upload(self._path, only_new=only_new) as upload:
            try:
                for block in received(self._environ):
                    md5.update(block)
                    upload.write(block)
            except (OSError, ValueError) as error:
                raise NamespaceError(400, "the upload broke off") from error
            promised = self._environ.get("HTTP_CONTENT_MD5")  # dCache 12.0 does not look at Digest
            if promised is not None and promised != base64.b64encode(md5.digest()).decode():
                raise NamespaceError(400, "Received a bad PUT request.")
            upload.commit()
        entry = self._names.require(self._path)
        digest = message_headers(digest_header(entry, str(self._environ.get("HTTP_WANT_DIGEST", ""))))
        return self._say(201, b"", *_tagged(entry), *digest)

    def _post(self) -> Iterable[bytes]:
        if self._environ.get("CONTENT_TYPE") != _MACAROON:  # with a charset it is none, to dCache
            return self._say(501, "Method POST is not implemented.\n")
        try:
            body = b"".join(received(self._environ))
            token = self._door._access.mint(self._who, self._path, body, self._address)
        except AccessError as error:
            return self._say(error.status, b"", reason=str(error))
        target = self._door.url + quote(self._shown, safe="/~")
        base = f"{self._door.url}/"
        uri = {
            "targetWithMacaroon": f"{target}?authz={token}",
            "baseWithMacaroon": f"{base}?authz={token}",
            "target": target,
            "base": base,
        }
        text = json.dumps({"macaroon": token, "uri": uri}, indent=4) + "\n"
        return self._say(200, text, ("Content-Type", "application/json"))

    def _delete(self) -> Iterable[bytes]:
        self._who.require("DELETE", self._path)
        entry = self._names.require(self._path)
        self._names.delete(self._path, recursive=True)
        return self._say(204, b"", *_tagged(entry))

    def _mkcol(self) -> Iterable[bytes]:
        self._who.require("UPLOAD", self._path)
        if self._names.stat(self._path) is not None:
            raise NamespaceError(405, "exists")
        self._names.mkdir(self._path)
        return self._say(201, b"")

    def _move(self) -> Iterable[bytes]:
        if "HTTP_DESTINATION" not in self._environ:
            return self._broken('Cannot invoke "String.length()" because "this.input" is null')
        if self._elsewhere("HTTP_DESTINATION"):
            raise NamespaceError(412, "another server")
        target = unquote(urlsplit(str(self._environ["HTTP_DESTINATION"])).path, errors="surrogateescape")
        self._who.require("MANAGE", self._path)
        self._who.require("MANAGE", target)
        entry = self._names.require(self._path)
        there = self._names.stat(target)
        if there is not None and self._environ.get("HTTP_OVERWRITE") != "T":
            raise NamespaceError(412, "exists")  # dCache does not follow RFC 4918's default of T
        if entry.directory and target.startswith(f"{self._path}/"):
            return self._broken("Cannot move directory into itself.")
        self._names.move(self._path, target)
        return self._say(201 if there is None else 204, b"", *_tagged(entry))

    def _broken(self, what: str) -> Iterable[bytes]:
        return self._say(500, f"Internal problem: {what}\n", reason="Server Error")

    def _elsewhere(self, header: str) -> bool:
        """Whether a URL in a header is that of another host."""
        host = urlsplit(str(self._environ.get(header, ""))).hostname
        return host not in (None, urlsplit(f"//{self._environ.get('HTTP_HOST', '')}").hostname)

    def _copy(self) -> Iterable[bytes]:
        self._names.require(self._path)
        if ("HTTP_DESTINATION" in self._environ) is ("HTTP_SOURCE" in self._environ):
            return self._say(400, b"")
        if self._elsewhere("HTTP_DESTINATION"):  # this one reaches no other
            return self._say(400, b"", reason="Unknown destination hostname")
        return self._say(500, b"", reason="transfer service unavailable")

    def _options(self) -> Iterable[bytes]:
        return self._say(200, b"")

    def _propfind(self) -> Iterable[bytes]:
        self._who.require("READ_METADATA", self._path)
        entry = self._names.require(self._path)
        names = properties.wanted(b"".join(received(self._environ)))
        shown = self._shown + ("/" if entry.directory and not self._shown.endswith("/") else "")
        depth = self._environ.get("HTTP_DEPTH", "infinity")
        levels = int(depth) if depth in ("0", "1") else _INFINITY
        found = [(shown, entry), *self._below(shown, entry, levels)]
        body = properties.multistatus(found, names)
        if levels and self._door._faults.take("truncate_listings"):
            body = body[: len(body) // 2]
        return self._say(207, body, *_XML)

    def _below(self, shown: str, entry: Entry, levels: int) -> list[tuple[str, Entry]]:
        """What is shown below a directory: nothing, without a word, where it may not be listed."""
        if not levels or not entry.directory or self._door._faults.take("empty_propfind"):
            return []
        if not self._who.allows("LIST", shown) or not self._names.listable(entry):
            return []
        found: list[tuple[str, Entry]] = []
        for child in self._names.children(entry):
            path = f"{shown}{child.name}{'/' if child.directory else ''}"
            found += [(path, child), *self._below(path, child, levels - 1)]
        return found

    def _proppatch(self) -> Iterable[bytes]:
        self._who.require("UPDATE_METADATA", self._path)
        entry = self._names.require(self._path)
        try:
            put, gone, names = properties.changed(b"".join(received(self._environ)))
        except ValueError:
            put, gone, names = {}, [], []
        if put:
            self._names.set_xattrs(self._path, put)
        if there := [name for name in gone if name in entry.xattrs]:
            self._names.remove_xattrs(self._path, there)
        # dCache sets them, and says of each that it is not there.
        return self._say(207, properties.refused(self._shown, names), *_XML)


def _unauthorized(start_response: StartResponse) -> list[bytes]:
    return answered(start_response, 401, b"", ("WWW-Authenticate", 'Basic realm=""'), reason="login failed")


def _tagged(entry: Entry) -> tuple[tuple[str, str], tuple[str, str]]:
    return _RANGES, ("ETag", f'"{entry.etag}"')


def _modified(entry: Entry) -> tuple[str, str]:
    return "Last-Modified", email.utils.formatdate(entry.mtime, usegmt=True)
