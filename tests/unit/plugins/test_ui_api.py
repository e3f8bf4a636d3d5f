# SPDX-License-Identifier: Apache-2.0
"""The page in Airflow's own API server: who may see what, what is answered, and where a download leads."""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.objects import ObjectEvent, Source
from airflow_provider_oscar.core.staging import StageIn
from airflow_provider_oscar.plugins.ui.views import TaskRow

# Airflow makes a short key for itself where none is configured.
pytestmark = pytest.mark.filterwarnings("ignore:The HMAC key is")

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ONE = {"dag_id": "ui_dag", "run_id": "run:1", "task_id": "infer"}
ROUTES = {
    "page": "/oscar/ui/",
    "file": "/oscar/ui/static/app.js",
    "jobs": "/oscar/ui/api/jobs",
    "placements": "/oscar/ui/api/placements",
    "result": "/oscar/ui/api/result?dag_id=ui_dag&run_id=run:1&task_id=infer",
    "download": "/oscar/ui/api/download?dag_id=ui_dag&run_id=run:1&task_id=infer&key=infer-1/a.png",
    "flow": "/oscar/ui/api/flow",
    "health": "/oscar/ui/api/health",
}
MANIFEST = {
    "submission_id": "infer-1",
    "placement": "cloud-cpu",
    "input": {"uri": "s3://in/a.h5"},
    "output_uri": "s3://out/words",
    "outputs": [{"key": "infer-1/a.png", "size": 3, "sha256": "aa"}],
    "exit_code": 0,
    "phases": {},
}
ROW = TaskRow(
    dag_id="d", run_id="r", task_id="t", map_index=-1, operator="", state="success", try_number=1, start=None, end=None
)


class FakeStore:
    """Knows one object, and says what a store would."""

    def __init__(self) -> None:
        self.away = False
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []

    def open(self, uri: str, conn_id: str) -> FakeStore:
        self.asked.append((uri, conn_id))
        return self

    def head(self, container: str, key: str) -> ObjectEvent | None:
        if self.away:
            raise TransientError("the store is away")
        source = Source.DCACHE if container.startswith("/") else Source.S3
        return ObjectEvent(source, "store", container, key, 3, "etag", "", NOON) if key.endswith("a.png") else None

    def stage_in(self, event: ObjectEvent, *, lifetime: Any) -> StageIn:
        url = f"https://store.test/{event.container}/{event.key}"
        return StageIn(uri=event.uri, name="a", size=3, etag="etag", checksum=None, url=url, headers=self.headers)

    def read_bytes(self, uri: str, limit: int) -> bytes | None:
        return json.dumps({**MANIFEST, "metrics": {"stored": 1}}).encode()


@pytest.fixture(scope="module")
def api(airflow_db: Path) -> Any:
    """The module; importing it imports Airflow's API server, whose test client warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow_provider_oscar.plugins.ui import api

    return api


@pytest.fixture(scope="module")
def client(api: Any) -> Iterator[Any]:
    """A client of the real API server with the installed plugin."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow.api_fastapi.app import create_app
        from starlette.testclient import TestClient

        yield TestClient(create_app(apps="core"), raise_server_exceptions=True, follow_redirects=False)
        gc.collect()


