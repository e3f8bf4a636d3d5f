# SPDX-License-Identifier: Apache-2.0
"""Calls of services, as OSCAR's access log has them and its metrics count them."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oscar_testbed.fakes.oscar.services import ServiceStore

_CALL = re.compile(r"/(job|run)/([^/]+)|/system/services/([^/]+)/exposed(?:/.*)?")
#: Lines that are kept.
_LINES = 10_000
_KINDS = {"job": "async", "run": "sync", "exposed": "exposed"}
_METRICS = (
    ("cpu-hours", "hours"),
    ("gpu-hours", "hours"),
    ("requests-sync-per-service", "requests"),
    ("requests-async-per-service", "requests"),
    ("requests-exposed-per-service", "requests"),
    ("users-per-service", "users"),
)
_OTHER_METRICS = frozenset({"services-count", "requests-per-user", "countries-count", "countries-list"})


@dataclass(frozen=True)
class Call:
    """One call of a service."""

    at: float
    kind: str
    service: str
    method: str
    path: str
    status: int
    seconds: float
    client: str


class Journal:
    """The last calls.

    :param services: the definitions, which are counted as well.
    """

    def __init__(self, services: ServiceStore) -> None:
        self._services = services
        self._calls: deque[Call] = deque(maxlen=_LINES)
        self._lock = threading.Lock()

    def note(self, request: Request, status: int, seconds: float) -> None:
        """Remember a request if it is the call of a service."""
        path = request.url.path
        if found := _CALL.fullmatch(path):
            kind = _KINDS[found[1] or "exposed"]
            client = request.client.host if request.client else ""
            call = Call(time.time(), kind, found[2] or found[3], request.method, path, status, seconds, client)
            with self._lock:
                self._calls.append(call)

    def routes(self) -> list[Route]:
        """Where they are shown."""
        return [
            Route("/system/logs", self.system_logs),
            Route("/system/metrics", self.summary),
            Route("/system/metrics/breakdown", self.breakdown),
            Route("/system/metrics/{name}", self.of_service),
        ]

    async def system_logs(self, _: Request) -> Response:
        """Lines of the access log that are calls of services."""
        return JSONResponse({"logs": [_line(call) for call in self._all() if call.kind != "exposed"]})

    async def summary(self, request: Request) -> Response:
        """Totals of all services."""
        return self._within(request, self._summary)

    async def breakdown(self, request: Request) -> Response:
        """Totals by service, user or country; nobody but the administrator calls here, from no country."""
        by = request.query_params.get("group_by", "").strip()
        if not by:
            return JSONResponse({"error": "group_by is required"}, 400)
        if by not in {"service", "user", "country"}:
            return JSONResponse({"error": "group_by must be one of service, user, country"}, 400)
        return self._within(request, lambda start, end: self._breakdown(start, end, by))

    async def of_service(self, request: Request) -> Response:
        """All metrics of a service, or one."""
        name, wanted = request.path_params["name"], request.query_params.get("metric", "").strip()
        known = {key for key, _ in _METRICS}
        if wanted and wanted not in known | _OTHER_METRICS:
            return JSONResponse({"error": "invalid metric key"}, 400)

        def answer(start: datetime, end: datetime) -> dict[str, Any]:
            calls = [call for call in self._between(start, end) if call.service == name]
            times = {"start": _iso(start), "end": _iso(end)}
            if wanted:
                return {"service_id": name, **times, **_metric(wanted, dict(_METRICS).get(wanted, ""), calls)}
            return {"service_name": name, **times, "metrics": [_metric(key, unit, calls) for key, unit in _METRICS]}

        return self._within(request, answer)

    def _within(self, request: Request, answer: Any) -> Response:
        now = datetime.now(UTC)
        try:
            end = datetime.fromisoformat(request.query_params.get("end") or now.isoformat())
            start = datetime.fromisoformat(request.query_params.get("start") or (end - timedelta(days=1)).isoformat())
        except ValueError:
            return JSONResponse({"error": "invalid start or end"}, 400)
        if end < start:
            return JSONResponse({"error": "end must be after start"}, 400)
        return JSONResponse(answer(start, end))

    def _summary(self, start: datetime, end: datetime) -> dict[str, Any]:
        calls = list(self._between(start, end))
        totals = {
            "services_count_active": len(self._services.names()),
            "services_count_total": len(self._services.names()),
            "cpu_hours_total": 0.0,
            "gpu_hours_total": 0.0,
            **_counts(calls),
            "countries_count": 0,
            "countries": [],
            "users_count": 0,
            "users": [],
        }
        return {"start": _iso(start), "end": _iso(end), "totals": totals, "sources": _sources()}

    def _breakdown(self, start: datetime, end: datetime, by: str) -> dict[str, Any]:
        calls = list(self._between(start, end))
        items: list[dict[str, Any]] = []
        if by == "service":
            for name in self._services.names():
                own = [call for call in calls if call.service == name]
                items.append({"key": name, **_counts(own), "unique_users_count": 0, "countries": []})
        return {"start": _iso(start), "end": _iso(end), "group_by": by, "items": items}

    def _all(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def _between(self, start: datetime, end: datetime) -> Iterator[Call]:
        return (call for call in self._all() if start.timestamp() <= call.at <= end.timestamp())


def _counts(calls: list[Call]) -> dict[str, int]:
    by_kind = {kind: sum(call.kind == kind for call in calls) for kind in _KINDS.values()}
    return {"requests_count_total": len(calls), **{f"requests_count_{kind}": n for kind, n in by_kind.items()}}


def _metric(key: str, unit: str, calls: list[Call]) -> dict[str, Any]:
    kind = key.removeprefix("requests-").removesuffix("-per-service")
    return {
        "metric": key,
        "value": sum(call.kind == kind for call in calls),
        **({"unit": unit} if unit else {}),
        "sources": _sources(),
    }


def _sources() -> list[dict[str, str]]:
    return [{"name": "request-logs", "status": "ok"}]


def _line(call: Call) -> dict[str, Any]:
    at = datetime.fromtimestamp(call.at, UTC)
    stamp, latency = at.strftime("%Y-%m-%dT%H:%M:%SZ"), f"{call.seconds * 1000:.6f}ms"
    fields = (stamp, str(call.status), latency, call.client, f"{call.method}    {call.path}", "nil")
    raw = f"[GIN-EXECUTIONS-LOGGER] {' | '.join(fields)}"
    return {
        "timestamp": _iso(at),
        "status": call.status,
        "latency": latency,
        "client_ip": call.client,
        "method": call.method,
        "path": call.path,
        "user": "nil",
        "raw": raw,
    }


def _iso(time_: datetime) -> str:
    return time_.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
