# SPDX-License-Identifier: Apache-2.0
"""The REST frontend of the embedded dCache (``/api/v1``), as a Starlette application.

Namespace and user here; the event resources are in :mod:`.event_routes`, staging in :mod:`.tape`.
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
from oscar_testbed.fakes.dcache.attributes import Marks, attributes
from oscar_testbed.fakes.dcache.bulk import bulk_routes
from oscar_testbed.fakes.dcache.entries import Entry, NamespaceError, split_path
from oscar_testbed.fakes.dcache.event_routes import event_routes
from oscar_testbed.fakes.dcache.events import EventHub
from oscar_testbed.fakes.dcache.messages import SERVER, phrase
from oscar_testbed.fakes.dcache.namespace import Namespace
from oscar_testbed.fakes.dcache.selectors import EventError
from oscar_testbed.fakes.dcache.tape import Tape, tape_routes
from oscar_testbed.webserver import REASON

_PART = "frontend"
_NOTHING = "HTTP 404 Not Found"
_WELL_KNOWN = "/.well-known/wlcg-tape-rest-api"


def error_answer(status: int, detail: str, *, title: str = "", media_type: str = "application/json") -> Response:
    """dCache's error body (since 2022).

    :param title: also the reason of the status line; what is usual beside the status if empty.
    """
    body = {"detail": detail, "title": title or phrase(status), "status": str(status)}
    headers = {**({REASON: title} if title else {}), **({"Content-Type": media_type} if media_type else {})}
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return Response(text, status_code=status, headers=headers)


def unauthorized() -> Response:
    """The answer to a login that failed: nothing but the reason."""
    return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm=""', REASON: "login failed"})


class _AnyPath(PathConvertor):
    """Starlette's ``path``, but a name may hold a newline."""

    regex = "(?s:.*)"


register_url_convertor("any_path", _AnyPath())

#: How an extended attribute may be set.
_MODES = ("CREATE", "MODIFY", "EITHER")