@pytest.fixture
def store(api: Any, monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    """What outputs are in."""
    fake = FakeStore()
    monkeypatch.setattr(api, "_open_store", fake.open)
    return fake


@pytest.fixture(scope="module")
def rows(airflow_db: Path) -> None:
    """Two DAGs, each with a job that succeeded; one of them also has a decision."""
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Rendered
    from airflow.models.taskinstance import TaskInstance as TI
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import insert
    from uuid6 import uuid7

    with create_session() as session:
        if session.get(DagBundleModel, "ui") is None:
            session.add(DagBundleModel(name="ui"))
            session.flush()
        for dag_id in ("ui_dag", "ui_other"):
            session.add(DagModel(dag_id=dag_id, bundle_name="ui", is_stale=False))
            session.flush()
            run = DagRun(dag_id=dag_id, run_id="run:1", run_type="manual", run_after=NOON, state="success")
            session.add(run)
            session.flush()
            for task_id, operator in (("infer", "OscarJobOperator"), ("choose", "Chooser"), ("other", "BashOperator")):
                fields = {
                    "id": uuid7(), "dag_id": dag_id, "run_id": "run:1", "task_id": task_id, "operator": operator,
                    "map_index": -1, "state": "success", "pool": "default_pool", "pool_slots": 1, "start_date": NOON,
                    "end_date": NOON, "priority_weight": 1, "queue": "q", "try_number": 1, "max_tries": 0,
                }  # fmt: skip
                session.execute(insert(TI.__table__).values(fields))
            given = {"output_uri": "s3://out/words", "output_conn_id": "results"}
            rendered = {"dag_id": dag_id, "task_id": "infer", "run_id": "run:1", "map_index": -1}
            session.execute(insert(Rendered.__table__).values({**rendered, "rendered_fields": given}))
            decision = {"target": "cloud-cpu", "task_id": "infer", "reasons": ["small"]}
            for task_id, key, value in (("infer", "return_value", MANIFEST), ("choose", "decision", decision)):
                xcom = {
                    "dag_run_id": run.id, "task_id": task_id, "map_index": -1, "key": key, "dag_id": dag_id,
                    "run_id": "run:1", "value": json.dumps(value), "timestamp": NOON,
                }  # fmt: skip
                session.execute(insert(XComModel.__table__).values(xcom))


def login(role: str | None, name: str = "somebody") -> dict[str, str]:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=name, role=role))
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", ROUTES.values(), ids=ROUTES)
def test_nothing_is_answered_without_a_login(client, rows, store, path):
    assert client.get(path).status_code == 401


@pytest.mark.parametrize("path", ROUTES.values(), ids=ROUTES)
def test_nothing_is_answered_to_a_user_without_a_role(client, rows, store, path):
    assert client.get(path, headers=login(None)).status_code == 403


@pytest.mark.parametrize("name", ROUTES)
def test_a_viewer_sees_all_but_connections(client, rows, store, name):
    answer = client.get(ROUTES[name], headers=login("viewer"))
    expected = {"health": 403, "download": 307}.get(name, 200)
    assert answer.status_code == expected, answer.text


def test_every_route_is_in_this_test(api):
    app = api.ui_app()
    assert {route.path.replace("{name}", "app.js") for route in app.routes} == {
        path.partition("?")[0].removeprefix("/oscar/ui") for path in ROUTES.values()
    }


def test_an_operator_sees_names_of_connections_and_no_secret(client, rows):
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Connection(conn_id="ui_conn", conn_type="oscar", host="https://o.test", password="hidden-word"))
    answer = client.get(ROUTES["health"], headers=login("op"))
    assert {"conn_id": "ui_conn", "conn_type": "oscar", "host": "https://o.test", "description": ""} in answer.json()[
        "connections"
    ]
    assert "hidden-word" not in answer.text


def test_jobs_of_the_newest_runs_are_listed_with_a_link_to_airflow(client, rows):
    found = client.get(ROUTES["jobs"], headers=login("viewer")).json()["jobs"]
    ours = [job for job in found if job["dag_id"] in ("ui_dag", "ui_other")]
    assert sorted((job["dag_id"], job["task_id"], job["target"]) for job in ours) == [
        ("ui_dag", "infer", "cloud-cpu"),
        ("ui_other", "infer", "cloud-cpu"),
    ]
    assert ours[0]["url"].endswith(f"/dags/{ours[0]['dag_id']}/runs/run%3A1/tasks/infer")
    of_run = client.get(ROUTES["jobs"], params={"dag_id": "ui_dag", "run_id": "run:1"}, headers=login("viewer")).json()
    assert [job["dag_id"] for job in of_run["jobs"]] == ["ui_dag"]


def test_dags_that_the_user_may_not_read_are_left_out(client, rows, store, monkeypatch):
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    monkeypatch.setattr(SimpleAuthManager, "get_authorized_dag_ids", lambda self, **_: {"ui_other"})
    jobs = client.get(ROUTES["jobs"], headers=login("viewer")).json()["jobs"]
    assert {job["dag_id"] for job in jobs} == {"ui_other"}
    placements = client.get(ROUTES["placements"], headers=login("viewer")).json()["placements"]
    assert {one["dag_id"] for one in placements} == {"ui_other"}
    assert client.get(ROUTES["result"], headers=login("viewer")).status_code == 404
    assert client.get(ROUTES["download"], headers=login("viewer")).status_code == 404


