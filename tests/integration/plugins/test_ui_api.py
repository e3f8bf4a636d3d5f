# SPDX-License-Identifier: Apache-2.0
"""The page in Airflow's own API server: who may see what, what is answered, and where a download leads.

Keeps row T6 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.staging import StageIn
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import Signer
from airflow_provider_oscar.operators.job_state import STATE_KEY
from airflow_provider_oscar.operators.placement_store import PLACEMENT_RUNS, recent_key
from airflow_provider_oscar.placement.history import RunRecord, encode_records
from airflow_provider_oscar.plugins.ui import systems
from airflow_provider_oscar.plugins.ui.views import TaskRow
from airflow_provider_oscar.supervisor.manifest import signed as signed_manifest

if TYPE_CHECKING:
    from starlette.testclient import TestClient

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
    "download": "/oscar/ui/api/download?dag_id=ui_dag&run_id=run:1&task_id=infer&key=a.png",
    "flow": "/oscar/ui/api/flow",
    "health": "/oscar/ui/api/health",
    "targets": "/oscar/ui/api/targets",
    "backend_status": "/oscar/ui/api/backend_status?dag_id=ui_dag&run_id=run:1&task_id=infer",
    "system": "/oscar/ui/api/system?conn_id=ui_cluster",
}
MANIFEST = {
    "submission_id": "infer-1",
    "placement": "cloud-cpu",
    "input": {"uri": "s3://in/a.h5"},
    "output_uri": "s3://out/words/infer-1/",
    "outputs": [{"key": "a.png", "size": 3, "sha256": "aa"}],
    "exit_code": 0,
    "phases": {"run": {"start": "2026-11-22T12:00:00+00:00", "end": "2026-11-22T12:00:10+00:00"}},
}
ROW = TaskRow(
    dag_id="d", run_id="r", task_id="t", map_index=-1, operator="", state="success", try_number=1, start=None, end=None
)


SIGNED = {
    **MANIFEST,
    "version": "1.0",
    "outputs": [{"key": "a.png", "size": 3, "sha256": ""}, {"key": "b.txt", "size": 1, "sha256": ""}],
    "metrics": {"stored": 1},
}
#: What the task remembers of its job, and how Airflow's summary of the manifest looks.
JOB = RunningJob(
    submission_id="infer-1",
    job_id="infer-1",
    request_digest="d1",
    deployment_id="dep",
    backend="oscar",
    address={"conn_id": "ui_cluster", "service": "words"},
)
SUMMARY = {**MANIFEST, "signature": "hmac-sha256:of-the-whole", "outputs_omitted": 1}
KEY = "a key of the deployment"


def signed(manifest: dict[str, Any], job: RunningJob = JOB) -> bytes:
    """What the supervisor of the job leaves at its place."""
    key = Signer.from_setting(KEY).key(job)
    return json.dumps(signed_manifest(manifest, bytes.fromhex(key))).encode()


class FakeStore:
    """Knows one object, and says what a store would."""

    def __init__(self) -> None:
        self.away = False
        self.copy: bytes | None = signed(SIGNED)
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []

    def open(self, uri: str, conn_id: str) -> FakeStore:
        self.asked.append((uri, conn_id))
        return self

    def head(self, container: str, key: str) -> ObjectEvent | None:
        if self.away:
            raise TransientError("the store is away")
        source = StoreType.DCACHE if container.startswith("/") else StoreType.S3
        return ObjectEvent(source, "store", container, key, 3, "etag", "", NOON) if key.endswith("a.png") else None

    def stage_in(self, event: ObjectEvent, *, lifetime: Any) -> StageIn:
        url = f"https://store.test/{event.container}/{event.key}"
        return StageIn(uri=event.uri, name="a", size=3, etag="etag", checksum=None, url=url, headers=self.headers)

    def read_bytes(self, uri: str, limit: int) -> bytes | None:
        if self.away:
            raise TransientError("the store is away")
        return self.copy


@pytest.fixture(scope="module")
def api(airflow_db: Path) -> ModuleType:
    """The module; importing it imports Airflow's API server, whose test client warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow_provider_oscar.plugins.ui import api

    return api


