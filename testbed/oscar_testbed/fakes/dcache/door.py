# SPDX-License-Identifier: Apache-2.0
"""The WebDAV door of the embedded dCache and its pool: a WSGI application around WsgiDAV.

Does what WsgiDAV does not: dCache's logins, macaroon requests, uploads that appear when complete,
checksums on request, redirects to a pool, and the faults.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from wsgidav.error_printer import ErrorPrinter
from wsgidav.request_resolver import RequestResolver
from wsgidav.wsgidav_app import WsgiDAVApp

from oscar_testbed.fakes.dcache.access import Access, AccessError, Principal
from oscar_testbed.fakes.dcache.namespace import Entry, Namespace, NamespaceError
from oscar_testbed.fakes.dcache.webdav import (
    NO_CHILDREN,
    NamespaceProvider,
    digest_header,
    representation_digest_header,
)
from oscar_testbed.webserver import AsgiServer, from_wsgi

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
_BLOCK = 1 << 18
_STAGING_PATIENCE = 30.0
_REASONS = {
    200: "OK", 201: "Created", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 409: "Conflict", 412: "Precondition Failed",
    413: "Content Too Large", 429: "Too Many Requests", 500: "Internal Server Error",
    507: "Insufficient Storage",
}  # fmt: skip
#: What a method needs beyond looking; PROPFIND, GET, PUT and POST decide for themselves.
_ACTIVITIES = {
    "MKCOL": "MANAGE",
    "MOVE": "MANAGE",
    "COPY": "UPLOAD",
    "DELETE": "DELETE",
    "PROPPATCH": "UPDATE_METADATA",
}


class Pool:
    """Hands out bytes for the one-time URLs of redirected reads, without asking who it is."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._tickets: dict[str, Entry] = {}
        self.server = AsgiServer(from_wsgi(self._serve, workers=4), date_header=False)

    def ticket(self, entry: Entry) -> str:
        """A URL that serves the file once."""
        ticket = secrets.token_hex(16)
        self._tickets[ticket] = entry
        return f"{self.server.url}/{quote(entry.name)}?dcache-http-uuid={ticket}"

    def _serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ticket = str(environ.get("QUERY_STRING", "")).rpartition("dcache-http-uuid=")[2]
        entry = self._tickets.pop(ticket, None)
        if entry is None or environ["REQUEST_METHOD"] != "GET":
            return _answer(start_response, 404, b"no such transfer")
        # No ETag: dCache's pools send none.
        headers = [("Content-Length", str(entry.size)), ("Accept-Ranges", "bytes")]
        if digest := digest_header(entry, str(environ.get("HTTP_WANT_DIGEST", ""))):
            headers.append(digest)
        start_response("200 OK", headers)
        return self._read(entry)

    def _read(self, entry: Entry) -> Iterator[bytes]:
        with self._namespace.open(entry) as source:
            while block := source.read(_BLOCK):
                yield block