class Frontend:
    """The application and what its routes need."""

    def __init__(self, namespace: Namespace, access: Access, hub: EventHub, tape: Tape) -> None:
        self.namespace = namespace
        self.access = access
        self.hub = hub
        self.tape = tape
        self.faults = namespace.faults
        self._random = random.Random(0)
        self._marks = Marks()
        self._routes = Starlette(
            routes=[
                Route("/", self._page),
                Route(_WELL_KNOWN, self._well_known),
                Route("/api/v1/user", self._user),
                Route("/api/v1/id/{pnfsid}", self._by_id),
                Route("/api/v1/namespace/{path:any_path}", self._look),
                Route("/api/v1/namespace/{path:any_path}", self._act, methods=["POST"]),
                Route("/api/v1/namespace/{path:any_path}", self._delete, methods=["DELETE"]),
                *event_routes(hub, namespace),
                *tape_routes(tape),
                *bulk_routes(tape.bulk),
            ],
            exception_handlers={
                AccessError: self._refused,
                EventError: self._refused,
                NamespaceError: self._refused,
                404: lambda request, error: error_answer(404, _NOTHING, media_type=""),
                405: lambda request, error: error_answer(405, "Method Not Allowed", media_type=""),
            },
        )
        self._routes.router.redirect_slashes = False

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application: faults, the brake and the login, before any route."""
        if scope["type"] != "http":
            await self._routes(scope, receive, send)
            return

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = email.utils.formatdate(self.namespace.now(), usegmt=True)
                more = [(b"date", date.encode()), (b"server", SERVER.encode())]
                message["headers"] = [*message.get("headers", []), *more]
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
            except AccessError:
                self.access.note_unauthorized(_PART, address)
                answer = unauthorized()
        await answer(scope, receive, dated)

    async def _fault(self, address: str) -> Response | None:
        if delay := self.faults.delay_at(_PART):
            await asyncio.sleep(delay)
        if wait := self.access.barred(_PART, address):
            return _busy(int(wait) + 1)
        match self.faults.refusal_at(_PART):
            case None:
                return None
            case 429:
                return _busy(1)
            case 401:
                return unauthorized()
            case status:
                return error_answer(status, "fault switched on in the embedded platform")

    @staticmethod
    async def _refused(request: Request, error: Exception) -> Response:
        status = getattr(error, "status", 500)
        kind = "text/event-stream" if getattr(error, "stream", False) else "application/json"
        return error_answer(status, str(error), title=str(error) if status == 409 else "", media_type=kind)

    async def _page(self, request: Request) -> Response:
        return Response("<!DOCTYPE html>\n<html><body></body></html>", media_type="text/html")

    async def _well_known(self, request: Request) -> Response:
        place = f"{request.url.scheme}://{request.url.netloc}/api/v1/tape"
        body = {
            "endpoints": [{"metadata": {}, "uri": place, "version": "v1"}],
            "sitename": "oscar-testbed",
            "description": "This is the dCache WLCG TAPE REST API endpoint for oscar-testbed",
        }
        return Response(json.dumps(body, indent=4), media_type="application/json;charset=utf-8")

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
        return error_answer(403, "Forbidden")  # for administrators, whom this dCache does not have

    async def _look(self, request: Request) -> Response:
        path = _path(request)
        request.state.principal.require("READ_METADATA", path)
        wanted = {name for name, value in request.query_params.items() if value.lower() == "true"}
        entry = self.namespace.require(path)
        body = attributes(self.namespace, entry, wanted, path, self._marks)
        if "children" not in wanted or not entry.directory:
            return _json(body)
        limit, offset = (_whole(request.query_params.get(name)) for name in ("limit", "offset"))
        request.state.principal.require("LIST", path)
        if not self.namespace.listable(entry):
            raise AccessError(403, "Forbidden")
        if self.faults.take("listing_failures"):
            return error_answer(500, "Internal error: listing failed")
        children = await asyncio.to_thread(self._children, entry)
        chosen = children[offset or 0 :][: len(children) if limit is None else limit]
        body["children"] = [
            {
                "fileName": each.name,
                **attributes(self.namespace, each, wanted, f"{path.rstrip('/')}/{each.name}", self._marks),
            }
            for each in chosen
        ]
        if self.faults.take("truncate_listings"):
            text = json.dumps(body)
            return Response(text[: len(text) // 2], media_type="application/json")
        return _json(body)

    def _children(self, entry: Entry) -> list[Entry]:
        children = self.namespace.children(entry)
        if self.faults.overlapping_pages:
            self._random.shuffle(children)
        return children

    async def _act(self, request: Request) -> Response:
        path = _path(request)
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return error_answer(415, "Unsupported Media Type", media_type="")
        try:
            body = json.loads(await request.body())
            action = body["action"]
        except KeyError as error:
            raise NamespaceError(400, 'JSONObject["action"] not found.') from error
        except (ValueError, TypeError) as error:
            raise NamespaceError(400, "A JSONObject text must begin with '{' at 1 [character 2 line 1]") from error
        who: Principal = request.state.principal
        perform = self._actions().get(action)
        if perform is None:
            raise NamespaceError(400, f"No such action {str(action)[:40]}")
        try:
            await perform(who, path, body)
        except KeyError as error:
            raise NamespaceError(400, f'JSONObject["{error.args[0]}"] not found.') from error
        except (TypeError, AttributeError, ValueError) as error:
            raise NamespaceError(400, f"Bad request: a field of {action} is of another type") from error
        return _json({"status": "success"}, 201)

    def _actions(self) -> dict[str, Callable[[Principal, str, Any], Awaitable[None]]]:
        return {
            "mkdir": self._mkdir,
            "mv": self._mv,
            "set-label": self._set_label,
            "rm-label": self._rm_label,
            "chmod": self._chmod,
            "chgrp": self._chgrp,
            "set-xattr": self._set_xattr,
            "rm-xattr": self._rm_xattr,
            "pin": self._pin,
            "unpin": self._unpin,
        }

    async def _mkdir(self, who: Principal, path: str, body: Any) -> None:
        target = f"{path.rstrip('/')}/{body['name']}"
        who.require("UPLOAD", target)
        if self.namespace.stat(target) is not None:
            raise NamespaceError(400, f"File exists: {target}")
        if (parent := self.namespace.stat(path)) is not None and not parent.directory:
            raise AccessError(403, "Forbidden")
        self.namespace.mkdir(target)

    async def _mv(self, who: Principal, path: str, body: Any) -> None:
        target = str(body["destination"])
        if not target.startswith("/"):
            target = f"{path.rpartition('/')[0]}/{target}"
        who.require("MANAGE", path)
        who.require("MANAGE", target)
        if self.namespace.stat(path) is None:
            raise NamespaceError(404, "No such file or directory: null")
        self.namespace.move(path, target)

    async def _set_xattr(self, who: Principal, path: str, body: Any) -> None:
        who.require("UPDATE_METADATA", path)
        mode = str(body.get("mode", "EITHER")).upper()
        if mode not in _MODES:
            raise NamespaceError(400, f'Unknown mode "{body["mode"]}", must be one of [{", ".join(_MODES)}]')
        for name, value in body["attributes"].items():
            if not isinstance(value, str):
                kind = f"class java.lang.{type(value).__name__.replace('int', 'Integer')} : {value}"
                raise NamespaceError(400, f'JSONObject["{name}"] is not a string ({kind}).')
        self.namespace.set_xattrs(path, body["attributes"], mode)

    async def _set_label(self, who: Principal, path: str, body: Any) -> None:
        who.require("UPDATE_METADATA", path)
        self._marks.label(self.namespace.require(path), str(body["label"]))

    async def _rm_label(self, who: Principal, path: str, body: Any) -> None:
        who.require("UPDATE_METADATA", path)
        self._marks.unlabel(self.namespace.require(path), str(body["label"]))

    async def _chmod(self, who: Principal, path: str, body: Any) -> None:
        who.require("UPDATE_METADATA", path)
        try:
            mode = int(body["mode"])
        except ValueError as error:
            raise NamespaceError(400, f'For input string: "{body["mode"]}"') from error
        self._marks.modes[self.namespace.require(path).pnfsid] = mode

    async def _chgrp(self, who: Principal, path: str, body: Any) -> None:
        if int(body["gid"]) != who.uid:
            raise AccessError(403, "Forbidden")

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
        if self.namespace.stat(path) is None:
            raise NamespaceError(404, f"No such file or directory: {path}")
        self.namespace.delete(path)
        return _json({"status": "success"})


def _busy(seconds: int) -> Response:
    text = "Server is busy. Please try again later."
    return Response(text, status_code=429, headers={"Retry-After": str(seconds)})


def _json(body: object, status: int = 200) -> Response:
    return JSONResponse(body, status_code=status)


def _path(request: Request) -> str:
    return "/" + "/".join(split_path(str(request.path_params.get("path", ""))))


def _whole(text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise NamespaceError(400, "limit and offset must be an integer value.")
    if text.startswith("-"):
        raise NamespaceError(400, "limit and offset can not be less than zero.")
    return int(text)