@pytest.fixture(scope="module")
def client(api: ModuleType) -> Iterator[TestClient]:
    """A client of the real API server with the installed plugin."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow.api_fastapi.app import create_app
        from starlette.testclient import TestClient

        yield TestClient(create_app(apps="core"), raise_server_exceptions=True, follow_redirects=False)
        gc.collect()


@pytest.fixture
def store(api: ModuleType, monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    """What outputs are in."""
    fake = FakeStore()
    monkeypatch.setenv("AIRFLOW__OSCAR__SIGNING_KEY", KEY)
    monkeypatch.setattr(systems, "open_store", fake.open)
    return fake


@pytest.fixture
def asked(api: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What the page asked of an outside system; it answers at once."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(systems, "job_at", lambda *words: calls.append(words) or {"state": "absent", "where": "OSCAR"})
    monkeypatch.setattr(systems, "get_parts", lambda *words: calls.append(words) or {"parts": []})
    return calls


@pytest.fixture(scope="module")
def rows(airflow_db: Path) -> None:
    """Two DAGs, each with a job that succeeded; one of them also has a decision."""
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Rendered
    from airflow.models.task_state_store import TaskStateStoreModel
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
            given = {
                "output_uri": "s3://out/words", "output_conn_id": "results", "service": "words",
                "oscar_conn_id": "ui_cluster",
            }  # fmt: skip
            # The other one's task placed its work itself, and so has a memory for each target.
            key = STATE_KEY if dag_id == "ui_dag" else f"{STATE_KEY}@{MANIFEST['placement']}"
            state = {
                "dag_run_id": run.id, "task_id": "infer", "map_index": -1, "key": key, "dag_id": dag_id,
                "run_id": "run:1", "value": json.dumps(asdict(JOB)), "updated_at": NOON,
            }  # fmt: skip
            session.execute(insert(TaskStateStoreModel.__table__).values(state))
            rendered = {"dag_id": dag_id, "task_id": "infer", "run_id": "run:1", "map_index": -1}
            session.execute(insert(Rendered.__table__).values({**rendered, "rendered_fields": given}))
            decision = {"target": "cloud-cpu", "task_id": "infer", "reasons": ["small"], "cost_per_hour": 3.6}
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
def test_nothing_is_answered_without_a_login(client, rows, store, asked, path):
    assert client.get(path).status_code == 401


@pytest.mark.parametrize("path", ROUTES.values(), ids=ROUTES)
def test_nothing_is_answered_to_a_user_without_a_role(client, rows, store, asked, path):
    assert client.get(path, headers=login(None)).status_code == 403
    assert (store.asked, asked) == ([], [])


@pytest.mark.parametrize("name", ROUTES)
def test_a_viewer_sees_all_but_connections(client, rows, store, asked, name):
    answer = client.get(ROUTES[name], headers=login("viewer"))
    expected = {"health": 403, "system": 403, "download": 307}.get(name, 200)
    assert answer.status_code == expected, answer.text


@pytest.mark.parametrize(("role", "may"), [("viewer", False), ("user", True), ("admin", True)])
def test_a_job_may_be_cancelled_by_who_may_change_its_task(client, rows, store, asked, role, may):
    found = client.get(ROUTES["jobs"], headers=login(role)).json()["jobs"]
    assert {job["may_cancel"] for job in found} == {may}


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
    shown = {"conn_id": "ui_conn", "conn_type": "oscar", "host": "https://o.test", "description": ""}
    assert {**shown, "parts_title": "OSCAR services"} in answer.json()["connections"]
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
    assert of_run["comparison"] is None, "one job is compared with nothing"


def test_a_job_that_skipped_its_task_is_listed_and_a_branch_that_was_not_taken_is_not(client, rows):
    from airflow.models.taskinstance import TaskInstance as TI
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    def change(state, key, instead):
        with create_session() as session:
            session.execute(update(TI).where(TI.task_id == "infer").values(state=state))
            said = update(XComModel).where(XComModel.dag_id == "ui_dag", XComModel.key == key)
            session.execute(said.values(key=instead))

    change("skipped", "return_value", "job_id")  # which the job task pushes when its job has ended
    try:
        found = client.get(ROUTES["jobs"], headers=login("viewer")).json()["jobs"]
    finally:
        change("success", "job_id", "return_value")
    assert [(job["dag_id"], job["state"]) for job in found] == [("ui_dag", "skipped")]


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
    from airflow.models.dagrun import DagRun
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from sqlalchemy import select

    said = {"display_name": "s3://in", "emitted": 7, "failing_since": "2026-11-22T11:00:00+00:00", "error": "away"}
    good = {"display_name": "s3://in", "emitted": 1, "failing_since": ""}
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
        run = session.scalar(select(DagRun).where(DagRun.dag_id == "ui_dag"))
        run.partition_key, run.start_date = "in.a.h5-1", NOON + timedelta(seconds=2)
        keyed = {"asset_id": asset.id, "extra": {}, "timestamp": NOON - timedelta(seconds=1)}
        session.add(AssetEvent(**keyed, partition_key="in.a.h5-1"))
    places = client.get(ROUTES["flow"], headers=login("viewer")).json()["places"]
    (place,) = (each for each in places if each["name"] == "ui_inbox")
    assert (place["status"]["emitted"], place["status"]["error"], place["triggered"]) == (7, "away", False)
    assert [event["object"] for event in place["events"]] == ["in/a.h5", ""]
    for event in place["events"]:
        assert (event["dag_id"], event["state"]) == ("ui_dag", "success")
        assert [step["state"] for step in event["steps"]] == ["done"] * 5
    by_object, by_key = place["events"]
    assert [step["at"] is None for step in by_key["steps"]] == [False] * 5


def test_decisions_are_listed_with_what_became_of_them(client, rows):
    found = client.get(ROUTES["placements"], headers=login("viewer")).json()
    (ours,) = (one for one in found["placements"] if one["dag_id"] == "ui_dag")
    assert (ours["reasons"], ours["state"], ours["object"]) == (["small"], "success", "s3://in/a.h5")


def test_a_download_leads_to_a_short_lived_link_of_the_tasks_own_connection(client, rows, store):
    answer = client.get(ROUTES["download"], headers=login("viewer"))
    assert answer.headers["location"] == "https://store.test/out/words/infer-1/a.png"
    assert store.asked == [("s3://out/words/infer-1/a.png", "results")]


def proven(store: FakeStore, accepted: dict[str, Any], job: RunningJob | None = JOB) -> tuple[str, dict[str, object]]:
    row = replace(ROW, rendered={"output_uri": "s3://out/words"})
    verdict, shown = systems.proven_manifest(store.open, row, accepted, job)
    return verdict.state.value, shown


@pytest.mark.parametrize("dag_id", ["ui_dag", "ui_other"])
def test_the_job_of_a_result_is_remembered_whoever_placed_it(rows, dag_id):
    from airflow.utils.session import create_session

    from airflow_provider_oscar.plugins.ui import store as ui_store

    with create_session() as session:
        row = ui_store.one_row(session, dag_id, "run:1", "infer", -1)
        assert ui_store.remembered_job(session, row) == JOB


def test_a_signed_manifest_at_the_place_is_verified_and_shown_whole(store):
    state, shown = proven(store, SUMMARY)
    assert (state, shown["metrics"], len(shown["outputs"])) == ("proven", {"stored": 1}, 2)
    assert store.asked == [("s3://out/words/infer-1/manifest.json", "")]


@pytest.mark.parametrize(
    "forged",
    [
        signed({**SIGNED, "metrics": {"stored": 2}}).replace(b'"stored": 2', b'"stored": 3'),
        signed(SIGNED, replace(JOB, generation=1)),
        signed({**SIGNED, "submission_id": "another"}, replace(JOB, submission_id="another")),
        json.dumps(SIGNED).encode(),
        b"no JSON",
        b"[]",
    ],
    ids=["altered", "other attempt", "other job", "unsigned", "garbage", "list"],
)
def test_a_forged_manifest_at_the_place_is_shown_as_not_proven(store, forged):
    store.copy = forged
    assert proven(store, SUMMARY) == ("refuted", SUMMARY)


def test_what_cannot_be_verified_is_said_to_be_so(store):
    assert proven(store, SUMMARY, job=None) == ("unknown", SUMMARY)
    store.copy = None
    assert proven(store, SUMMARY) == ("unknown", SUMMARY)
    store.away = True
    assert proven(store, SUMMARY) == ("unknown", SUMMARY)
    assert proven(store, MANIFEST) == ("unsigned", MANIFEST)
    observed = {**MANIFEST, "proof": "observed", "observed_by": "log"}
    assert proven(store, observed) == ("observed", observed)


def test_outputs_of_a_forged_manifest_cannot_be_downloaded(client, rows, store, monkeypatch):
    forged = {**SIGNED, "outputs": [{"key": "evil.sh", "size": 1, "sha256": ""}]}
    store.copy = json.dumps(forged).encode()
    answer = client.get("/oscar/ui/api/download", params={**ONE, "key": "evil.sh"}, headers=login("viewer"))
    assert answer.status_code == 404


def test_the_truth_about_a_job_is_asked_of_the_system_that_runs_it(client, rows, asked):
    answer = client.get(ROUTES["backend_status"], headers=login("viewer"))
    assert answer.json() == {"state": "absent", "where": "OSCAR"}
    ((place, job_id),) = asked
    assert (place.display_name, job_id) == ("OSCAR service 'words' (connection 'ui_cluster')", "infer-1")


def test_a_task_without_a_job_has_no_system_to_ask(client, rows, asked):
    for task_id in ("choose", "other"):
        answer = client.get(
            ROUTES["backend_status"].replace("task_id=infer", f"task_id={task_id}"), headers=login("viewer")
        )
        assert (answer.status_code, asked) == (404, [])


def test_a_system_is_asked_only_over_a_connection_that_the_user_may_read(client, rows, asked, monkeypatch):
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    assert client.get(ROUTES["system"], headers=login("op")).status_code == 404
    monkeypatch.setattr(SimpleAuthManager, "get_authorized_connections", lambda self, **_: {"ui_cluster"})
    assert client.get(ROUTES["system"], headers=login("op")).json() == {"parts": []}
    assert asked == [("ui_cluster",)]


def test_an_outage_of_a_system_is_said_in_its_own_words(client, rows, asked, monkeypatch):
    def away(*_: object) -> None:
        raise TransientError("the cluster is away")

    monkeypatch.setattr(systems, "job_at", away)
    answer = client.get(ROUTES["backend_status"], headers=login("viewer"))
    assert (answer.status_code, answer.json()["detail"]) == (502, "the cluster is away")


def test_a_job_costs_what_its_placement_said(client, rows):
    found = client.get(ROUTES["jobs"], headers=login("viewer")).json()["jobs"]
    assert [job["cost"] for job in found if job["dag_id"] == "ui_dag"] == [0.01]


@pytest.fixture
def remembered_runs(rows) -> Iterator[Any]:
    """Stores what placement remembers of targets, in the asset that all tests of a process share; gone afterwards."""
    from airflow.models.asset import AssetModel
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete, select

    made: list[int] = []
    written: list[str] = []

    def remember(records: dict[str, list[RunRecord]]) -> None:
        with create_session() as session:
            number = session.scalar(select(AssetModel.id).where(AssetModel.uri == PLACEMENT_RUNS.uri))
            if number is None:
                asset = AssetModel(name=PLACEMENT_RUNS.name, uri=PLACEMENT_RUNS.uri, group="oscar", extra={})
                session.add(asset)
                session.flush()
                number = asset.id
                made.append(number)
            for name, of_target in records.items():
                value = json.dumps(encode_records(of_target))
                written.append(recent_key(name))
                state = {"asset_id": number, "key": written[-1], "value": value, "updated_at": NOON}
                session.add(AssetStateStoreModel(**state))

    yield remember
    with create_session() as session:
        session.execute(delete(AssetStateStoreModel).where(AssetStateStoreModel.key.in_(written)))
        session.execute(delete(AssetModel).where(AssetModel.id.in_(made)))


def test_the_circuit_of_a_target_that_failed_again_and_again_is_open(client, rows, remembered_runs):
    now = datetime.now(UTC).timestamp()
    good = RunRecord(target="hpc", ended_at=now - 500, run=20.0, cost=0.5, interval=(10.0, 30.0), submission_id="a")
    bad = [
        RunRecord(target="hpc", ended_at=now - 5 + n, succeeded=False, target_fault=True, submission_id=f"b{n}")
        for n in range(3)
    ]
    remembered_runs({"ui-hpc": [good, *bad], "ui-cloud": [replace_target(good, "ui-cloud")]})
    found = client.get(ROUTES["targets"], headers=login("viewer")).json()["targets"]
    cloud, hpc = (one for one in found if one["name"].startswith("ui-"))
    assert (hpc["circuit"], hpc["jobs"], hpc["succeeded"], hpc["target_faults"]) == ("open", 4, 1, 3)
    assert datetime.fromisoformat(hpc["until"]).timestamp() > now
    assert (cloud["circuit"], cloud["until"], cloud["median_seconds"], cloud["median_cost"]) == (
        "closed",
        None,
        20,
        0.5,
    )


def replace_target(record: RunRecord, target: str) -> RunRecord:
    return msgspec.structs.replace(record, target=target)


@pytest.mark.parametrize("key", ["other.png", "../a.png", "manifest.json"])
def test_only_what_the_manifest_lists_can_be_downloaded(client, rows, store, key):
    answer = client.get("/oscar/ui/api/download", params={**ONE, "key": key}, headers=login("viewer"))
    assert answer.status_code == 404
    assert [uri for uri, _ in store.asked if not uri.endswith("/manifest.json")] == []


def test_a_store_that_is_away_is_named(client, rows, store):
    store.away = True
    answer = client.get(ROUTES["download"], headers=login("viewer"))
    assert (answer.status_code, answer.json()["detail"]) == (502, "the store is away")


def test_a_manifest_cannot_lead_a_download_elsewhere(api, store):
    row = replace(ROW, rendered={"output_uri": "s3://out/words", "output_conn_id": "results"})
    for elsewhere in (
        "s3://secret/words",
        "s3://out/words2",
        "s3://out",
        "s3://out/words/../x",
        "s3://out/words/%2E%2E",
    ):
        with pytest.raises(api.HTTPException, match="another place"):
            api.within(row, elsewhere, "a.png")
    for key in ("../a.png", "/a.png", "b/../../a.png"):
        with pytest.raises(api.HTTPException, match="another place"):
            api.within(row, "s3://out/words/", key)
    api.within(row, "s3://out/words/", "b/a.png")


def test_a_password_of_a_store_is_never_put_into_a_link(api, store):
    store.headers = {"Authorization": "Basic c2VjcmV0"}
    with pytest.raises(DefinitionError, match="no short-lived access"):
        systems.link_to(store.open, ROW, "dcache://store/out/a.png")
    store.headers = {"Authorization": "Bearer mac+aroon"}
    assert systems.link_to(store.open, ROW, "dcache://store/out/a.png").endswith("/a.png?authz=mac%2Baroon")


def test_the_page_loads_nothing_from_elsewhere(api):
    for name in [*api.STATIC, "index.html"]:
        text = (Path(api.__file__).parent / "static" / name).read_text()
        outside = [word for word in ("https://", "http://", "@import", "eval(", "innerHTML") if word in text]
        assert set(outside) <= {"http://"}, name
        assert text.count("http://") == text.count("http://www.w3.org/2000/svg"), name
