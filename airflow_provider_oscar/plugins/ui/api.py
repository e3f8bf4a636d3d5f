# SPDX-License-Identifier: Apache-2.0
"""The page's HTTP: static files and JSON, every address behind Airflow's own authorisation.

Who may see a DAG's XComs sees its jobs, results and placements here; who may see assets sees the watched places; who
may see a connection sees its name. Cancelling and testing are not here: the page asks Airflow's public API for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar
from urllib.parse import quote

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import RedirectResponse, Response

from airflow_provider_oscar._airflow import AirflowNotFoundException
from airflow_provider_oscar._airflow_server import (
    AccessView,
    DagAccessEntity,
    DagDetails,
    GetUserDep,
    SessionDep,
    get_auth_manager,
    requires_access_asset,
    requires_access_connection,
    requires_access_dag,
    requires_access_view,
)
from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.placement.breaker import BreakerState, CircuitBreaker
from airflow_provider_oscar.plugins.oscar import base_path
from airflow_provider_oscar.plugins.pools import PoolFullError, Pools
from airflow_provider_oscar.plugins.ui import comparing, journey, store, systems, views

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_provider_oscar.plugins.ui.proof import Proof
    from airflow_provider_oscar.plugins.ui.systems import Opener

T = TypeVar("T")

#: Seconds that an outside system may take to answer the page.
DEADLINE = 20.0
STATIC = {
    **dict.fromkeys(
        (
            "app.js",
            "flow.js",
            "health.js",
            "jobs.js",
            "parts.js",
            "placements.js",
            "results.js",
            "selection.js",
            "server.js",
        ),
        "text/javascript",
    ),
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    "icon-dark.svg": "image/svg+xml",
}
_HEADERS = {
    # Everything comes from here; pictures come from the stores through links that are redirected.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: http: https:; "
    "frame-ancestors 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_website = Depends(requires_access_view(AccessView.WEBSITE))
_xcom = Depends(requires_access_dag("GET", DagAccessEntity.XCOM))
_instances = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))


def permitted_dags(user: GetUserDep) -> set[str]:
    """Return the ids of the DAGs that the user may read."""
    found: set[str] = get_auth_manager().get_authorized_dag_ids(user=user, method="GET")
    return found


def permitted_connections(user: GetUserDep) -> set[str]:
    """Return the ids of the connections that the user may read."""
    found: set[str] = get_auth_manager().get_authorized_connections(user=user, method="GET")
    return found


def changeable_dags(user: GetUserDep) -> Callable[[str], bool]:
    """Return a function that says whether the user may change the task instances of a DAG, and so cancel its jobs."""

    @cache
    def may_change(dag_id: str) -> bool:
        details, tasks = DagDetails(id=dag_id), DagAccessEntity.TASK_INSTANCE
        manager = get_auth_manager()
        return bool(manager.is_authorized_dag(method="PUT", access_entity=tasks, details=details, user=user))

    return may_change


class TaskId(NamedTuple):
    """Names one task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


def named_task(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> TaskId:
    """Return the task instance that a request names."""
    return TaskId(dag_id, run_id, task_id, map_index)


Task = Annotated[TaskId, Depends(named_task)]
Dags = Annotated[set[str], Depends(permitted_dags)]
MayChange = Annotated[Callable[[str], bool], Depends(changeable_dags)]
Connections = Annotated[set[str], Depends(permitted_connections)]
Limit = Annotated[int, Query(ge=1, le=store.ROWS)]


class FoundJob(NamedTuple):
    """A task instance that runs a job, as the database has it.

    :param row: the task instance.
    :param accepted: the manifest, or its summary, that it returned; None while there is none.
    :param job: what it remembers of the job.
    :param decisions: of the placement tasks of the same run, oldest first.
    """

    row: views.TaskRow
    accepted: dict[str, object] | None
    job: RunningJob | None
    decisions: Sequence[views.Decided]


def found_job(session: SessionDep, dags: Dags, task: Task) -> FoundJob:
    """Return the task instance that a request names, if the user may see it."""
    row = store.one_row(session, *task) if task.dag_id in dags else None
    if row is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "no such task instance")
    decisions = store.find_decisions(session, [row]).get((row.dag_id, row.run_id), [])
    return FoundJob(row, views.get_manifest(row), store.remembered_job(session, row), decisions)


Found = Annotated[FoundJob, Depends(found_job)]


