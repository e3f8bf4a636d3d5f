# SPDX-License-Identifier: Apache-2.0
"""A back end that another distribution brings is found by its entry point, and serves everywhere as ours do."""

from __future__ import annotations

import asyncio
import json
import warnings

import pytest
from airflow.sdk import DAG, BaseHook
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_oscar import placed
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.jobs.backend import GROUP, backend_names, find_backend
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.operators.job_state import STATE_KEY
from airflow_provider_oscar.placement.policies import Explicit
from airflow_provider_oscar.placement.targets import PlacementTarget
from airflow_provider_oscar.triggers.jobs import JobTrigger
from tests.support.command_line import parser
from tests.support.fakes import EVENT, OUTPUT, Store, context, manifest
from tests.support.folder_jobs import FolderBackend, FolderJobOperator

TARGET = PlacementTarget(name="folder", kind="folder")


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    """The directory of jobs, with the back end installed as pip does it."""
    info = tmp_path / "site" / "folder_jobs-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: folder-jobs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nfolder = tests.support.folder_jobs:FolderBackend\n")
    monkeypatch.syspath_prepend(str(info.parent))
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    monkeypatch.setenv("AIRFLOW_CONN_FOLDER_DEFAULT", json.dumps({"conn_type": "folder", "host": str(jobs)}))
    return jobs


@pytest.fixture
def systems(monkeypatch):
    """What the page asks of systems, with connections as this process reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow_provider_oscar.plugins.ui import systems

    monkeypatch.setattr(systems, "server_connection", BaseHook.get_connection)
    return systems


def submitted(store):
    task = FolderJobOperator(task_id="infer", command=["x"], output_uri=OUTPUT, object_event=EVENT)
    with pytest.raises(TaskDeferred) as raised:
        task.execute(context(store))
    return raised.value


def test_it_is_found_by_its_name_beside_ours():
    assert backend_names() == ["folder", "interlink", "kubernetes", "oscar"]
    assert find_backend("folder") is FolderBackend
    with pytest.raises(DefinitionError, match="no job backend 'quantum'; expected one of folder, interlink, kube"):
        find_backend("quantum")


def test_operator_and_trigger_run_a_job(installed, supervisor):
    store = Store()
    pause = submitted(store)
    (job,) = installed.iterdir()
    assert json.loads((job / "job.json").read_text())["command"] == ["x"]
    (job / "phase").write_text("succeeded")
    given = pause.trigger.serialize()[1]
    assert given["backend"] == "folder"
    event = asyncio.run(JobTrigger(**{**given, "result": None}).event())
    supervisor.manifests[job.name] = supervisor.signed(manifest(job.name))
    task = FolderJobOperator(task_id="infer", command=["x"], output_uri=OUTPUT, object_event=EVENT)
    assert task.execute_complete(context(store), event, **pause.kwargs)["exit_code"] == 0
    assert list(installed.iterdir()) == []


def test_a_placement_makes_its_tasks_and_looks_at_it(installed):
    with DAG("dag", schedule=None) as dag:
        placed("infer", targets=[TARGET], command=["x"], output_uri=OUTPUT, policy=Explicit(target="folder"))
    assert isinstance(dag.task_dict["infer.folder"], FolderJobOperator)
    choose = dag.task_dict["infer.choose"]
    choose.object_event, choose.deferrable, choose.force = EVENT, False, ""
    assert choose.choose_branch(context()) == "infer.folder"
    installed.rmdir()
    with pytest.raises(Exception, match="is not there"):
        choose.choose_branch(context())


def test_the_page_shows_what_the_system_says_and_cancels_what_is_at_work(systems, supervisor, installed):
    store = Store()
    submitted(store)
    job = RunningJob.from_stored(store[STATE_KEY])
    place = systems.job_system(job)
    assert systems.job_at(place, job.job_id) == {"state": "pending", "where": "folder (connection 'folder_default')"}
    assert systems.get_parts("folder_default") == {"parts": [{"name": job.job_id}]}
    assert place.cancel_command(job.job_id) == f"rm -r {job.job_id}"
    assert systems.cancel_at_work(place, job.job_id) == "was cancelled"
    assert list(installed.iterdir()) == []
    assert systems.cancel_at_work(place, job.job_id) == ""


def test_the_command_line_checks_its_connections(capsys, monkeypatch):
    options = parser().parse_args(["oscar", "check", "folder_default", "-o", "json"])
    options.func(options)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["check"], row["result"], row["detail"]) == ("list jobs", "ok", "0 jobs")
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "ftp"}))
    with pytest.raises(SystemExit, match="is of type 'ftp'; expected aws, dcache, folder, interlink, kubernetes, osc"):
        parser().parse_args(["oscar", "check", "other"]).func(parser().parse_args(["oscar", "check", "other"]))
