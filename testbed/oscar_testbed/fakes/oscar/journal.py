# SPDX-License-Identifier: Apache-2.0
"""Calls of services, as OSCAR's access log has them and its metrics count them."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oscar_testbed.fakes.oscar.bucket_api import JSONResponse
from oscar_testbed.fakes.oscar.services import ServiceStore

_CALL = re.compile(r"/(job|run)/([^/]+)|/system/services/([^/]+)/exposed(?:/.*)?")
#: Lines that are kept.
_LINES = 10_000
_KINDS = {"job": "async", "run": "sync", "exposed": "exposed"}
_METRICS = (
    ("cpu-hours", "hours"),
    ("gpu-hours", "hours"),
    ("requests-sync-per-service", ""),
    ("requests-async-per-service", ""),
    ("requests-exposed-per-service", ""),
    ("users-per-service", ""),
)
_OTHER_METRICS = frozenset({"services-count", "requests-per-user", "countries-count", "countries-list"})
_PROMETHEUS = "prometheus-server.monitoring.svc.cluster.local"
#: As where OSCAR finds no Prometheus, whose queries for CPU and GPU both fail.
_NO_PROMETHEUS = {
    "name": "prometheus",
    "status": "missing",
    "notes": "; ".join([f'Post "http://{_PROMETHEUS}/api/v1/query": dial tcp: lookup {_PROMETHEUS}: no such host'] * 2),
}
_REQUESTS = {"name": "request-logs", "status": "ok"}
_EXPOSED = {"name": "exposed-request-logs", "status": "ok"}
#: By what calls are counted, and the columns of that table.
_BREAKDOWNS = {
    "service": (
        "key",
        "membership",
        "requests_count_total",
        "requests_count_sync",
        "requests_count_async",
        "requests_count_exposed",
        "unique_users_count",
        "countries",
    ),
    "user": ("key", "membership", "executions_count", "countries"),
    "country": ("key", "membership", "executions_count", "unique_users_count", "countries"),
}


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
    user: str = "oscar"


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
        words = request.query_params
        by, format_ = words.get("group_by", "").strip(), words.get("format", "json").strip().lower()
        users = words.get("include_users", "").strip().lower() == "true"

        def answer(start: datetime, end: datetime) -> Response:
            if not by:
                return _refused("group_by is required")
            if format_ not in {"json", "csv"}:
                return _refused("invalid format")
            if by.lower() not in _BREAKDOWNS:
                return _refused("unsupported group_by")
            items = _breakdown(list(self._between(start, end)), by.lower(), users=users)
            if format_ == "json":
                return JSONResponse({**_times(start, end), "group_by": by, "items": items})
            if by.lower() == "service" and users:
                return _refused("include_users is not supported for csv")
            return Response(_table(items, by.lower()), media_type="text/csv", headers={"content-type": "text/csv"})

        return self._within(request, answer)

    async def of_service(self, request: Request) -> Response:
        """All metrics of a service, or one."""
        name, wanted = request.path_params["name"], request.query_params.get("metric", "").strip()
        units = dict(_METRICS)

        def answer(start: datetime, end: datetime) -> Response:
            calls = [call for call in self._between(start, end) if call.service == name]
            if not wanted:
                found = [_metric(key, unit, calls) for key, unit in _METRICS]
                return JSONResponse({"service_name": name, **_times(start, end), "metrics": found})
            if wanted not in units.keys() | _OTHER_METRICS:
                return _refused("invalid metric key")
            if wanted in _OTHER_METRICS:
                return _refused("unsupported metric for value query")
            return JSONResponse({"service_id": name, **_times(start, end), **_metric(wanted, units[wanted], calls)})

        return self._within(request, answer)

    def _within(self, request: Request, answer: Callable[[datetime, datetime], Response]) -> Response:
        """Answer for the time that the request names; the last day if it names none."""
        said = {name: request.query_params.get(name, "").strip() for name in ("end", "start")}
        times = {name: _moment(text) for name, text in said.items() if text}
        if wrong := next((name for name, at in times.items() if at is None), None):
            return _refused(f"invalid {wrong} timestamp")
        end = times.get("end") or datetime.now(UTC)
        start = times.get("start") or end - timedelta(days=1)
        if end < start:
            return _refused("end must be after start")
        return answer(start, end)

    def _summary(self, start: datetime, end: datetime) -> Response:
        calls = list(self._between(start, end))
        logged = [call for call in calls if call.kind != "exposed"]
        names = {call.service for call in calls}
        totals = {
            "services_count_active": len(self._services.names()),
            "services_count_total": len(names),
            "cpu_hours_total": 0.0,
            "gpu_hours_total": 0.0,
            **_counts(calls),
            "countries_count": 0,
            "countries": [] if logged else None,
            "users_count": len({call.user for call in logged}),
            "users": sorted({call.user for call in logged}) if logged else None,
        }
        sources = [
            {"name": "service-inventory", "status": "ok"},
            _NO_PROMETHEUS,
            _REQUESTS,
            *([{"name": "country-attribution", "status": "ok"}] if logged else []),
            _EXPOSED,
        ]
        return JSONResponse({**_times(start, end), "totals": totals, "sources": sources})

    def _all(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def _between(self, start: datetime, end: datetime) -> Iterator[Call]:
        return (call for call in self._all() if start.timestamp() <= call.at <= end.timestamp())


def _counts(calls: list[Call]) -> dict[str, int]:
    """Calls in all, which leaves those of exposed services out, and by their kind."""
    by_kind = {kind: sum(call.kind == kind for call in calls) for kind in _KINDS.values()}
    total = by_kind["sync"] + by_kind["async"]
    return {"requests_count_total": total, **{f"requests_count_{kind}": n for kind, n in by_kind.items()}}


def _breakdown(calls: list[Call], by: str, *, users: bool) -> list[dict[str, Any]]:
    """One entry for each service, user or country that has a call."""
    found = []
    logged = [call for call in calls if call.kind != "exposed"]
    counted = calls if by == "service" else logged
    keys = [{"service": call.service, "user": call.user, "country": "unknown"}[by] for call in counted]
    for key in sorted(set(keys)):
        own = [call for call, its_key in zip(counted, keys, strict=True) if its_key == key]
        callers = sorted({call.user for call in own if call.kind != "exposed"})
        if by == "service":
            named = {"users": callers} if users and callers else {}
            found.append({"key": key, **_counts(own), "unique_users_count": len(callers), **named, "countries": []})
        elif by == "user":
            found.append({"key": key, "membership": "unknown", "executions_count": len(own), "countries": []})
        else:
            entry = {"key": key, "executions_count": len(own), "unique_users_count": len(callers)}
            found.append({**entry, "countries": [{"country": key, "request_count": len(own)}]})
    return found


def _table(items: list[dict[str, Any]], by: str) -> str:
    """The same as CSV."""
    lines = [",".join(_BREAKDOWNS[by])]
    for item in items:
        countries = "|".join(f"{each['country']}:{each['request_count']}" for each in item["countries"])
        cells = {**item, "countries": countries}
        lines.append(",".join(str(cells.get(column, "")) for column in _BREAKDOWNS[by]))
    return "".join(f"{line}\n" for line in lines)


def _metric(key: str, unit: str, calls: list[Call]) -> dict[str, Any]:
    kind = key.removeprefix("requests-").removesuffix("-per-service")
    if key == "users-per-service":
        value = len({call.user for call in calls if call.kind != "exposed"})
    else:
        value = sum(call.kind == kind for call in calls)
    source = _NO_PROMETHEUS if key.endswith("-hours") else _EXPOSED if kind == "exposed" else _REQUESTS
    return {"metric": key, "value": value, **({"unit": unit} if unit else {}), "sources": [source]}


def _moment(text: str) -> datetime | None:
    """A time of RFC 3339, or None."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def _times(start: datetime, end: datetime) -> dict[str, str]:
    return {"start": _iso(start), "end": _iso(end)}


def _refused(why: str) -> Response:
    return JSONResponse({"error": why}, 400)


def _line(call: Call) -> dict[str, Any]:
    at = datetime.fromtimestamp(call.at, UTC)
    stamp, latency = at.strftime("%Y-%m-%dT%H:%M:%SZ"), f"{call.seconds * 1000:.6f}ms"
    fields = (stamp, str(call.status), latency, call.client, f"{call.method}    {call.path}", call.user)
    raw = f"[GIN-EXECUTIONS-LOGGER] {' | '.join(fields)}"
    return {
        "timestamp": _iso(at),
        "status": call.status,
        "latency": latency,
        "client_ip": call.client,
        "method": call.method,
        "path": call.path,
        "user": call.user,
        "raw": raw,
    }


def _iso(time_: datetime) -> str:
    return time_.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
