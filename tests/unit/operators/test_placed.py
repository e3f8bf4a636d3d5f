# SPDX-License-Identifier: Apache-2.0
"""One declaration makes the choice, the job tasks and the join."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar import placed, placement_param
from airflow_provider_oscar.core.errors import DefinitionError, LostContactError
from airflow_provider_oscar.operators.job_state import parse_object_event
from airflow_provider_oscar.placement.learned import FastestFinish
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import EVENT, OUTPUT, context

CLOUD = PlacementTarget(name="cloud-cpu", kind="oscar")
HPC = PlacementTarget(name="hpc-gpu", kind="interlink", node="leonardo", environment={"ACCELERATOR": "gpu"})
POD = PlacementTarget(name="pod", kind="kubernetes")


def group(**arguments):
    with DAG("dag", schedule=None) as dag:
        given = {"targets": [CLOUD, HPC, POD], "command": ["x"], "output_uri": OUTPUT, "service": "svc", "image": "i"}
        made = placed("infer", **given | arguments)
    return dag, made


def test_each_target_is_a_box_between_choice_and_result():
    dag, made = group()
    boxes = {"infer.cloud_cpu", "infer.hpc_gpu", "infer.pod"}
    assert dag.task_dict["infer.choose"].downstream_task_ids == boxes
    assert dag.task_dict["infer.result"].upstream_task_ids >= boxes
    assert made.operator.task_id == "infer.result"
    assert {dag.task_dict[each].task_type for each in boxes} == {
        "OscarJobOperator",
        "InterLinkPodOperator",
        "KubernetesJobOperator",
    }
    assert {target.task_id for target in dag.task_dict["infer.choose"].targets} == boxes
    assert isinstance(dag.task_dict["infer.choose"].policy, FastestFinish)


def test_what_a_target_needs_otherwise_overrides_what_all_get():
    dag, _ = group(environment={"ACCELERATOR": "cpu", "BATCH": "4"}, retries=3)
    assert dag.task_dict["infer.cloud_cpu"].environment == {"ACCELERATOR": "cpu", "BATCH": "4"}
    assert dag.task_dict["infer.hpc_gpu"].environment == {"ACCELERATOR": "gpu", "BATCH": "4"}
    assert all(task.retries == 3 for task in dag.tasks)


def test_arguments_of_the_job_tasks_reach_them():
    dag, _ = group(queue_timeout=60, output_conn_id="other")
    task = dag.task_dict["infer.hpc_gpu"]
    assert (task.queue_timeout, task.output_conn_id) == (60, "other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"service": ""}, "'cloud-cpu' is of kind 'oscar'; say which service"),
        ({"image": ""}, "'hpc-gpu' is of kind 'interlink'; say which image"),
        ({"targets": [CLOUD, CLOUD]}, "targets with different names"),
        (
            {"targets": [PlacementTarget(name="q", kind="quantum")]},
            "is 'quantum'; expected one of interlink",
        ),
    ],
    ids=["service", "image", "twins", "kind"],
)
def test_what_is_missing_is_said_in_the_dag_file(arguments, message):
    with pytest.raises(DefinitionError, match=message):
        group(**arguments)


def choose(dag, state, **force):
    task = dag.task_dict["infer.choose"]
    task.object_event = EVENT
    task.observe = False
    task.force = force.get("force", "")
    return task.choose_branch(state)


def test_the_job_gets_the_object_as_it_was_when_the_choice_was_made():
    dag, _ = group()
    state = context()
    assert choose(dag, state, force="hpc-gpu") == "infer.hpc_gpu"
    pulled = {("infer.choose", "decision"): json.loads(json.dumps(state["ti"].xcoms["decision"]))}
    state["ti"].xcom_pull = lambda task_ids, key="return_value", map_indexes=None: pulled.get((task_ids, key))
    task = dag.task_dict["infer.hpc_gpu"]
    rendered = task.render_template(task.object_event, state)
    assert parse_object_event(rendered) == parse_object_event(EVENT)


def test_what_a_sensor_returns_is_an_object_if_it_is_one():
    assert parse_object_event([EVENT]) == parse_object_event(str([EVENT])) == parse_object_event(EVENT)
    for several in ([], [EVENT, EVENT]):
        with pytest.raises(DefinitionError, match=rf"a list of {len(several)} objects.*expand\(object_event"):
            parse_object_event(several)


def test_a_run_without_an_object_is_refused_where_it_is_chosen():
    dag, _ = group()
    with pytest.raises(AirflowFailException, match="this run is about no object"):
        dag.task_dict["infer.choose"].choose_branch(context())


def test_a_command_without_input_is_placed_as_well():
    dag, _ = group(object_event="", policy=FastestFinish(explore_every=0))
    task = dag.task_dict["infer.choose"]
    task.observe, task.force = False, ""
    state = context()
    assert task.choose_branch(state).startswith("infer.")
    assert state["ti"].xcoms["decision"]["object"] is None


class Events(dict):
    def __missing__(self, key):
        self[key] = type("Event", (), {"extra": {}})()
        return self[key]


def test_result_says_what_was_made_of_what_where_and_why_and_tells_the_asset():
    asset = Asset("showers")
    dag, _ = group(outlets=[asset])
    result = dag.task_dict["infer.result"]
    decision = {"target": "hpc-gpu", "task_id": "infer.hpc_gpu", "reasons": ["near"]}
    manifest = {
        "submission_id": "j", "placement": "hpc-gpu", "input": {"uri": "s3://in/a"}, "output_uri": "s3://out/j/",
        "metrics": {"showers": 4}, "device": "cpu", "phases": {},
        "outputs": [{"key": "a b.h5", "sha256": "aa"}],
    }  # fmt: skip
    state = context()
    told = {("infer.choose", "decision"): decision, ("infer.hpc_gpu", "return_value"): manifest}
    state["ti"].xcom_pull = lambda task_ids, key="return_value", map_indexes=None: told.get((task_ids, key))
    state["outlet_events"] = Events()
    summary = result.execute(state)
    assert summary["object"] == {"uri": "s3://in/a"}
    assert (summary["target"], summary["reasons"]) == ("hpc-gpu", ["near"])
    assert (summary["output_uri"], summary["metrics"]) == ("s3://out/j/", {"showers": 4})
    told_on = [{"uri": "s3://out/j/a%20b.h5", "conn_id": "oscar_s3_default", "sha256": "aa"}]
    assert state["outlet_events"][asset].extra == {**summary, "objects": told_on}
    told.clear()
    with pytest.raises(LostContactError, match="finds no result"):
        result.execute(state)


def test_the_trigger_form_offers_the_targets():
    param = placement_param([CLOUD, HPC], {"hpc-gpu": "Supercomputer"})
    assert param.schema["enum"] == ["auto", "cloud-cpu", "hpc-gpu"]
    assert param.schema["values_display"]["hpc-gpu"] == "Supercomputer"
    assert param.resolve() == "auto"