def ui_app(open_store: Opener | None = None) -> FastAPI:
    """Return the application that Airflow mounts at ``/oscar/ui``.

    :param open_store: opens the hook of a URI with a connection id; ours by default.
    """
    app = FastAPI(title="OSCAR", docs_url=None, redoc_url=None, openapi_url=None)
    outside = _Outside(open_store)
    assets, some_connection = (Depends(each("GET")) for each in (requires_access_asset, requires_access_connection))
    app.add_api_route("/", page, methods=["GET"], dependencies=[_website])
    app.add_api_route("/static/{name}", static, methods=["GET"], dependencies=[_website])
    app.add_api_route("/api/jobs", jobs, methods=["GET"], dependencies=[_website, _instances, _xcom])
    app.add_api_route("/api/placements", placements, methods=["GET"], dependencies=[_website, _instances, _xcom])
    app.add_api_route("/api/targets", targets, methods=["GET"], dependencies=[_website, _instances, _xcom])
    app.add_api_route("/api/result", outside.result, methods=["GET"], dependencies=[_website, _xcom])
    app.add_api_route("/api/download", outside.download, methods=["GET"], dependencies=[_website, _xcom])
    app.add_api_route(
        "/api/backend_status", outside.backend_status, methods=["GET"], dependencies=[_website, _instances]
    )
    app.add_api_route("/api/flow", flow, methods=["GET"], dependencies=[_website, assets])
    app.add_api_route("/api/health", health, methods=["GET"], dependencies=[_website, some_connection])
    app.add_api_route("/api/system", outside.system, methods=["GET"], dependencies=[_website, some_connection])
    return app


def page() -> Response:
    """Answer the page itself."""
    text = (files(__package__) / "static" / "index.html").read_text("utf-8")
    return Response(text, media_type="text/html", headers=_HEADERS)


def static(name: str) -> Response:
    """Answer one file of the page."""
    if name not in STATIC:
        raise HTTPException(HTTPStatus.NOT_FOUND, "no such file")
    return Response((files(__package__) / "static" / name).read_bytes(), media_type=STATIC[name], headers=_HEADERS)


def jobs(
    session: SessionDep,
    dags: Dags,
    may_change: MayChange,
    *,
    limit: Limit = 100,
    dag_id: str | None = None,
    run_id: str | None = None,
) -> dict[str, object]:
    """Answer the newest jobs, or those of one run compared by target, and of each whether the user may cancel it."""
    run = (dag_id, run_id) if dag_id and run_id else None
    allowed = dags & {dag_id} if dag_id else dags
    found = _jobs(session, allowed, limit=limit, run=run)
    answer: dict[str, object] = {"jobs": [{**job, "may_cancel": may_change(job["dag_id"])} for job in found]}
    return {**answer, "comparison": comparing.comparison(found)} if run else answer


def _jobs(
    session: Session, dags: set[str], *, limit: int = store.ROWS, run: tuple[str, str] | None = None
) -> list[dict[str, Any]]:
    rows = store.job_rows(session, dags, limit=limit, run=run)
    decisions = store.find_decisions(session, rows)
    found = [views.job_view(row, decisions.get((row.dag_id, row.run_id), ())) for row in rows]
    return [{**job, "url": views.links(base_path(), job)} for job in found]


def placements(session: SessionDep, dags: Dags, limit: Limit = 100) -> dict[str, object]:
    """Answer the newest decisions with what became of them, and what jobs took on each target."""
    found = _jobs(session, dags)
    return {"placements": _decisions(session, dags, found, limit), "boxes": views.phase_boxes(found)}


def _decisions(
    session: Session, dags: set[str], found: list[dict[str, Any]], limit: int = store.ROWS
) -> list[dict[str, Any]]:
    of_run: dict[tuple[object, object], list[dict[str, object]]] = {}
    for job in found:
        of_run.setdefault((job["dag_id"], job["run_id"]), []).append(job)
    decisions = (
        views.placement_view(row, of_run.get((row.dag_id, row.run_id), ()))
        for row in store.decision_rows(session, dags, limit=limit)
    )
    return [each for each in decisions if each]