class Door:
    """The WSGI application of the WebDAV door."""

    def __init__(self, namespace: Namespace, access: Access, pool: Pool, stage: Callable[[str], None]) -> None:
        self._namespace = namespace
        self._access = access
        self._faults = namespace.faults
        self._pool = pool
        self._stage = stage
        self.url = ""
        self._dav = WsgiDAVApp(
            {
                "provider_mapping": {"/": NamespaceProvider(namespace)},
                "middleware_stack": [ErrorPrinter, RequestResolver],
                "lock_storage": None,
                "property_manager": None,
                "verbose": 0,
                "logging": {"enable": False},
            }
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        start_response = self._with_date(start_response)
        path = unquote(urlsplit(str(environ["REQUEST_URI"])).path, errors="surrogateescape")
        address = str(environ.get("HTTP_X_FORWARDED_FOR") or environ["REMOTE_ADDR"]).partition(",")[0].strip()
        try:
            if (fault := self._fault(address, start_response)) is not None:
                return fault
            principal = self._access.authenticate(str(environ.get("HTTP_AUTHORIZATION", "")), address)
            return self._serve(environ, start_response, path, principal, address)
        except AccessError as error:
            if error.status == 401:
                self._access.note_unauthorized(address)
                return _answer(start_response, 401, b"Permission denied", ("WWW-Authenticate", 'Basic realm="dCache"'))
            return _answer(start_response, error.status, str(error).encode())
        except NamespaceError as error:
            return _answer(start_response, error.status, str(error).encode())

    def _with_date(self, start_response: StartResponse) -> StartResponse:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [each for each in headers if each[0].lower() != "date"]
            return start_response(
                status, [*kept, ("Date", email.utils.formatdate(self._namespace.now(), usegmt=True))], *rest
            )

        return start

    def _fault(self, address: str, start_response: StartResponse) -> Iterable[bytes] | None:
        faults = self._faults
        if faults.slow_headers:
            time.sleep(faults.slow_headers)
        if wait := self._access.barred(address):
            return _answer(start_response, 429, b"Too many requests", ("Retry-After", str(int(wait) + 1)))
        match faults.refusal():
            case None:
                return None
            case 429:
                return _answer(start_response, 429, b"Too many requests", ("Retry-After", "1"))
            case 401:
                return _answer(start_response, 401, b"Permission denied", ("WWW-Authenticate", 'Basic realm="dCache"'))
            case status:
                return _answer(start_response, status, b"Internal problem")

    def _serve(
        self, environ: Environ, start_response: StartResponse, path: str, principal: Principal, address: str
    ) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method == "POST":
            return self._macaroon(environ, start_response, path, principal, address)
        if method == "PUT":
            return self._put(environ, start_response, path, principal)
        if method in ("GET", "HEAD"):
            return self._get(environ, start_response, path, principal)
        if method == "PROPFIND":
            return self._propfind(environ, start_response, path, principal)
        if method in _ACTIVITIES:
            principal.require(_ACTIVITIES[method], path)
            if destination := environ.get("HTTP_DESTINATION"):
                target = unquote(urlsplit(str(destination)).path, errors="surrogateescape")
                principal.require(_ACTIVITIES[method], target)
                if method == "MOVE" and environ.get("HTTP_OVERWRITE") != "T" and self._namespace.stat(target):
                    raise NamespaceError(412, "exists")  # dCache does not follow RFC 4918's default of T
        elif method != "OPTIONS":
            return _answer(start_response, 405, b"")
        return self._delegate(environ, start_response, path)

    def _delegate(self, environ: Environ, start_response: StartResponse, path: str) -> Iterable[bytes]:
        environ["PATH_INFO"] = path.encode("utf-8", "surrogateescape").decode("latin-1")
        answer: Iterable[bytes] = self._dav(environ, start_response)
        return answer

    def _macaroon(
        self, environ: Environ, start_response: StartResponse, path: str, principal: Principal, address: str
    ) -> Iterable[bytes]:
        if environ.get("CONTENT_TYPE") != "application/macaroon-request":
            return _answer(start_response, 405, b"only macaroon requests may be posted")
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > 65536:
            return _answer(start_response, 413, b"")
        token = self._access.mint(principal, path, environ["wsgi.input"].read(length), address)
        target = self.url + quote(path, safe="/~")
        uri = {
            "target": target,
            "targetWithMacaroon": f"{target}?authz={token}",
            "base": f"{self.url}/",
            "baseWithMacaroon": f"{self.url}/?authz={token}",
        }
        body = json.dumps({"macaroon": token, "uri": uri}).encode()
        return _answer(start_response, 200, body, ("Content-Type", "application/json"))

    def _get(self, environ: Environ, start_response: StartResponse, path: str, principal: Principal) -> Iterable[bytes]:
        principal.require("READ_METADATA", path)
        entry = self._namespace.require(path)
        if entry.directory:
            principal.require("LIST", path)
            return _answer(start_response, 200, b"")
        if environ["REQUEST_METHOD"] == "GET":
            principal.require("DOWNLOAD", path)
            if entry.locality == "NEARLINE":
                entry = self._wait_for_tape(path)
            if not entry.online:
                raise NamespaceError(409, f"cannot be read now, its locality is {entry.locality}")
            if self._faults.redirect_reads:
                return _answer(start_response, 302, b"", ("Location", self._pool.ticket(entry)))
        found = [
            digest_header(entry, str(environ.get("HTTP_WANT_DIGEST", ""))),
            representation_digest_header(entry, str(environ.get("HTTP_WANT_REPR_DIGEST", ""))),
        ]
        extra = [each for each in found if each is not None]

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, *extra], *rest)

        return self._delegate(environ, start, path)

    def _wait_for_tape(self, path: str) -> Entry:
        self._stage(path)
        deadline = time.monotonic() + _STAGING_PATIENCE
        while not (entry := self._namespace.require(path)).online and time.monotonic() < deadline:
            time.sleep(0.05)
        return entry

    def _propfind(
        self, environ: Environ, start_response: StartResponse, path: str, principal: Principal
    ) -> Iterable[bytes]:
        listing = environ.get("HTTP_DEPTH") != "0"
        principal.require("LIST" if listing else "READ_METADATA", path)
        if not listing:
            return self._delegate(environ, start_response, path)
        if self._faults.take("empty_propfind"):
            environ[NO_CHILDREN] = True
        truncate = self._faults.take("truncate_listings")
        if not truncate:
            return self._delegate(environ, start_response, path)
        begun: list[Any] = []
        body = b"".join(self._delegate(environ, lambda status, headers, *rest: begun.append((status, headers)), path))
        body = body[: len(body) // 2]
        headers = [each for each in begun[0][1] if each[0].lower() != "content-length"]
        start_response(begun[0][0], [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def _put(self, environ: Environ, start_response: StartResponse, path: str, principal: Principal) -> Iterable[bytes]:
        principal.require("UPLOAD", path)
        declared = environ.get("CONTENT_LENGTH")
        length = int(declared) if declared else None
        if principal.max_upload is not None and (length is None or length > principal.max_upload):
            raise NamespaceError(507, "Insufficient storage: SER_DISK_FULL")
        if (old := self._namespace.stat(path)) is not None:
            if environ.get("HTTP_IF_NONE_MATCH", "").strip() == "*":
                raise NamespaceError(412, "exists")
            if old.directory:
                raise NamespaceError(405, "is a directory")
            principal.require("DELETE", path)  # dCache replaces a file by deleting it first
        md5 = hashlib.md5(usedforsecurity=False)
        with self._namespace.begin_upload(path) as upload:
            try:
                for block in _body(environ, length):
                    md5.update(block)
                    upload.write(block)
            except (OSError, ValueError) as error:
                raise NamespaceError(400, "the upload broke off") from error
            if length is not None and upload.size != length:
                raise NamespaceError(400, "the upload broke off")
            _verify(environ, md5.digest())
            upload.commit()
        entry = self._namespace.require(path)
        found = digest_header(entry, str(environ.get("HTTP_WANT_DIGEST", "")))
        return _answer(start_response, 201, b"", ("ETag", f'"{entry.etag}"'), *([found] if found else []))


def _body(environ: Environ, length: int | None) -> Iterator[bytes]:
    source = environ["wsgi.input"]
    if length is None and "chunked" not in str(environ.get("HTTP_TRANSFER_ENCODING", "")).lower():
        return
    left = length
    while left is None or left > 0:
        block = source.read(_BLOCK if left is None else min(_BLOCK, left))
        if not block:
            return
        if left is not None:
            left -= len(block)
        yield block


def _verify(environ: Environ, md5: bytes) -> None:
    """Compare ``Content-MD5`` with what came; dCache 12.0 does not look at ``Digest``.

    :raises NamespaceError: 400, as dCache.
    """
    promised = environ.get("HTTP_CONTENT_MD5")
    if promised is not None and promised != base64.b64encode(md5).decode():
        raise NamespaceError(400, "Received a bad PUT request.")


def _answer(start_response: StartResponse, status: int, body: bytes, *headers: tuple[str, str]) -> list[bytes]:
    start_response(f"{status} {_REASONS.get(status, 'Error')}", [("Content-Length", str(len(body))), *headers])
    return [body]
