# SPDX-License-Identifier: Apache-2.0
"""Flows that bring files from tape to disk: WLCG Tape REST, and dCache's own bulk service.

After either, look at the files' locality: a request that is done does not prove that a file is online. Source: dCache
12.1, ``resources/tape`` and ``resources/bulk``; defaults of ``bulk.properties``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, quoted
from airflow_provider_oscar.hooks.dcache.entries import clean_path
from airflow_provider_oscar.hooks.dcache.rest import Frontend
from airflow_provider_oscar.hooks.http.flows import Flow

#: dCache refuses larger requests with 413.
PATHS_PER_REQUEST = 500
#: Answers of the bulk service come in pages; more of them than this is a server that goes round in circles.
_PAGES = 1000
_FILE_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"})
_BULK_ENDED = frozenset({"COMPLETED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class TapeRequest:
    """How far a request is.

    :param id: the server's id.
    :param ended: whether nothing more will happen.
    :param states: word of the server by path; unknown words are kept.
    :param errors: message of the server by path.
    """

    id: str
    ended: bool
    states: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[str, ...]:
        """Paths that ended otherwise than well."""
        return tuple(path for path, state in self.states.items() if state in _FILE_ENDED and state != "COMPLETED")


def stage(frontend: Frontend, paths: Sequence[str], *, disk_lifetime: timedelta) -> Flow[str]:
    """Ask for files to be brought online; return the id of the request.

    :param paths: at most 500.
    :param disk_lifetime: for how long they are to stay on disk.
    """
    lifetime = f"PT{max(1, int(disk_lifetime.total_seconds()))}S"
    files = [{"path": path, "diskLifetime": lifetime} for path in _checked(paths)]
    body = yield from _call(frontend, "POST", "/tape/stage", {"files": files}, action=f"stage {len(files)} files")
    identity = body.get("requestId") if isinstance(body, dict) else None
    if not isinstance(identity, str) or not identity:
        raise PermanentError(f"{frontend.where}: staging was accepted, but the answer has no 'requestId'")
    return identity


def stage_status(frontend: Frontend, request_id: str) -> Flow[TapeRequest]:
    """How far a staging request is."""
    body = yield from _call(frontend, "GET", _staging(request_id), None, action="look at the staging request")
    body = body if isinstance(body, dict) else {}
    files = [item for item in body.get("files") or () if isinstance(item, dict)]
    states, errors = _by_path(files, "path", "error")
    return TapeRequest(request_id, body.get("completedAt") is not None, states, errors)


def cancel_stage(frontend: Frontend, request_id: str, paths: Sequence[str]) -> Flow[None]:
    """Cancel the staging of some files of a request."""
    yield from _call(
        frontend, "POST", _staging(request_id) + "/cancel", {"paths": _checked(paths)}, action="cancel staging"
    )


def forget_stage(frontend: Frontend, request_id: str) -> Flow[None]:
    """Delete a staging request; it is no error if it is gone."""
    answer = yield frontend.request("DELETE", _staging(request_id))
    frontend.expect(answer, action="delete the staging request", ok=(200, 204, 404))


def release(frontend: Frontend, request_id: str, paths: Sequence[str]) -> Flow[None]:
    """Let files go from disk again before their time is over."""
    path = f"/tape/release/{quote(request_id, safe='')}"
    yield from _call(frontend, "POST", path, {"paths": _checked(paths)}, action="release staged files")


def archive_info(frontend: Frontend, paths: Sequence[str]) -> Flow[dict[str, str]]:
    """Where files are, by path: DISK, TAPE, DISK_AND_TAPE, LOST, NONE, UNAVAILABLE.

    Not a test of completeness: an upload that is under way is reported as DISK.
    """
    body = yield from _call(
        frontend, "POST", "/tape/archiveinfo", {"paths": _checked(paths)}, action="ask for localities"
    )
    items = [item for item in body if isinstance(item, dict)] if isinstance(body, list) else []
    return {str(item.get("path")): str(item.get("locality") or item.get("error") or "") for item in items}


def bulk_submit(
    frontend: Frontend, paths: Sequence[str], *, activity: str, arguments: Mapping[str, Any] | None = None
) -> Flow[str]:
    """Submit a bulk request; return its id.

    :param paths: at most 500.
    :param activity: PIN, UNPIN, STAGE, RELEASE, DELETE or UPDATE_QOS.
    :param arguments: of the activity, such as ``{"diskLifetime": "P1D"}``.
    """
    body: dict[str, Any] = {"target": _checked(paths), "activity": activity, "expandDirectories": "NONE"}
    if arguments:
        body["arguments"] = dict(arguments)
    action = f"submit a bulk request ({activity})"
    answer = yield frontend.request("POST", "/bulk-requests", json=body)
    frontend.expect(answer, action=action, ok=(200, 201))
    return frontend.located(answer, action=action, header="request-url").rpartition("/")[2]


def bulk_status(frontend: Frontend, request_id: str) -> Flow[TapeRequest]:
    """How far a bulk request is, over all its pages."""
    states: dict[str, str] = {}
    errors: dict[str, str] = {}
    offset, ended = 0, False
    for _ in range(_PAGES):
        answer = yield frontend.request("GET", _bulk(request_id), params={"offset": str(offset)} if offset else None)
        body = frontend.json(answer, action="look at the bulk request")
        if not isinstance(body, dict):
            break
        ended = body.get("status") in _BULK_ENDED
        more = _by_path(
            [item for item in body.get("targets") or () if isinstance(item, dict)], "target", "errorMessage"
        )
        states |= more[0]
        errors |= more[1]
        following = body.get("nextId")
        if not isinstance(following, int) or following <= offset:
            return TapeRequest(request_id, ended, states, errors)
        offset = following
    raise PermanentError(f"{frontend.where}: the pages of bulk request {quoted(request_id)} do not end")


def bulk_cancel(frontend: Frontend, request_id: str) -> Flow[None]:
    """Cancel a bulk request; it is no error if it is gone."""
    answer = yield frontend.request("PATCH", _bulk(request_id), json={"action": "cancel"})
    frontend.expect(answer, action="cancel the bulk request", ok=(200, 202, 204, 404))


def bulk_delete(frontend: Frontend, request_id: str) -> Flow[None]:
    """Delete a bulk request, cancelled first if it runs; it is no error if it is gone."""
    answer = yield frontend.request("DELETE", _bulk(request_id), params={"cancelIfRunning": "true"})
    frontend.expect(answer, action="delete the bulk request", ok=(200, 204, 404))


def _call(frontend: Frontend, method: str, path: str, body: Any, *, action: str) -> Flow[Any]:
    answer = yield frontend.request(method, path, json=body)
    frontend.expect(answer, action=action, ok=(200, 201, 204))
    return frontend.json(answer, action=action) if answer.content else {}


def _by_path(items: Sequence[Mapping[str, Any]], path: str, error: str) -> tuple[dict[str, str], dict[str, str]]:
    states = {str(item.get(path)): str(item.get("state") or "") for item in items}
    errors = {str(item.get(path)): str(item[error]) for item in items if item.get(error)}
    return states, errors


def _checked(paths: Sequence[str]) -> list[str]:
    if not 0 < len(paths) <= PATHS_PER_REQUEST:
        raise DefinitionError(f"{len(paths)} paths in one request; dCache takes 1 to {PATHS_PER_REQUEST}")
    return [clean_path(path) for path in paths]


def _staging(request_id: str) -> str:
    return f"/tape/stage/{quote(request_id, safe='')}"


def _bulk(request_id: str) -> str:
    return f"/bulk-requests/{quote(request_id, safe='')}"
