# SPDX-License-Identifier: Apache-2.0
"""What placed jobs took, out of Airflow's database: exported, scored, forgotten."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.cli import runs
from airflow_provider_oscar.cli.runs import COLUMNS, runs_export, runs_prune, runs_score
from airflow_provider_oscar.operators.placement_store import PLACEMENT_RUNS, recent_key, run_key
from airflow_provider_oscar.placement.history import RunRecord, encode_records

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def record(number, **fields):
    values = {
        "target": "cloud" if number % 2 else "hpc",
        "ended_at": (NOON + timedelta(hours=number)).timestamp(),
        "run": 10.0 + number,
        "predicted": 10.0,
        "interval": (5.0, 12.5),
        "dag_id": "dag",
        "run_id": f"=run-{number}",
        "policy": "FastestFinish",
        "reason": "expected to end first",
        "submission_id": f"job-{number}",
    }
    return RunRecord(**values | fields)


@pytest.fixture
def stored(airflow_db):
    """Six jobs of one DAG in the database."""
    from airflow.models.asset import AssetActive, AssetModel
    from airflow.models.asset_state_store import AssetStateStoreModel
    from sqlalchemy import delete

    with db.transaction() as session:
        asset = AssetModel(name=PLACEMENT_RUNS.name, uri=PLACEMENT_RUNS.uri, group="oscar")
        session.add(asset)
        session.flush()
        session.add(AssetActive.for_asset(asset))
        for number in range(6):
            value = json.dumps(encode_records([record(number)]))
            at = NOON + timedelta(hours=number)
            session.add(
                AssetStateStoreModel(asset_id=asset.id, key=run_key(f"job-{number}"), value=value, updated_at=at)
            )
        recent = AssetStateStoreModel(asset_id=asset.id, key=recent_key("hpc"), value='"[]"', updated_at=NOON)
        session.add(recent)
    yield
    with db.transaction() as session:
        session.execute(delete(AssetStateStoreModel))
        session.execute(delete(AssetActive).where(AssetActive.name == PLACEMENT_RUNS.name))
        session.execute(delete(AssetModel).where(AssetModel.name == PLACEMENT_RUNS.name))


def options(**given):
    values = {
        "since": None,
        "until": None,
        "dag_id": None,
        "file": "",
        "output": "csv",
        "older_than": 90,
        "by": "target",
    }
    return argparse.Namespace(**values | given)


def exported(capsys, **given):
    runs_export(options(**given))
    return capsys.readouterr().out


def test_csv_has_a_row_for_each_job_with_prediction_and_outcome(stored, capsys):
    rows = list(csv.DictReader(io.StringIO(exported(capsys))))
    assert tuple(rows[0]) == COLUMNS
    assert [row["submission_id"] for row in rows] == [f"job-{number}" for number in range(6)]
    assert (rows[2]["total"], rows[2]["predicted"], rows[2]["within_interval"]) == ("12.0", "10.0", "True")
    assert rows[3]["within_interval"] == "False"
    assert (rows[2]["policy"], rows[2]["reason"], rows[2]["forced"]) == (
        "FastestFinish",
        "expected to end first",
        "False",
    )
    assert rows[0]["run_id"] == "'=run-0", "no spreadsheet takes an id for a formula"


def test_json_goes_to_a_file_and_selects_by_time_and_dag(stored, tmp_path, capsys):
    path = tmp_path / "runs.json"
    runs_export(options(output="json", file=str(path), since="2026-11-22T14:00", until="2026-11-22T16:00"))
    assert [row["submission_id"] for row in json.loads(path.read_text())] == ["job-2", "job-3"]
    assert json.loads(exported(capsys, output="json", dag_id=["other"])) == []


def test_a_database_without_placements_exports_nothing(airflow_db, capsys):
    assert exported(capsys).splitlines() == [",".join(COLUMNS)]


def test_a_time_that_cannot_be_read_is_named_and_nothing_is_written(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    for file in (None, str(path)):
        with pytest.raises(SystemExit, match="--since is 'soon'"):
            runs_export(options(since="soon", file=file))
    assert not capsys.readouterr().out
    assert not path.exists()


def test_parquet_needs_a_file_and_its_extra(stored, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="--file"):
        runs_export(options(output="parquet"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SystemExit, match=r"airflow-provider-oscar\[parquet\]"):
        runs_export(options(output="parquet", file=str(tmp_path / "runs.parquet")))


def test_parquet_keeps_numbers_and_truth_values(stored, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    path = tmp_path / "runs.parquet"
    runs_export(options(output="parquet", file=str(path)))
    rows = parquet.read_table(path).to_pylist()
    assert [row["total"] for row in rows] == [10.0 + number for number in range(6)]
    assert [row["within_interval"] for row in rows] == [True] * 3 + [False] * 3


def test_score_shows_how_many_jobs_ended_within_what_was_predicted_and_how_far_it_was_off(stored, capsys):
    runs_score(options(output="json"))
    cloud, hpc, every = json.loads(capsys.readouterr().out)
    assert (cloud["target"], cloud["jobs"], cloud["within_interval"]) == ("cloud", 3, 0.333)
    assert (hpc["target"], hpc["within_interval"]) == ("hpc", 0.667)
    assert (every["target"], every["jobs"], every["mean_error"]) == ("all", 6, 2.5)
    runs_score(options(output="json", by="policy"))
    assert [(row["policy"], row["jobs"]) for row in json.loads(capsys.readouterr().out)] == [("FastestFinish", 6)]


def test_old_records_are_forgotten_and_what_policies_read_is_kept(stored, capsys, monkeypatch):
    monkeypatch.setattr(runs, "_now", lambda: NOON + timedelta(days=30, hours=3))
    runs_prune(options(older_than=30, output="table"))
    assert capsys.readouterr().out == "3 records: removed, older than 30 days\n"
    assert [row["submission_id"] for row in csv.DictReader(io.StringIO(exported(capsys)))] == [
        "job-3",
        "job-4",
        "job-5",
    ]
    with db.transaction() as session:
        asset = db.asset_id(session, PLACEMENT_RUNS.name)
        assert list(asset_states.iter_states(session, asset, "recent:")) == ["[]"]
    with pytest.raises(SystemExit, match="at least 1 day"):
        runs_prune(options(older_than=0))
