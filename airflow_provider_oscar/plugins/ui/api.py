# SPDX-License-Identifier: Apache-2.0
"""The page's HTTP: static files and JSON, every address behind Airflow's own authorisation.

Who may see a DAG's XComs sees its jobs, results and placements here; who may see assets sees the watched places; who
may see a connection sees its name. Cancelling and testing are not here: the page asks Airflow's public API for them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, NamedTuple
from urllib.parse import quote

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import RedirectResponse, Response

from airflow_provider_oscar._airflow import AirflowNotFoundException, server_connection
from airflow_provider_oscar._airflow_server import (
    AccessView,
    DagAccessEntity,
    GetUserDep,
    SessionDep,
    get_auth_manager,
    requires_access_asset,
    requires_access_connection,
    requires_access_dag,
    requires_access_view,
)
from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, OscarProviderError
from airflow_provider_oscar.plugins.oscar import base_path
from airflow_provider_oscar.plugins.ui import store, views

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_provider_oscar.hooks.dcache import DCacheHook
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

    StoreHook = OscarS3Hook | DCacheHook

#: How long a download link works.
LINK_LIFETIME = timedelta(minutes=5)
#: Bytes of a manifest that is read for the page.
MANIFEST_LIMIT = 4 * 1024 * 1024
STATIC = {
    "app.js": "text/javascript",
    "parts.js": "text/javascript",
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

Opener = Callable[[str, str], "StoreHook"]
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
Connections = Annotated[set[str], Depends(permitted_connections)]
Limit = Annotated[int, Query(ge=1, le=store.ROWS)]


def ui_app(open_store: Opener | None = None) -> FastAPI:
    """Return the application that Airflow mounts at ``/oscar/ui``.

    :param open_store: opens the hook of a URI with a connection id; ours by default.
    """
    app = FastAPI(title="OSCAR", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.open_store = open_store or (lambda uri, conn_id: _open_store(uri, conn_id))
    app.add_api_route("/", page, methods=["GET"], dependencies=[_website])
    app.add_api_route("/static/{name}", static, methods=["GET"], dependencies=[_website])
    app.add_api_route("/api/jobs", jobs, methods=["GET"], dependencies=[_website, _instances, _xcom])
    app.add_api_route("/api/placements", placements, methods=["GET"], dependencies=[_website, _instances, _xcom])
    app.add_api_route("/api/result", _result_route(app), methods=["GET"], dependencies=[_website, _xcom])
    app.add_api_route("/api/download", _download_route(app), methods=["GET"], dependencies=[_website, _xcom])
    app.add_api_route(
        "/api/flow", flow, methods=["GET"], dependencies=[_website, Depends(requires_access_asset("GET"))]
    )
    app.add_api_route(
        "/api/health", health, methods=["GET"], dependencies=[_website, Depends(requires_access_connection("GET"))]
    )
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
    session: SessionDep, dags: Dags, limit: Limit = 100, dag_id: str | None = None, run_id: str | None = None
) -> dict[str, object]:
    """Answer the newest jobs, or those of one run."""
    run = (dag_id, run_id) if dag_id and run_id else None
    allowed = dags & {dag_id} if dag_id else dags
    found = [views.job_view(row) for row in store.job_rows(session, allowed, limit=limit, run=run)]
    return {"jobs": [{**job, "url": views.links(base_path(), job)} for job in found]}


def placements(session: SessionDep, dags: Dags, limit: Limit = 100) -> dict[str, object]:
    """Answer the newest decisions with what became of them, and what jobs took on each target."""
    found = [views.job_view(row) for row in store.job_rows(session, dags)]
    of_run: dict[tuple[object, object], list[dict[str, object]]] = {}
    for job in found:
        of_run.setdefault((job["dag_id"], job["run_id"]), []).append(job)
    decisions = (
        views.placement_view(row, of_run.get((row.dag_id, row.run_id), ()))
        for row in store.decision_rows(session, dags, limit=limit)
    )
    return {"placements": [each for each in decisions if each], "boxes": views.phase_boxes(found)}


def flow(session: SessionDep, dags: Dags) -> dict[str, object]:
    """Answer the watched places, and the way of the newest objects through Airflow."""
    assets = [views.flow_view(asset) for asset in store.watched_assets(session)]
    for asset in assets:
        asset["consumers"] = [name for name in _names(asset["consumers"]) if name in dags]
    return {"places": assets}


def health(session: SessionDep, allowed: Connections) -> dict[str, object]:
    """Answer the connections that the user may read; the page lets Airflow test them."""
    return {"connections": store.connections(session, allowed)}


def _names(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _result_route(app: FastAPI) -> Callable[..., dict[str, object]]:
    def result(session: SessionDep, dags: Dags, task: Task) -> dict[str, object]:
        """Answer one job's result."""
        row, manifest = _found(session, dags, task)
        whole = _whole_manifest(app.state.open_store, row, manifest)
        shown = views.result_view(row, whole)
        return {**shown, "url": views.links(base_path(), shown)}

    return result


