# SPDX-License-Identifier: Apache-2.0
"""The bulk service of the embedded dCache: an activity on many files, such as staging, done behind the request."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oscar_testbed.fakes.dcache.access import Principal
from oscar_testbed.fakes.dcache.entries import NamespaceError
from oscar_testbed.fakes.dcache.namespace import Namespace

_BASE = "/api/v1/bulk-requests"
#: What may be asked for, and the right it needs.
_ACTIVITIES = {
    "STAGE": "STAGE", "PIN": "STAGE", "UNPIN": "STAGE", "RELEASE": "STAGE", "UPDATE_QOS": "MANAGE", "DELETE": "DELETE",
}  # fmt: skip
#: Fields of a request, as dCache writes and reads them.
_FIELDS = frozenset(
    {"activity", "arguments", "cancelOnFailure", "clearOnFailure", "clearOnSuccess", "expandDirectories",
     "expand_directories", "prestore", "target", "targetPrefix", "target_prefix", "urlPrefix"}
)  # fmt: skip
_STATES = frozenset({"INCOMPLETE", "QUEUED", "STARTED", "COMPLETED", "CANCELLING", "CANCELLED"})
_ENUM = "Internal error: java.lang.IllegalArgumentException: No enum constant"
_NULL = 'Internal error: java.lang.NullPointerException: Cannot invoke "java.util.List.stream()"'
_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


@dataclass
class Target:
    """One file of a request."""

    path: str
    submitted: int
    number: int
    state: str = "CREATED"
    started: int | None = None
    finished: int | None = None
    error: str = ""

    def end(self, state: str, error: str = "") -> None:
        """Note how it ended, unless it has ended."""
        if self.state not in _ENDED:
            self.state, self.error, self.finished = state, error, now()


@dataclass
class BulkRequest:
    """One request."""

    uid: str
    user: str
    activity: str
    arrived: int
    targets: list[Target]
    started: int | None = None

    @property
    def status(self) -> str:
        """How far it is."""
        if any(each.state not in _ENDED for each in self.targets):
            return "STARTED" if self.started else "QUEUED"
        return "CANCELLED" if any(each.state == "CANCELLED" for each in self.targets) else "COMPLETED"

    @property
    def changed(self) -> int:
        """When something last happened to it, in milliseconds."""
        return max([self.arrived, *(each.finished or each.started or 0 for each in self.targets)])


@dataclass
class BulkService:
    """Does what is asked, ``faults.staging_delay`` seconds after it was asked.

    :param namespace: what it works on.
    """

    namespace: Namespace
    _requests: dict[str, BulkRequest] = field(default_factory=dict)
    _timers: set[threading.Timer] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _number: int = 0

    def submit(self, user: str, activity: str, paths: Sequence[str]) -> BulkRequest:
        """Take a request on."""
        with self._lock:
            arrived = now()
            targets = []
            for path in paths:
                self._number += 1
                targets.append(Target(path, arrived, self._number))
            request = BulkRequest(str(uuid.uuid4()), user, activity, arrived, targets)
            self._requests[request.uid] = request
        request.started = now()
        for target in targets:
            target.state, target.started = "RUNNING", now()
            self.later(activity, target)
        return request

    def later(self, activity: str, target: Target) -> None:
        """Do something to one file after a while."""
        timer = threading.Timer(self.namespace.faults.staging_delay, self._perform, [activity, target])
        timer.daemon = True
        with self._lock:
            self._timers = {each for each in self._timers if each.is_alive()} | {timer}
            timer.start()

    def request(self, uid: str, user: str, activity: str = "") -> BulkRequest:
        """A request by id.

        :raises NamespaceError: 404, 403 for another user's.
        """
        with self._lock:
            found = self._requests.get(uid)
        if found is None or (activity and found.activity != activity):
            raise NamespaceError(404, f"request {uid} not found")
        if found.user != user:
            raise NamespaceError(403, "Forbidden")
        return found

    def requests(self, user: str) -> list[BulkRequest]:
        """The user's requests, oldest first."""
        with self._lock:
            return [each for each in self._requests.values() if each.user == user]

    def forget(self, request: BulkRequest) -> None:
        """Cancel and drop a request."""
        for target in request.targets:
            target.end("CANCELLED")
        with self._lock:
            self._requests.pop(request.uid, None)

    def stop(self) -> None:
        """Cancel what is under way."""
        with self._lock:
            timers, self._timers = self._timers, set()
        for timer in timers:
            timer.cancel()

    def _perform(self, activity: str, target: Target) -> None:
        if target.state in _ENDED:
            return
        entry = self.namespace.stat(target.path)
        if entry is None:
            target.end("FAILED", f"CacheException(rc=10001;msg=No such file or directory {target.path})")
            return
        if activity in ("STAGE", "PIN"):
            if activity == "STAGE" and entry.locality == "ONLINE":
                target.end("FAILED", "Cannot stage DISK only files")
                return
            if entry.directory or self.namespace.faults.take("staging_failures"):
                target.end("FAILED", "CacheException(rc=10006;msg=Staging failed)")
                return
            if entry.locality == "NEARLINE":
                self.namespace.set_locality(target.path, "ONLINE_AND_NEARLINE")
        elif activity == "DELETE":
            self.namespace.delete(target.path)
        target.end("COMPLETED")


