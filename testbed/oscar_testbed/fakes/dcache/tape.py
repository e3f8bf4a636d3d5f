# SPDX-License-Identifier: Apache-2.0
"""Files on tape: the WLCG Tape REST API of the embedded dCache, and the tape itself, which is a timer."""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oscar_testbed.fakes.dcache.access import parse_duration
from oscar_testbed.fakes.dcache.namespace import Namespace, NamespaceError

_BASE = "/api/v1/tape"
#: Files of one request, dCache's default.
_PATHS = 500
_ARCHIVE_WORDS = {"ONLINE": "DISK", "NEARLINE": "TAPE", "ONLINE_AND_NEARLINE": "DISK_AND_TAPE"}


@dataclass
class _File:
    path: str
    state: str = "SUBMITTED"
    started: int | None = None
    finished: int | None = None
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        body = {"path": self.path, "state": self.state, "startedAt": self.started, "finishedAt": self.finished}
        return {name: value for name, value in {**body, "error": self.error or None}.items() if value is not None}


@dataclass
class _Request:
    created: int
    files: dict[str, _File] = field(default_factory=dict)

    @property
    def completed(self) -> int | None:
        ends = [each.finished for each in self.files.values()]
        return None if None in ends else max((end for end in ends if end is not None), default=self.created)


class Tape:
    """Brings files online ``faults.staging_delay`` seconds after they were asked for."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._faults = namespace.faults
        self._lock = threading.Lock()
        self._requests: dict[str, _Request] = {}
        self._timers: set[threading.Timer] = set()

    def stage(self, paths: list[str]) -> str:
        """Ask for files and return the request's id."""
        request = _Request(_now(), {path: _File(path) for path in paths})
        identifier = str(uuid.uuid4())
        with self._lock:
            self._requests[identifier] = request
        for file in request.files.values():
            file.state, file.started = "STARTED", _now()
            self._later(file)
        return identifier

    def bring_online(self, path: str) -> None:
        """Ask for one file without a request to look at (the ``pin`` action, and a read of a file on tape)."""
        self._namespace.require(path)
        self._later(_File(path, "STARTED"))

    def request(self, identifier: str) -> _Request:
        """A request by id.

        :raises NamespaceError: 404.
        """
        with self._lock:
            if (found := self._requests.get(identifier)) is None:
                raise NamespaceError(404, "No such request")
            return found

    def forget(self, identifier: str) -> None:
        """Drop a request."""
        self.request(identifier)
        with self._lock:
            self._requests.pop(identifier, None)

    def cancel(self, identifier: str, paths: list[str]) -> None:
        """Cancel what has not ended yet."""
        for path in paths:
            file = self.request(identifier).files.get(path)
            if file is None:
                raise NamespaceError(400, "a path is not part of the request")
            if file.finished is None:
                file.state, file.finished = "CANCELLED", _now()

    def stop(self) -> None:
        """Cancel what is under way."""
        with self._lock:
            timers, self._timers = self._timers, set()
        for timer in timers:
            timer.cancel()

    def archive_info(self, path: str) -> dict[str, str]:
        """Where a file is; one being written is said to be on DISK, as by real dCache."""
        entry = self._namespace.stat(path)
        if entry is None:
            return {"path": path, "error": "No such file or directory"}
        if entry.size is None and not entry.directory:
            return {"path": path, "locality": "DISK"}
        return {"path": path, "locality": _ARCHIVE_WORDS.get(entry.locality, entry.locality)}

    def _later(self, file: _File) -> None:
        timer = threading.Timer(self._faults.staging_delay, self._finish, [file])
        timer.daemon = True
        with self._lock:
            self._timers = {each for each in self._timers if each.is_alive()} | {timer}
            timer.start()

    def _finish(self, file: _File) -> None:
        if file.finished is not None:
            return
        entry = self._namespace.stat(file.path)
        if entry is None or entry.directory or self._faults.take("staging_failures"):
            file.error = "No such file or directory" if entry is None else "the file could not be staged"
            file.state, file.finished = "FAILED", _now()
            return
        if entry.locality == "NEARLINE":
            self._namespace.set_locality(file.path, "ONLINE_AND_NEARLINE")
        file.state, file.finished = "COMPLETED", _now()


def tape_routes(tape: Tape) -> list[Route]:
    """The routes, ready for an application whose middleware has set ``request.state.principal``."""
    routes = _TapeRoutes(tape)
    return [
        Route(f"{_BASE}/stage", routes.stage, methods=["POST"]),
        Route(f"{_BASE}/stage/{{id}}", routes.look),
        Route(f"{_BASE}/stage/{{id}}", routes.delete, methods=["DELETE"]),
        Route(f"{_BASE}/stage/{{id}}/cancel", routes.cancel, methods=["POST"]),
        Route(f"{_BASE}/release/{{id}}", routes.release, methods=["POST"]),
        Route(f"{_BASE}/archiveinfo", routes.archive_info, methods=["POST"]),
    ]


class _TapeRoutes:
    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    async def stage(self, request: Request) -> Response:
        body = await _object(request)
        if set(body) - {"files"} or not isinstance(body.get("files"), list) or not body["files"]:
            raise NamespaceError(400, "Bad request: expected files and nothing else")
        try:
            paths = [str(each["path"]) for each in body["files"]]
        except (TypeError, KeyError) as error:
            raise NamespaceError(400, "Bad request: a file without path") from error
        if len(paths) > _PATHS:
            raise NamespaceError(413, f"more than {_PATHS} files in one request")
        for each in body["files"]:
            try:
                parse_duration(str(each.get("diskLifetime") or "P1D"))
            except ValueError as error:
                raise NamespaceError(400, "Bad request: diskLifetime is not an ISO 8601 duration") from error
        for path in paths:
            request.state.principal.require("STAGE", path)
        identifier = self._tape.stage(paths)
        headers = {"Location": f"{request.url}/{identifier}"}
        return JSONResponse({"requestId": identifier}, status_code=201, headers=headers)

    async def look(self, request: Request) -> Response:
        identifier = request.path_params["id"]
        found = self._tape.request(identifier)
        body: dict[str, Any] = {
            "id": identifier,
            "createdAt": found.created,
            "startedAt": found.created,
            "files": [each.to_dict() for each in found.files.values()],
        }
        if found.completed is not None:
            body["completedAt"] = found.completed
        return JSONResponse(body)

    async def delete(self, request: Request) -> Response:
        self._tape.forget(request.path_params["id"])
        return Response(status_code=200)

    async def cancel(self, request: Request) -> Response:
        self._tape.cancel(request.path_params["id"], await _paths(request))
        return Response(status_code=200)

    async def release(self, request: Request) -> Response:
        await _paths(request)
        return Response(status_code=200)

    async def archive_info(self, request: Request) -> Response:
        paths = dict.fromkeys((await _paths(request))[:10_000])
        return JSONResponse([self._tape.archive_info(path) for path in paths])


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise NamespaceError(400, "Bad request: not JSON") from error
    if not isinstance(body, dict):
        raise NamespaceError(400, "Bad request: not an object")
    return body


async def _paths(request: Request) -> list[str]:
    paths = (await _object(request)).get("paths")
    if not isinstance(paths, list):
        raise NamespaceError(400, "Bad request: expected paths")
    return [str(path) for path in paths]


def _now() -> int:
    return int(time.time() * 1000)
