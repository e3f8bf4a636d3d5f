# SPDX-License-Identifier: Apache-2.0
"""An imported DCNiOS workflow does its work: files become jobs of an OSCAR service, and messages become objects."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oscar_testbed.platform import LocalPlatform

from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.ingest.dcnios.mapping import plan_workflow
from airflow_provider_oscar.ingest.dcnios.rendering import render
from airflow_provider_oscar.ingest.dcnios.report import Report
from airflow_provider_oscar.ingest.dcnios.sources import SourceOptions
from airflow_provider_oscar.ingest.dcnios.workflow import read_workflow
from tests.integration.jobs.conftest import IMAGE

# Airflow's in-process API server and triggerer warn about their own dependencies.
pytestmark = pytest.mark.filterwarnings("default")
SERVICE = "show-input"
SCRIPT = 'echo "begin of input"; cat "$INPUT_FILE_PATH"; echo; echo "end of input"\n'


@pytest.fixture
def service(platform: LocalPlatform) -> str:
    """A service whose script shows its input; it knows nothing of Airflow."""
    hook = OscarHook()
    hook.run(hook.apply_service(ServiceDefinition(name=SERVICE, image=IMAGE, script=SCRIPT)))
    return SERVICE


@pytest.fixture
def imported(
    airflow_db: Path, platform: LocalPlatform, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Import a workflow of one source and one destination; return a function that runs its DAG for an object."""

    def load(destination: dict[str, Any], *alterations: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
        kind = "PutS3" if "AWS_S3_BUCKET" in destination else "OSCAR"
        source = {"name": "in", "topic": "files", "alterations": list(alterations)}
        body = {
            "Source": {"Kafka": [source]},
            "Destination": {kind: [{"name": "out", **destination}]},
            "connection": [{"from": "in", "to": "out"}],
        }
        report = Report()
        options = SourceOptions(places={"in": "s3://incoming/"})
        plan = plan_workflow(read_workflow({"nifi": body}, report), report, options)
        (tmp_path / "made.py").write_text(render(plan))
        for each in plan.connections:
            text = json.dumps({name: value for name, value in each.to_json().items() if value is not None})
            monkeypatch.setenv(f"AIRFLOW_CONN_{each.conn_id.upper()}", text)
        spec = importlib.util.spec_from_file_location("made_of_dcnios", tmp_path / "made.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return lambda uri: run(module, uri)

    return load


def run(module: Any, uri: str) -> dict[str, Any]:
    """Run the only DAG of a module for an object, as a person would start it; return what its tasks returned."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.xcom import XComModel
    from airflow.sdk import DAG
    from airflow.utils.session import create_session
    from sqlalchemy import select

    bag = DagBag(dag_folder=module.__file__)
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    assert isinstance(dag, DAG)
    for task in dag.tasks:
        task.retries = 0  # what fails is to be seen at once
        if hasattr(task, "poll_interval"):
            task.poll_interval = 0.3
            task.deferrable = False
    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(bag, "dags-folder", None)
    result = dag.test(run_conf={"object_uri": uri})
    states = {each.task_id: str(each.state) for each in result.get_task_instances()}
    assert set(states.values()) == {"success"}, states
    with create_session() as session:
        rows = session.scalars(select(XComModel).where(XComModel.run_id == result.run_id)).all()
        returned = {row.task_id: XComModel.deserialize_value(row) for row in rows if row.key == "return_value"}
    return {**returned, "run_id": result.run_id}


def oscar(platform: LocalPlatform, **more: str) -> dict[str, str]:
    """The destination that the workflow names, with the login of the embedded OSCAR."""
    fields = platform.connections["oscar_default"]
    login = {"user": fields["login"], "password": fields["password"]}
    return {"endpoint": fields["host"], "service": SERVICE, **(more or login)}


def shown(job: str) -> str:
    """What the service's script saw as its input."""
    hook = OscarHook()
    log = hook.run(hook.job_log(SERVICE, job)) or ""
    return log.partition("begin of input\n")[2].partition("\nend of input")[0]


def test_a_file_becomes_a_job_that_gets_it(imported, platform):
    OscarS3Hook().put_bytes("incoming", "a b.txt", b"content")
    made = imported(oscar(platform))("s3://incoming/a%20b.txt")["invoke"]
    assert made["proof"] == "observed"
    assert shown(made["submission_id"]) == "content"


def test_a_merged_and_encoded_message_is_a_file_with_a_line_for_each_object(imported, platform):
    OscarS3Hook().put_bytes("incoming", "merged.txt", b"content")
    steps = {"action": "Merge", "maxMessages": 10, "windowSeconds": 7}, {"action": "Encode", "Encoding": "base64"}
    made = imported(oscar(platform), *steps)("s3://incoming/merged.txt")["invoke"]
    (line,) = shown(made["submission_id"]).splitlines()
    record = json.loads(line)["Records"][0]
    assert (record["s3"]["bucket"]["name"], record["s3"]["object"]["key"]) == ("incoming", "merged.txt")


def test_a_message_is_written_to_a_bucket(imported, platform):
    OscarS3Hook().put_bytes("incoming", "put.txt", b"content")
    fields = platform.connections["oscar_s3_default"]
    destination = {
        "AWS_S3_BUCKET": "outgoing",
        "MinIO_Endpoint": fields.get("host") or fields["extra"]["endpoint_url"],
        "AWS_ACCESS_KEY_ID": fields["login"],
        "AWS_SECRET_ACCESS_KEY": fields["password"],
    }
    done = imported(destination, {"action": "Encode", "Encoding": "hex"})("s3://incoming/put.txt")
    written = OscarS3Hook().read_bytes(f"s3://outgoing/{done['run_id'].replace('+', '%2B')}", 10_000)
    assert json.loads(bytes.fromhex(written.decode()))["Records"][0]["s3"]["object"]["key"] == "put.txt"