def test_a_watched_place_is_shown_with_what_its_watcher_says(client, rows):
    from airflow.models.asset import AssetEvent, AssetModel, AssetWatcherModel
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session

    said = {"about": "s3://in", "emitted": 7, "failing_since": "2026-11-22T11:00:00+00:00", "error": "away"}
    good = {"about": "s3://in", "emitted": 1, "failing_since": ""}
    with create_session() as session:
        asset = AssetModel(name="ui_inbox", uri="ui_inbox", group="asset", extra={})
        trigger = Trigger(classpath="x.Y", kwargs={})
        session.add_all([asset, trigger])
        session.flush()
        session.add(AssetWatcherModel(name="w", asset_id=asset.id, trigger_id=trigger.id))
        for key, value in (("watcher:a", said), ("watcher:b", good), ("known:a", {"emitted": 99})):
            session.add(AssetStateStoreModel(asset_id=asset.id, key=key, value=json.dumps(value), updated_at=NOON))
        extra = {"from_trigger": True, "payload": {"container": "in", "key": "a.h5"}}
        session.add(AssetEvent(asset_id=asset.id, extra=extra, timestamp=NOON))
    places = client.get(ROUTES["flow"], headers=login("viewer")).json()["places"]
    (place,) = (each for each in places if each["name"] == "ui_inbox")
    assert (place["status"]["emitted"], place["status"]["error"], place["triggered"]) == (7, "away", False)
    assert [event["object"] for event in place["events"]] == ["in/a.h5"]


def test_decisions_are_listed_with_what_became_of_them(client, rows):
    found = client.get(ROUTES["placements"], headers=login("viewer")).json()
    (ours,) = (one for one in found["placements"] if one["dag_id"] == "ui_dag")
    assert (ours["reasons"], ours["state"], ours["object"]) == (["small"], "success", "s3://in/a.h5")


def test_a_download_leads_to_a_short_lived_link_of_the_tasks_own_connection(client, rows, store):
    answer = client.get(ROUTES["download"], headers=login("viewer"))
    assert answer.headers["location"] == "https://store.test/out/words/infer-1/a.png"
    assert store.asked == [("s3://out/words/infer-1/a.png", "results")]


def test_where_xcom_holds_a_summary_the_stored_manifest_is_read(api, store):
    row = replace(ROW, rendered={"output_uri": "s3://out/words"})
    whole = api._whole_manifest(store.open, row, {**MANIFEST, "outputs": [], "outputs_omitted": 1})
    assert (whole["outputs"], whole["metrics"]) == (MANIFEST["outputs"], {"stored": 1})
    assert store.asked == [("s3://out/words/infer-1/manifest.json", "")]
    other = {**MANIFEST, "submission_id": "another", "outputs_omitted": 1}
    assert api._whole_manifest(store.open, row, other) is other


@pytest.mark.parametrize("key", ["infer-1/other.png", "../a.png", "manifest.json"])
def test_only_what_the_manifest_lists_can_be_downloaded(client, rows, store, key):
    answer = client.get("/oscar/ui/api/download", params={**ONE, "key": key}, headers=login("viewer"))
    assert answer.status_code == 404
    assert store.asked == []


def test_a_store_that_is_away_is_named(client, rows, store):
    store.away = True
    answer = client.get(ROUTES["download"], headers=login("viewer"))
    assert (answer.status_code, answer.json()["detail"]) == (502, "the store is away")


def test_a_manifest_cannot_lead_a_download_elsewhere(api, store):
    row = replace(ROW, rendered={"output_uri": "s3://out/words", "output_conn_id": "results"})
    for elsewhere in ("s3://secret/words", "s3://out/words2", "s3://out"):
        with pytest.raises(api.HTTPException, match="another place"):
            api.within(row, elsewhere)
    api.within(row, "s3://out/words/")


def test_a_password_of_a_store_is_never_put_into_a_link(api, store):
    store.headers = {"Authorization": "Basic c2VjcmV0"}
    with pytest.raises(api.DefinitionError, match="no short-lived access"):
        api.link_to(store.open, ROW, "dcache://store/out/a.png")
    store.headers = {"Authorization": "Bearer mac+aroon"}
    assert api.link_to(store.open, ROW, "dcache://store/out/a.png").endswith("/a.png?authz=mac%2Baroon")


def test_the_page_loads_nothing_from_elsewhere(api):
    for name in [*api.STATIC, "index.html"]:
        text = (Path(api.__file__).parent / "static" / name).read_text()
        outside = [word for word in ("https://", "http://", "@import", "eval(", "innerHTML") if word in text]
        assert set(outside) <= {"http://"}, name
        assert text.count("http://") == text.count("http://www.w3.org/2000/svg"), name
