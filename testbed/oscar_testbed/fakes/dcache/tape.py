# SPDX-License-Identifier: Apache-2.0
"""Files on tape: the WLCG Tape REST API of the embedded dCache over its bulk service; the tape itself is a timer."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oscar_testbed.fakes.dcache.access import parse_duration
from oscar_testbed.fakes.dcache.bulk import BulkRequest, BulkService, Target, json_object, now
from oscar_testbed.fakes.dcache.entries import NamespaceError
from oscar_testbed.fakes.dcache.namespace import Namespace

_BASE = "/api/v1/tape"
#: Files of one request, dCache's default.
_PATHS = 500
_WORDS = {"ONLINE": "DISK", "NEARLINE": "TAPE", "ONLINE_AND_NEARLINE": "DISK_AND_TAPE"}
_STATES = {"CREATED": "SUBMITTED", "RUNNING": "STARTED"}


class Tape:
    """Brings files online."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self.bulk = BulkService(namespace)

    def bring_online(self, path: str) -> None:
        """Ask for one file without a request to look at (the ``pin`` action, and a read of a file on tape)."""
        self._namespace.require(path)
        self.bulk.later("STAGE", Target(path, now(), 0))

    def stop(self) -> None:
        """Cancel what is under way."""
        self.bulk.stop()

    def archive_info(self, path: str) -> dict[str, str]:
        """Where a file is; one being written is said to be on DISK, as by real dCache."""
        entry = self._namespace.stat(path)
        if entry is None:
            return {"path": path, "error": f"No such file or directory {path}"}
        if entry.size is None and not entry.directory:
            return {"path": path, "locality": "DISK"}
        return {"path": path, "locality": _WORDS.get(entry.locality, entry.locality)}


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
        body = await json_object(request)
        if unknown := sorted(set(body) - {"files"}):
            raise NamespaceError(400, f"unrecognized payload element(s): {json.dumps(unknown)}")
        files = body.get("files")
        if not isinstance(files, list) or not files:
            raise NamespaceError(400, "request contains no files.")
        paths = [self._checked(number, each) for number, each in enumerate(files)]
        if len(paths) > _PATHS:
            raise NamespaceError(413, "Request Entity Too Large")
        for path in paths:
            request.state.principal.require("STAGE", path)
        made = self._tape.bulk.submit(request.state.principal.user, "STAGE", paths)
        place = f"{request.url.scheme}://{request.url.netloc}{_BASE}/stage/{made.uid}"
        return JSONResponse({"requestId": made.uid}, status_code=201, headers={"Location": place})

    @staticmethod
    def _checked(number: int, file: Any) -> str:
        if not isinstance(file, dict) or not isinstance(file.get("path"), str):
            raise NamespaceError(400, f"file object {number} has no path.")
        try:
            parse_duration(str(file.get("diskLifetime") or "P1D"))
        except ValueError as error:
            raise NamespaceError(400, f"Duration '{file['diskLifetime']}' cannot be parsed.") from error
        return str(file["path"])

    async def look(self, request: Request) -> Response:
        found = self._found(request)
        body: dict[str, Any] = {
            "id": found.uid,
            "createdAt": found.arrived,
            "startedAt": found.started,
            "files": [_described(each) for each in found.targets],
        }
        if found.status in ("COMPLETED", "CANCELLED"):
            body["completedAt"] = found.changed
        return JSONResponse(body)

    async def delete(self, request: Request) -> Response:
        self._tape.bulk.forget(self._found(request))
        return Response(status_code=200)

    async def cancel(self, request: Request) -> Response:
        found, paths = self._found(request), await _paths(request)
        if strange := set(paths) - {each.path for each in found.targets}:
            raise NamespaceError(400, f"{sorted(strange)[0]} does not belong to the request.")
        for target in found.targets:
            if target.path in paths:
                target.end("CANCELLED")
        return Response(status_code=200)

    async def release(self, request: Request) -> Response:
        await _paths(request)
        return Response(status_code=200)

    async def archive_info(self, request: Request) -> Response:
        paths = dict.fromkeys((await _paths(request))[:10_000])
        return JSONResponse([self._tape.archive_info(path) for path in paths])

    def _found(self, request: Request) -> BulkRequest:
        return self._tape.bulk.request(request.path_params["id"], request.state.principal.user, "STAGE")


def _described(target: Target) -> dict[str, object]:
    state = _STATES.get(target.state, target.state)
    body = {"path": target.path, "state": state, "startedAt": target.started, "finishedAt": target.finished}
    return {name: value for name, value in {**body, "error": target.error or None}.items() if value is not None}


async def _paths(request: Request) -> list[str]:
    paths = (await json_object(request)).get("paths")
    if not isinstance(paths, list):
        raise NamespaceError(400, "request had no paths.")
    return [str(path) for path in paths]
