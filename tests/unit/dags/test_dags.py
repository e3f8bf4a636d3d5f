# SPDX-License-Identifier: Apache-2.0
"""The DAG files engineers start from: they import with no connection defined, and tell the story they promise."""

from __future__ import annotations

import ast
import importlib.util
import json
from copy import deepcopy
from pathlib import Path
from types import ModuleType

import pytest
from airflow.sdk.exceptions import ParamValidationError

from airflow_provider_oscar.placement.targets import PlacementRequest
from tests.support.dag_files import FOLDER, load

FILES = sorted(FOLDER.glob("[!_]*.py"))
LONGEST = 180


def expectations(path: Path) -> dict[str, list[str]]:
    """Read the literal EXPECT_* constants without importing the file."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id.startswith("EXPECT_")
    }


@pytest.fixture(scope="module")
def inference() -> ModuleType:
    return load("threedgan_inference")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_says_what_it_solves_and_its_examples_are_marked(path):
    text = path.read_text()
    starts = [line.split("[START ")[1].rstrip("]") for line in text.splitlines() if "# [START " in line]
    ends = [line.split("[END ")[1].rstrip("]") for line in text.splitlines() if "# [END " in line]
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(ast.parse(text))
    assert starts == ends
    assert starts
    assert len(text.splitlines()) <= LONGEST


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_imports_without_connections_and_defines_the_dags_it_promises(path):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(path))
    assert bag.import_errors == {}
    assert sorted(bag.dags) == sorted(expectations(path)["EXPECT_DAGS"])
    if path.stem.startswith("threedgan"):
        assert all(dag.doc_md and dag.description and "3dgan" in dag.tags for dag in bag.dags.values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dag_survives_serialisation(path):
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    for dag in DagBag(dag_folder=str(path)).dags.values():
        restored = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
        assert set(restored.task_dict) == set(dag.task_dict)


def test_inference_makes_one_run_per_new_object(inference):
    from airflow_provider_oscar.ingest.policies import Each

    assert inference.dag.timetable.policy == Each()
    assert [asset.name for asset in inference.incoming.assets] == [
        "s3://threedgan/in/*.h5",
        "dcache://dcache_default/data/threedgan/in/*.h5",
    ]
    assert inference.dag.max_active_runs == 8


def test_graph_tells_the_story(inference):
    dag = inference.dag
    boxes = {"infer.cloud_cpu", "infer.hpc_cpu", "infer.hpc_gpu"}
    assert set(dag.task_dict) == {"infer.choose", *boxes, "infer.elsewhere", "infer.result"}
    assert dag.task_dict["infer.choose"].downstream_task_ids == boxes
    result = dag.task_dict["infer.result"]
    assert result.upstream_task_ids == {*boxes, "infer.elsewhere"}
    assert [asset.name for asset in result.outlets] == ["threedgan_results"]
    assert all((task.retries, task.retry_exponential_backoff) == (5, 2) for task in dag.tasks)


def test_pipeline_is_about_forty_lines():
    path = FOLDER / "threedgan_inference.py"
    lines = {
        number
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign | ast.With)
        for number in range(node.lineno, node.end_lineno + 1)
    }
    assert len(lines) <= 75, "settings, targets and the DAG itself"


def test_every_target_can_be_chosen_by_param(inference):
    assert [target.name for target in inference.targets] == inference.EXPECT_TARGETS
    assert inference.dag.params.get_param("target").schema["enum"] == ["auto", *inference.EXPECT_TARGETS]
    inference.dag.params.validate()


@pytest.mark.parametrize(
    ("uri", "good"),
    [
        (None, True),
        ("s3://bucket/a.h5", True),
        ("s3://bucket/in/a%20b.h5", True),
        ("dcache:///data/a.h5", True),
        ("dcache://conn/data/a.h5", True),
        ("", False),
        ("a.h5", False),
        ("s3://bucket", False),
        ("s3://bucket/in/", False),
        ("http://host/a.h5", False),
        ("s3://bucket/a b.h5", False),
    ],
)
def test_the_trigger_form_says_at_once_what_object_is_not_one(inference, uri, good):
    param = deepcopy(inference.dag.params.get_param("object_uri"))
    if good:
        assert param.resolve(uri) == uri
    else:
        with pytest.raises(ParamValidationError):
            param.resolve(uri)


@pytest.mark.parametrize(
    ("request_", "target"),
    [
        (PlacementRequest(key="in/a.h5", source="s3", size=700_000), "cloud-cpu"),
        (PlacementRequest(key="in/a.h5", source="s3", size=2_000_000), "hpc-gpu"),
        (PlacementRequest(key="a.h5", source="dcache", size=700_000), "hpc-cpu"),
        (PlacementRequest(key="a.h5", source="dcache", size=5_000_000), "hpc-cpu"),
        (PlacementRequest(key="in/a.h5", source="s3", size=None), "cloud-cpu"),
        (PlacementRequest(key="in/a.h5", source="s3", size=1, target="hpc-gpu"), "hpc-gpu"),
    ],
    ids=["small", "large", "dcache", "large-dcache", "unknown-size", "forced"],
)
def test_file_decides_the_place_unless_a_user_does(inference, request_, target):
    assert inference.policy.decide(request_, inference.targets).target.name == target


def test_jobs_are_told_what_the_payload_understands(inference):
    from threedgan.cli import build_parser, read_settings

    accelerators = {"infer.cloud_cpu": "cpu", "infer.hpc_cpu": "cpu", "infer.hpc_gpu": "cuda"}
    for task_id, provider in accelerators.items():
        task = inference.dag.task_dict[task_id]
        assert task.command[0] == "threedgan"
        told = {
            **task.environment,
            "BATCH_SIZE": "4",
            "THREEDGAN_PICTURE": "false",
            "INPUT_FILE_PATH": "/i/a.h5",
            "TMP_OUTPUT_DIR": "/o",
        }
        settings = read_settings(build_parser().parse_args(task.command[1:]), told)
        assert (settings.batch_size, settings.provider, settings.picture) == (4, provider, False)


def test_both_places_are_watched_from_the_first_file_on(inference):
    for asset in inference.incoming.assets:
        arguments = asset.watchers[0].trigger.serialize()[1]
        assert arguments["asset_name"] == asset.name
        assert arguments["start"] == "all"
        assert ".h5" in json.dumps(arguments)


def test_places_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("THREEDGAN_BUCKET", "mine")
    monkeypatch.setenv("THREEDGAN_PREFIX", "here/")
    monkeypatch.setenv("THREEDGAN_DCACHE_PATH", "/there")
    monkeypatch.setenv("THREEDGAN_POLL_INTERVAL", "2")
    assets = load("threedgan_inference").incoming.assets
    s3, dcache = (asset.watchers[0].trigger.serialize()[1] for asset in assets)
    assert (s3["bucket"], s3["prefix"], s3["poll_interval"]) == ("mine", "here/", 2.0)
    assert (dcache["path"], dcache["poll_interval"]) == ("/there", 2.0)


def test_service_is_what_the_inference_dag_submits_to(inference):
    from jinja2 import Template

    from airflow_provider_oscar.core.fdl import from_fdl

    module = load("threedgan_service")
    (apply,) = module.dag.tasks
    params = module.dag.params.dump()
    text = (FOLDER / apply.fdl).read_text()
    (service,) = from_fdl(
        text, lambda path: f"script {path}", fill_in=lambda value: Template(value).render(params=params)
    )
    assert service.name == inference.dag.task_dict["infer.cloud_cpu"].service
    assert service.image == inference.dag.task_dict["infer.hpc_cpu"].image
    assert service.script == "script @supervisor"


SCHEDULES = {
    "schedule_each": "each",
    "schedule_batch": "batch",
    "schedule_group": "group",
    "schedule_mapped": "batch",
    "schedule_places": "each",
    "schedule_files": "each",
    "schedule_chain_first": "each",
    "schedule_chain_second": "each",
    "schedule_asset": "AssetTriggeredTimetable",
    "schedule_asset_any": "AssetTriggeredTimetable",
    "schedule_asset_all": "AssetTriggeredTimetable",
    "schedule_asset_or_time": "AssetOrTimeSchedule",
}


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem.startswith("schedule_")], ids=lambda path: path.stem
)
def test_each_example_has_the_schedule_of_its_name_and_needs_no_stub(path):
    from airflow.dag_processing.dagbag import DagBag

    for dag_id, dag in DagBag(dag_folder=str(path)).dags.items():
        policy = getattr(dag.timetable, "policy", None)
        assert (policy.kind if policy else type(dag.timetable).__name__) == SCHEDULES[dag_id]
        assert dag.tasks
        assert not [task.task_id for task in dag.tasks if task.task_type == "EmptyOperator"]


def test_there_is_an_example_for_every_schedule():
    assert {dag_id for path in FILES for dag_id in expectations(path)["EXPECT_DAGS"]} >= set(SCHEDULES)
    assert len(SCHEDULES) == len([path for path in FILES if path.stem.startswith("schedule_")]) + 1


def test_examples_are_importable_from_the_package():
    for path in FILES:
        assert importlib.util.find_spec(f"airflow_provider_oscar.example_dags.{path.stem}")
