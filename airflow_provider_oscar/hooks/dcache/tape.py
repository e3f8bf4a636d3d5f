# SPDX-License-Identifier: Apache-2.0
"""Flows that bring files from tape to disk: WLCG Tape REST.

After it, look at the files' locality: a request that is done does not prove that a file is online. Source: dCache
12.1, ``resources/tape``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import quote

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError
from airflow_provider_oscar.core.shapes import as_mapping, as_mappings, sendable
from airflow_provider_oscar.hooks.dcache.entries import clean_path
from airflow_provider_oscar.hooks.dcache.rest import RestEndpoint
from airflow_provider_oscar.hooks.http.flows import Flow

#: dCache refuses larger requests with 413.
PATHS_PER_REQUEST = 500
_FILE_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"})


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


def stage(frontend: RestEndpoint, paths: Sequence[str], *, disk_lifetime: timedelta) -> Flow[str]:
    """Ask for files to be brought online; return the id of the request.

    :param paths: at most 500.
    :param disk_lifetime: for how long they are to stay on disk.
    """
    lifetime = f"PT{max(1, int(disk_lifetime.total_seconds()))}S"
    files = [{"path": frontend.absolute(path), "diskLifetime": lifetime} for path in _checked(paths)]
    body = yield from _call(frontend, "POST", "/tape/stage", {"files": files}, action=f"stage {len(files)} files")
    identity = body.get("requestId") if isinstance(body, dict) else None
    if not isinstance(identity, str) or not identity:
        raise PermanentError(f"{frontend.display_name}: staging was accepted, but the answer has no 'requestId'")
    return identity


def stage_status(frontend: RestEndpoint, request_id: str) -> Flow[TapeRequest]:
    """How far a staging request is."""
    body = yield from _call(frontend, "GET", _staging(request_id), None, action="look at the staging request")
    body = as_mapping(body)
    files = as_mappings(body.get("files"))
    states = {frontend.relative(str(item.get("path"))): str(item.get("state") or "") for item in files}
    errors = {frontend.relative(str(item.get("path"))): str(item["error"]) for item in files if item.get("error")}
    return TapeRequest(request_id, body.get("completedAt") is not None, states, errors)


def forget_stage(frontend: RestEndpoint, request_id: str) -> Flow[None]:
    """Delete a staging request; it is not an error if it is gone."""
    answer = yield frontend.request("DELETE", _staging(request_id))
    frontend.expect(answer, action="delete the staging request", ok=(200, 204, 404))


def _call(frontend: RestEndpoint, method: str, path: str, body: object, *, action: str) -> Flow[object]:
    answer = yield frontend.request(method, path, json=body)
    frontend.expect(answer, action=action, ok=(200, 201, 204))
    return frontend.json(answer, action=action) if answer.content else {}


def _checked(paths: Sequence[str]) -> list[str]:
    if not 0 < len(paths) <= PATHS_PER_REQUEST:
        raise DefinitionError(f"{len(paths)} paths in one request; dCache takes 1 to {PATHS_PER_REQUEST}")
    return [clean_path(path) for path in paths]


def _staging(request_id: str) -> str:
    return f"/tape/stage/{quote(sendable(request_id), safe='')}"