def _download_route(app: FastAPI) -> Callable[..., Response]:
    def download(session: SessionDep, dags: Dags, task: Task, key: str) -> Response:
        """Redirect to a link that lets the browser fetch one output, for some minutes."""
        row, manifest = _found(session, dags, task)
        whole = _whole_manifest(app.state.open_store, row, manifest)
        if key not in views.output_keys(whole):
            raise HTTPException(HTTPStatus.NOT_FOUND, "the job has no such output")
        output_uri = str(whole.get("output_uri") or "")
        within(row, output_uri)
        try:
            url = link_to(app.state.open_store, row, f"{output_uri.rstrip('/')}/{quote(key)}")
        except (OscarProviderError, AirflowNotFoundException) as error:
            raise HTTPException(HTTPStatus.BAD_GATEWAY, str(error)) from None
        return RedirectResponse(url, HTTPStatus.TEMPORARY_REDIRECT, headers=_HEADERS)

    return download


def _found(session: Session, dags: set[str], task: TaskId) -> tuple[views.TaskRow, dict[str, object]]:
    if task.dag_id not in dags:
        raise HTTPException(HTTPStatus.NOT_FOUND, "no such task instance")
    row = store.one_row(session, *task)
    manifest = None if row is None else views.manifest_of(row)
    if row is None or manifest is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "no such task instance, or it has no result yet")
    return row, manifest


def within(row: views.TaskRow, output_uri: str) -> None:
    """Refuse a manifest that names another place than its task asked for, so that it cannot lead a download there.

    :raises HTTPException: if it does.
    """
    prefix = _asked_for(row)
    if not prefix or not f"{output_uri.rstrip('/')}/".startswith(f"{prefix.rstrip('/')}/"):
        raise HTTPException(HTTPStatus.CONFLICT, "the manifest names another place than the task asked for")


def _asked_for(row: views.TaskRow) -> str:
    """Return the output URI that the task was given: jobs cannot change it, as they can their manifest."""
    return str(row.rendered.get("output_uri") or "")


def _whole_manifest(open_store: Opener, row: views.TaskRow, manifest: dict[str, object]) -> dict[str, object]:
    """Return the stored manifest where XCom holds a summary, or the summary if the store cannot be asked."""
    if views.is_whole(manifest):
        return manifest
    prefix = _asked_for(row)
    if not prefix:
        return manifest
    uri = f"{prefix.rstrip('/')}/{manifest['submission_id']}/manifest.json"
    try:
        raw = open_store(uri, str(row.rendered.get("output_conn_id") or "")).read_bytes(uri, MANIFEST_LIMIT)
    except (OscarProviderError, AirflowNotFoundException):
        return manifest
    whole = views.decoded(None if raw is None else raw.decode("utf-8", "replace"))
    if not isinstance(whole, dict) or whole.get("submission_id") != manifest["submission_id"]:
        return manifest
    return whole


def link_to(open_store: Opener, row: views.TaskRow, uri: str) -> str:
    """Return a URL that gives one output to whoever has it, for some minutes.

    :raises OscarProviderError: if the object is gone, or its store has no such URLs.
    """
    from airflow_provider_oscar.core.objects import Source, split_uri

    hook = open_store(uri, str(row.rendered.get("output_conn_id") or ""))
    source, container, key = split_uri(uri)
    if source is Source.DCACHE:
        container, _, key = key.rpartition("/")
    event = hook.head(container, key)
    if event is None:
        raise BadInputError(f"{uri} is not there any more")
    access = hook.stage_in(event, lifetime=LINK_LIFETIME)
    if not access.headers:
        return access.url
    scheme, _, macaroon = access.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or event.source is not Source.DCACHE:
        raise DefinitionError(f"{uri} cannot be linked to: its server gives no short-lived access to a single file")
    return f"{access.url}?authz={quote(macaroon, safe='')}"


def _open_store(uri: str, conn_id: str) -> StoreHook:
    """Return the hook that reaches a URI, with the connection read the way the API server can."""
    from airflow_provider_oscar.core.objects import Source, split_uri
    from airflow_provider_oscar.hooks.dcache import DCacheHook
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

    source, authority, _path = split_uri(uri)
    if source is Source.S3:
        named = conn_id or OscarS3Hook.default_conn_name
        return OscarS3Hook(named, connection=server_connection(named))
    named = conn_id or authority
    return DCacheHook(named, connection=server_connection(named))