def targets(session: SessionDep) -> dict[str, object]:
    """Answer the state of each target's circuit breaker, and how its newest jobs fared, whosever they were."""
    breaker, now = CircuitBreaker(), datetime.now(UTC)
    shown = []
    for name, records in store.target_records(session, now=now).items():
        state, until = breaker.state(records, now=now)
        open_until = until.isoformat() if until and state is BreakerState.OPEN else None
        shown.append(views.target_view(name, records, circuit=state.value, until=open_until))
    return {"targets": shown}


def flow(session: SessionDep, dags: Dags) -> dict[str, object]:
    """Answer the watched places, and the way of the newest objects through Airflow."""
    places: list[dict[str, Any]] = [views.flow_view(asset) for asset in store.watched_assets(session)]
    keys = {str(event["partition_key"]) for place in places for event in place["events"] if event["partition_key"]}
    found = _jobs(session, dags)
    runs = store.find_runs(session, dags, keys, {job["run_id"] for job in found})
    decided = _decisions(session, dags, found)
    for place in places:
        place["consumers"] = [name for name in place["consumers"] if name in dags]
        place["events"] = journey.ways(place["events"], runs, decided, found)
    return {"places": places}


def health(session: SessionDep, allowed: Connections) -> dict[str, object]:
    """Answer the connections that the user may read; the page lets Airflow test them."""
    return {"connections": store.connections(session, allowed)}


class _Outside:
    """The routes that ask an outside system, each in threads of its own, so that one that hangs delays nobody else."""

    def __init__(self, open_store: Opener | None) -> None:
        # Looked up late, so that a test may put another store there.
        self._open = open_store or (lambda uri, conn_id: systems.open_store(uri, conn_id))
        self._pools = Pools("oscar-page")

    async def _ask(self, system: str, function: Callable[..., T], *args: object) -> T:
        try:
            return await self._pools.get(system).run(function, *args, deadline=DEADLINE)
        except PoolFullError as error:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, f"{system} does not answer: {error}") from None
        except (OscarProviderError, AirflowNotFoundException) as error:
            raise HTTPException(HTTPStatus.BAD_GATEWAY, str(error)) from None

    async def _proven(self, found: FoundJob) -> tuple[Proof, dict[str, object]]:
        if found.accepted is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "the task has no result yet")
        system = str(found.row.rendered.get("output_conn_id") or "the store")
        return await self._ask(system, systems.proven_manifest, self._open, found.row, found.accepted, found.job)

    async def result(self, found: Found) -> dict[str, object]:
        """Answer one job's result, and whether what lies at its place is still what was proven."""
        proof, manifest = await self._proven(found)
        shown = views.result_view(found.row, manifest, found.decisions)
        return {**shown, "url": views.links(base_path(), shown), "proof": proof.to_dict()}

    async def download(self, found: Found, key: str) -> Response:
        """Redirect to a link that lets the browser fetch one output, for some minutes."""
        _proof, manifest = await self._proven(found)
        if key not in views.output_keys(manifest):
            raise HTTPException(HTTPStatus.NOT_FOUND, "the job has no such output")
        output_uri = str(manifest.get("output_uri") or "")
        within(found.row, output_uri, key)
        system = str(found.row.rendered.get("output_conn_id") or "the store")
        url = await self._ask(system, systems.link_to, self._open, found.row, f"{output_uri.rstrip('/')}/{quote(key)}")
        return RedirectResponse(url, HTTPStatus.TEMPORARY_REDIRECT, headers=_HEADERS)

    async def backend_status(self, found: Found) -> dict[str, str]:
        """Answer what the system that runs the job says of it: the truth about a job that was cancelled."""
        if found.job is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "the task has not submitted a job")
        place = systems.job_system(found.job)
        if place is None:
            raise HTTPException(HTTPStatus.CONFLICT, "the task did not remember where its job runs; its log says it")
        return await self._ask(place.conn_id, systems.job_at, place, found.job.job_id)

    async def system(self, allowed: Connections, conn_id: str) -> dict[str, object]:
        """Answer the services or nodes of one connection that the user may read."""
        if conn_id not in allowed:
            raise HTTPException(HTTPStatus.NOT_FOUND, "no such connection")
        return await self._ask(conn_id, systems.get_parts, conn_id)


def within(row: views.TaskRow, output_uri: str, key: str) -> None:
    """Refuse a manifest that names another place than its task asked for, so that it cannot lead a download there.

    :raises HTTPException: if it does.
    """
    if systems.names_another_place(row, output_uri, key):
        raise HTTPException(HTTPStatus.CONFLICT, "the manifest names another place than the task asked for")
