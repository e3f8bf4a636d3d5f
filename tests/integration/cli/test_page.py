# SPDX-License-Identifier: Apache-2.0
"""What the provider's page shows, as commands, out of Airflow's database."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_oscar import _airflow_tables as tables
from airflow_provider_oscar.cli import page
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.staging import StageIn
from airflow_provider_oscar.operators.placement_store import PLACEMENT_RUNS, recent_key
from airflow_provider_oscar.placement.history import RunRecord, encode_records

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TARGET_KEY = recent_key("page-hpc")
TASK = ("page_dag", "run:1", "infer", -1)
MANIFEST = {
    "submission_id": "infer-1",
    "placement": "hpc-cpu",
    "proof": "observed",
    "input": {"uri": "s3://in/page.h5", "size": 8},
    "output_uri": "s3://out/words/infer-1/",
    "outputs": [{"key": "a.png", "size": 3}, {"key": "../b.png", "size": 3}],
    "exit_code": 0,
    "slurm_job_id": "7",
    "phases": {"run": {"start": "2026-11-22T12:00:00+00:00", "end": "2026-11-22T12:00:10+00:00"}},
}
WATCHER = {"display_name": "s3://in", "emitted": 7, "filtered": 2, "failing_since": "2026-11-22T11:00", "error": "away"}


@pytest.fixture(scope="module")
def rows(airflow_db):
    """A DAG whose run placed a job that succeeded, and one whose job has no result yet; a watched place; a target."""
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete, insert, select
    from uuid6 import uuid7

    with create_session() as session:
        session.add(DagBundleModel(name="page"))
        session.flush()
        session.add(DagModel(dag_id="page_dag", bundle_name="page", is_stale=False))
        session.flush()
        run = tables.DagRun(dag_id="page_dag", run_id="run:1", run_type="manual", run_after=NOON, state="success")
        session.add(run)
        session.flush()
        for task_id, operator, state in (
            ("choose", "Chooser", "success"),
            ("infer", "InterLinkPodOperator", "success"),
            ("later", "OscarJobOperator", "running"),
        ):
            fields = {
                "id": uuid7(), "dag_id": "page_dag", "run_id": "run:1", "task_id": task_id, "operator": operator,
                "map_index": -1, "state": state, "pool": "default_pool", "pool_slots": 1, "start_date": NOON,
                "end_date": NOON, "priority_weight": 1, "queue": "q", "try_number": 1, "max_tries": 0,
            }  # fmt: skip
            session.execute(insert(tables.TaskInstance.__table__).values(fields))
        decision = {"target": "hpc-cpu", "task_id": "infer", "reasons": ["large"], "cost_per_hour": 3.6}
        for task_id, key, value in (("infer", "return_value", MANIFEST), ("choose", "decision", decision)):
            xcom = {
                "dag_run_id": run.id, "task_id": task_id, "map_index": -1, "key": key, "dag_id": "page_dag",
                "run_id": "run:1", "value": json.dumps(value), "timestamp": NOON,
            }  # fmt: skip
            session.execute(insert(tables.XComModel.__table__).values(xcom))
        rendered = {"dag_id": "page_dag", "task_id": "infer", "run_id": "run:1", "map_index": -1}
        given = {"output_uri": "s3://out/words", "output_conn_id": "results"}
        session.execute(
            insert(tables.RenderedTaskInstanceFields.__table__).values({**rendered, "rendered_fields": given})
        )
        asset = tables.AssetModel(name="page_inbox", uri="page_inbox", group="asset", extra={})
        targets = session.scalar(select(tables.AssetModel).where(tables.AssetModel.uri == PLACEMENT_RUNS.uri))
        made = targets is None
        targets = targets or tables.AssetModel(name=PLACEMENT_RUNS.name, uri=PLACEMENT_RUNS.uri, group="oscar")
        trigger = tables.Trigger(classpath="x.Y", kwargs={})
        session.add_all([asset, targets, trigger])
        session.flush()
        session.add(tables.AssetWatcherModel(name="w", asset_id=asset.id, trigger_id=trigger.id))
        record = RunRecord(target="page-hpc", ended_at=NOON.timestamp(), run=10.0, submission_id="infer-1")
        for one, key, value in (
            (asset, "watcher:a", WATCHER),
            (targets, TARGET_KEY, encode_records([record])),
        ):
            state = {"asset_id": one.id, "key": key, "value": json.dumps(value), "updated_at": NOON}
            session.add(tables.AssetStateStoreModel(**state))
        known = targets.id
    yield
    with create_session() as session:  # other tests of this process have records of their own
        of_target = (tables.AssetStateStoreModel.asset_id == known, tables.AssetStateStoreModel.key == TARGET_KEY)
        session.execute(delete(tables.AssetStateStoreModel).where(*of_target))
        if made:
            session.execute(delete(tables.AssetModel).where(tables.AssetModel.id == known))


@pytest.fixture
def asked(rows, capsys):
    """Call a command; return what it printed as JSON."""

    def ask(function, **options):
        function(argparse.Namespace(output="json", **options))
        return json.loads(capsys.readouterr().out)

    return ask


def named(task=TASK, **options):
    return dict(zip(("dag_id", "run_id", "task_id", "map_index"), task, strict=True)) | options


def test_a_watched_place_says_what_it_saw_and_since_when_it_fails(asked):
    (place,) = (each for each in asked(page.places_list) if each["asset"] == "page_inbox")
    assert (place["seen"], place["left_out"], place["watched"]) == (7, 2, False)
    assert (place["failing_since"], place["error"]) == ("2026-11-22T11:00", "away")


def test_decisions_are_listed_with_what_came(asked):
    (decision,) = asked(page.placements_list, dag_id="page_dag", limit=5)
    assert (decision["target"], decision["reasons"], decision["state"]) == ("hpc-cpu", ["large"], "success")
    assert decision["took"] == {"run": 10.0}


def test_targets_are_listed_with_their_circuit(asked):
    (target,) = (each for each in asked(page.placements_targets) if each["name"] == "page-hpc")
    assert (target["circuit"], target["jobs"], target["median_seconds"]) == ("closed", 1, 10.0)


def test_jobs_of_all_kinds_are_listed_also_those_that_run(asked):
    jobs = {job["task_id"]: job for job in asked(page.results_list, dag_id="page_dag", limit=50)}
    assert set(jobs) == {"infer", "later"}
    done, running = jobs["infer"], jobs["later"]
    assert (done["slurm_job_id"], done["object"], done["cost"]) == ("7", "s3://in/page.h5", 0.01)
    assert (running["state"], running["outputs"]) == ("running", 0)


def test_a_result_says_what_it_is_worth(asked):
    shown = asked(page.results_show, **named())
    assert shown["proof"]["state"] == "observed"
    assert [each["key"] for each in shown["files"]] == ["a.png"]


class Store:
    """Has every object, and gives links to them."""

    def head(self, container, key):
        return ObjectEvent(StoreType.S3, "results", container, key, 3, "etag", "", NOON)

    def stage_in(self, event, *, lifetime):
        url = f"https://store.test/{event.container}/{event.key}?for={lifetime // timedelta(seconds=1)}"
        return StageIn(uri=event.uri, name="a", size=3, etag="etag", checksum=None, url=url, headers={})


def test_a_link_fetches_one_output_for_some_minutes(asked, monkeypatch):
    monkeypatch.setattr(page, "storage_hook", lambda uri, conn_id: Store())
    (link,) = asked(page.results_link, **named(key="a.png"))
    assert link["url"] == "https://store.test/out/words/infer-1/a.png?for=300"


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (page.results_link, named(key="../b.png"), "has no output '../b.png'"),
        (page.results_show, named(("page_dag", "run:1", "later", -1)), "has no result: it is running"),
        (
            page.results_show,
            named(("page_dag", "run:2", "infer", -1)),
            "there is no task instance 'infer' of run 'run:2'",
        ),
        (page.results_list, {"dag_id": "nope", "limit": 5}, "there is no DAG 'nope'; 'airflow dags list'"),
        (page.placements_list, {"dag_id": "", "limit": 201}, "--limit is 201; expected 1 to 200"),
    ],
    ids=["output", "no result", "run", "dag", "limit"],
)
def test_what_is_not_there_is_said(rows, function, options, message):
    with pytest.raises(SystemExit, match=message):
        function(argparse.Namespace(output="table", **options))
