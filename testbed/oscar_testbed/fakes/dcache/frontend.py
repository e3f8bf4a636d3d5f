# SPDX-License-Identifier: Apache-2.0
"""The REST frontend of the embedded dCache (``/api/v1``), as a Starlette application.

Name space and user here; the event resources are in :mod:`.event_routes`, staging in :mod:`.tape`.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oscar_testbed.fakes.dcache.access import Access, AccessError, Principal
from oscar_testbed.fakes.dcache.event_routes import event_routes
from oscar_testbed.fakes.dcache.events import EventError, EventHub
from oscar_testbed.fakes.dcache.namespace import Entry, Namespace, NamespaceError
from oscar_testbed.fakes.dcache.tape import Tape, tape_routes

_TITLES = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict",
    429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


def error_answer(status: int, detail: str, **headers: str) -> JSONResponse:
    """dCache's error body (since 2022)."""
    body = {"status": str(status), "title": _TITLES.get(status, "Error"), "detail": detail}
    return JSONResponse(body, status_code=status, headers=headers)


class _AnyPath(PathConvertor):
    """Starlette's ``path``, but a name may hold a newline."""

    regex = "(?s:.*)"


register_url_convertor("any_path", _AnyPath())


class Frontend:
    """The application and what its routes need."""

    def __init__(self, namespace: Namespace, access: Access, hub: EventHub, tape: Tape) -> None:
        self.namespace = namespace
        self.access = access
        self.hub = hub
        self.tape = tape
        self.faults = namespace.faults
        self._random = random.Random(0)
        self._routes = Starlette(
            routes=[
                Route("/api/v1/user", self._user),
                Route("/api/v1/id/{pnfsid}", self._by_id),
                Route("/api/v1/namespace", self._look),
                Route("/api/v1/namespace/{path:any_path}", self._look),
                Route("/api/v1/namespace/{path:any_path}", self._act, methods=["POST"]),
                Route("/api/v1/namespace/{path:any_path}", self._delete, methods=["DELETE"]),
                *event_routes(hub, namespace),
                *tape_routes(tape),
            ],
            exception_handlers={
                AccessError: self._refused,
                EventError: self._refused,
                NamespaceError: self._refused,
                404: lambda request, error: error_answer(404, "No such resource"),
            },
        )

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application: faults, the brake and the login, before any route."""
        if scope["type"] != "http":
            await self._routes(scope, receive, send)
            return

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = email.utils.formatdate(self.namespace.now(), usegmt=True)
                message["headers"] = [*message.get("headers", []), (b"date", date.encode())]
            await send(message)

        request = Request(scope)
        address = request.headers.get("x-forwarded-for", "").partition(",")[0].strip()
        address = address or (request.client.host if request.client else "")
        answer: ASGIApp | None = await self._fault(address)
        if answer is None:
            try:
                header = request.headers.get("authorization", "")
                request.state.principal = self.access.authenticate(header, address)
                answer = self._routes
            except AccessError as error:
                self.access.note_unauthorized(address)
                answer = error_answer(error.status, str(error), **{"WWW-Authenticate": 'Basic realm="dCache"'})
        await answer(scope, receive, dated)

    async def _fault(self, address: str) -> Response | None:
        if self.faults.slow_headers:
            await asyncio.sleep(self.faults.slow_headers)
        if wait := self.access.barred(address):
            return error_answer(429, "Too many requests", **{"Retry-After": str(int(wait) + 1)})
        match self.faults.refusal():
            case None:
                return None
            case 429:
                return error_answer(429, "Too many requests", **{"Retry-After": "1"})
            case 401:
                return error_answer(401, "Permission denied")
            case status:
                return error_answer(status, "fault switched on in the embedded platform")

    @staticmethod
    async def _refused(request: Request, error: Exception) -> Response:
        return error_answer(getattr(error, "status", 500), str(error))

    async def _user(self, request: Request) -> Response:
        who: Principal = request.state.principal
        return JSONResponse(
            {
                "status": "AUTHENTICATED",
                "uid": who.uid,
                "gids": [who.uid],
                "username": who.user,
                "homeDirectory": "/",
                "rootDirectory": "/",
            }
        )

    async def _by_id(self, request: Request) -> Response:
        found = self.namespace.by_id(request.path_params["pnfsid"])
        if found is None:
            raise NamespaceError(404, "No such file or directory")
        entry, path = found
        request.state.principal.require("READ_METADATA", path)
        return JSONResponse({**_attributes(entry, {"locality", "checksum", "xattr"}), "path": path})

    async def _look(self, request: Request) -> Response:
        path = _path(request)
        request.state.principal.require("READ_METADATA", path)
        wanted = {name for name, value in request.query_params.items() if value.lower() == "true"}
        entry = self.namespace.require(path)
        body = _attributes(entry, wanted)
        if "children" not in wanted or not entry.directory:
            return JSONResponse(body)
        request.state.principal.require("LIST", path)
        limit, offset = (_whole(request.query_params.get(name)) for name in ("limit", "offset"))
        if self.faults.take("listing_failures"):
            return error_answer(500, "Internal error: listing failed")
        children = await asyncio.to_thread(self._children, entry)
        chosen = children[offset or 0 :][: len(children) if limit is None else limit]
        body["children"] = [{"fileName": each.name, **_attributes(each, wanted)} for each in chosen]
        if self.faults.take("truncate_listings"):
            text = json.dumps(body)
            return Response(text[: len(text) // 2], media_type="application/json")
        return JSONResponse(body)

    def _children(self, entry: Entry) -> list[Entry]:
        children = self.namespace.children(entry)
        if self.faults.overlapping_pages:
            self._random.shuffle(children)
        return children

    async def _act(self, request: Request) -> Response:
        path = _path(request)
        try:
            body = json.loads(await request.body())
            action = body["action"]
        except (ValueError, KeyError, TypeError) as error:
            raise NamespaceError(400, "Bad request: no action") from error
        who: Principal = request.state.principal
        perform = self._actions().get(action)
        if perform is None:
            raise NamespaceError(400, f"Bad request: unknown action {str(action)[:40]!r}")
        try:
            await perform(who, path, body)
        except (KeyError, TypeError, AttributeError) as error:
            raise NamespaceError(400, f"Bad request: {action} lacks a field") from error
        return JSONResponse({"status": "success"}, status_code=201)

    def _actions(self) -> dict[str, Callable[[Principal, str, Any], Awaitable[None]]]:
        return {
            "mkdir": self._mkdir,
            "mv": self._mv,
            "set-xattr": self._set_xattr,
            "rm-xattr": self._rm_xattr,
            "pin": self._pin,
            "unpin": self._unpin,
        }

    async def _mkdir(self, who: Principal, path: str, body: Any) -> None:
        target = f"{path.rstrip('/')}/{body['name']}"
        who.require("MANAGE", target)
        if self.namespace.stat(target) is not None:
            raise NamespaceError(400, f"File exists: {target}")
        self.namespace.mkdir(target)

    async def _mv(self, who: Principal, path: str, body: Any) -> None:
        target = str(body["destination"])
        if not target.startswith("/"):
            target = f"{path.rpartition('/')[0]}/{target}"
        who.require("MANAGE", path)
        who.require("MANAGE", target)
        self.namespace.move(path, target)

    async def _set_xattr(self, who: Principal, path: str, body: Any) -> None:
        who.require("UPDATE_METADATA", path)
        values = {str(name): str(value) for name, value in body["attributes"].items()}
        self.namespace.set_xattrs(path, values, str(body.get("mode", "EITHER")).upper())

    async def _rm_xattr(self, who: Principal, path: str, body: Any) -> None:
        who.require("UPDATE_METADATA", path)
        names = body["names"]
        self.namespace.remove_xattrs(path, [names] if isinstance(names, str) else names)

    async def _pin(self, who: Principal, path: str, body: Any) -> None:
        who.require("STAGE", path)
        self.tape.bring_online(path)

    async def _unpin(self, who: Principal, path: str, body: Any) -> None:
        who.require("STAGE", path)
        self.namespace.require(path)

    async def _delete(self, request: Request) -> Response:
        path = _path(request)
        request.state.principal.require("DELETE", path)
        self.namespace.delete(path)
        return JSONResponse({"status": "success"})


def _path(request: Request) -> str:
    return "/" + str(request.path_params.get("path", "")).strip("/")


def _whole(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise NamespaceError(400, "Bad request: limit and offset must be whole numbers")
    return int(text)


def _attributes(entry: Entry, wanted: set[str]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "fileType": "DIR" if entry.directory else "REGULAR",
        "pnfsId": entry.pnfsid,
        "nlink": 1,
        "mtime": int(entry.mtime * 1000),
        "creationTime": int(entry.created * 1000),
        "mode": 0o755 if entry.directory else 0o644,
    }
    if entry.directory:
        body["size"] = 512
    elif entry.size is not None:
        body["size"] = entry.size
    if "locality" in wanted:
        body["fileLocality"] = entry.locality
    if "checksum" in wanted and entry.size is not None:
        body["checksums"] = [{"type": "ADLER32", "value": entry.adler32}]
    if "xattr" in wanted:
        body["extendedAttributes"] = dict(entry.xattrs)
    return body