def bulk_routes(service: BulkService) -> list[Route]:
    """The routes, ready for an application whose middleware has set ``request.state.principal``."""
    routes = _BulkRoutes(service)
    return [
        Route(_BASE, routes.list),
        Route(_BASE, routes.submit, methods=["POST"]),
        Route(f"{_BASE}/{{uid}}", routes.look),
        Route(f"{_BASE}/{{uid}}", routes.change, methods=["PATCH"]),
        Route(f"{_BASE}/{{uid}}", routes.delete, methods=["DELETE"]),
    ]


class _BulkRoutes:
    def __init__(self, service: BulkService) -> None:
        self._service = service

    async def submit(self, request: Request) -> Response:
        body = await json_object(request)
        if unknown := sorted(set(body) - _FIELDS):
            raise NamespaceError(400, f"unsupported arguments: [{', '.join(unknown)}]")
        if (depth := str(body.get("expandDirectories", "NONE")).upper()) not in ("NONE", "TARGETS", "ALL"):
            raise NamespaceError(500, f"{_ENUM} org.dcache.services.bulk.BulkRequest.Depth.{depth}")
        activity = str(body.get("activity", "null")).upper()
        if activity not in _ACTIVITIES:
            shown = "null" if activity == "NULL" else activity
            raise NamespaceError(400, f"{shown} is not a recognized activity.")
        if (asked := body.get("target")) is None:
            raise NamespaceError(500, f'{_NULL} because "target" is null')
        paths = [str(each) for each in (asked if isinstance(asked, list) else [asked])]
        if not paths:
            raise NamespaceError(400, "request contains no targets.")
        who: Principal = request.state.principal
        for path in paths:
            who.require(_ACTIVITIES[activity], path)
        made = self._service.submit(who.user, activity, paths)
        place = f"{request.url.scheme}://{request.url.netloc}{_BASE}/{made.uid}"
        return Response(status_code=201, media_type="application/json", headers={"request-url": place})

    async def list(self, request: Request) -> Response:
        who: Principal = request.state.principal
        states = request.query_params.get("status", "").upper()
        for state in filter(None, states.split(",")):
            if state not in _STATES:
                shown = request.query_params["status"]
                raise NamespaceError(500, f"{_ENUM} org.dcache.services.bulk.BulkRequestStatus.{shown}")
        if request.query_params.get("owner", f"{who.uid}:{who.uid}") != f"{who.uid}:{who.uid}":
            return JSONResponse([])
        found = []
        for number, each in enumerate(self._service.requests(who.user)):
            place = f"{request.url.scheme}://{request.url.netloc}{_BASE}/{each.uid}"
            if states and each.status not in states.split(","):
                continue
            summary = {"id": number, "url": place, "owner": f"{who.uid}:{who.uid}", "activity": each.activity}
            found.append({**summary, "status": each.status, "active": int(each.status == "STARTED")})
        return JSONResponse(found)

    async def look(self, request: Request) -> Response:
        found = self._found(request)
        body: dict[str, Any] = {
            "nextId": -1,
            "uid": found.uid,
            "arrivedAt": found.arrived,
            "lastModified": found.changed,
            "status": found.status,
            "targetPrefix": "/",
            "targets": [_described(each) for each in found.targets],
        }
        if found.started:
            body["startedAt"] = found.started
        return JSONResponse(body)

    async def change(self, request: Request) -> Response:
        found = self._found(request)
        action = str((await json_object(request)).get("action", ""))
        if action != "cancel":
            raise NamespaceError(400, f"{action} not supported.")
        for target in found.targets:
            target.end("CANCELLED")
        return Response(status_code=200)

    async def delete(self, request: Request) -> Response:
        self._service.forget(self._found(request))
        return Response(status_code=204)

    def _found(self, request: Request) -> BulkRequest:
        return self._service.request(request.path_params["uid"], request.state.principal.user)


def _described(target: Target) -> Mapping[str, object]:
    gone = "rc=10001" in target.error
    kind = "diskCacheV111.util.FileNotFoundCacheException" if gone else "diskCacheV111.util.CacheException"
    return _told(
        target=target.path,
        state=target.state,
        submittedAt=target.submitted,
        startedAt=target.started,
        finishedAt=target.finished,
        errorType=kind if target.error else None,
        errorMessage=target.error or None,
        id=target.number,
    )


def _told(**values: object) -> Mapping[str, object]:
    return {name: value for name, value in values.items() if value is not None}


async def json_object(request: Request) -> dict[str, Any]:
    """The body of a request.

    :raises NamespaceError: 400 if it is not a JSON object.
    """
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise NamespaceError(400, "A JSONObject text must begin with '{'") from error
    if not isinstance(body, dict):
        raise NamespaceError(400, "A JSONObject text must begin with '{'")
    return body


def now() -> int:
    """The time in milliseconds, as dCache writes it."""
    return int(time.time() * 1000)
