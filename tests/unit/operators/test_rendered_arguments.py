# SPDX-License-Identifier: Apache-2.0
"""Results of other tasks as arguments: each templated one takes them, and what they turn out to be is looked at."""

from __future__ import annotations

import inspect

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException

import airflow_provider_oscar as public
from airflow_provider_oscar import (
    Explicit,
    InterLinkPodOperator,
    NewObjects,
    OscarBucketOperator,
    OscarDeleteServiceOperator,
    OscarInvokeOperator,
    OscarJobSensor,
    PlacementTarget,
    S3NewObjectSensor,
)
from airflow_provider_oscar.base_arguments import check_rendered
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.operators.choosing import make_request
from tests.support.fakes import EVENT, OUTPUT, context
from tests.support.operators import oscar_operator

HPC = PlacementTarget(name="hpc", kind="interlink", node="vk", capabilities={"gpu"})
POD = {"output_uri": OUTPUT, "image": "i", "command": ["x"]}
PLACED = {"targets": [HPC], "policy": Explicit()}
#: What each needs besides; of values that exclude each other, those that go with the argument.
OTHERS = {
    "BackfillObjectsOperator": {"asset": NewObjects("s3://in/").asset},
    "InterLinkBatchOperator": {**POD, "target": HPC},
    "InterLinkMaintenanceOperator": {"logs_uri": OUTPUT},
    "InterLinkPodOperator": {**POD, "target": HPC},
    "KubernetesJobOperator": POD,
    "OscarDeleteServiceOperator": {"delete_buckets": True},
    "OscarJobOperator": {"output_uri": OUTPUT, "command": ["x"]},
    "OscarServiceOperator": {"fdl": "f.yaml"},
    "PlacedJobOperator": {**PLACED, "make_task": lambda target, task_id, event: None},
    "PlacementBranchOperator": PLACED,
    "PlacementOfManyOperator": {**PLACED, "make_task": lambda target, task_id, event: None},
}
INSTEAD = {
    ("OscarJobOperator", "payload"): {"command": None},
    ("OscarServiceOperator", "service"): {"fdl": "", "action": "delete", "delete_buckets": True},
    ("InterLinkPodOperator", "script"): {"image": "", "command": None},
    ("InterLinkBatchOperator", "script"): {"image": "", "command": None},
}
#: They hold templates, and XCom does not carry them.
OWN_VALUES = ("target", "pod_options")
TEMPLATED = [
    (kind, name)
    for kind in public.__all__
    if kind.endswith(("Operator", "Sensor"))
    for name in getattr(public, kind).template_fields
    if name not in OWN_VALUES and name in inspect.signature(getattr(public, kind)).parameters
]


def made(kind, name, value):
    own = inspect.signature(getattr(public, kind)).parameters
    needed = {key: "x" for key, each in own.items() if each.default is each.empty and each.kind is each.KEYWORD_ONLY}
    return getattr(public, kind)(
        **{"task_id": "t", **needed, **OTHERS.get(kind, {}), **INSTEAD.get((kind, name), {}), name: value}
    )


@pytest.mark.parametrize(("kind", "name"), TEMPLATED, ids=lambda each: each)
def test_the_result_of_another_task_may_be_any_templated_argument(kind, name):
    with DAG("d", schedule=None):

        @task
        def found() -> str:
            return "x"

        assert made(kind, name, found()).upstream_task_ids == {"found"}


@pytest.mark.parametrize("name", OWN_VALUES)
def test_what_xcom_does_not_carry_is_refused_in_the_dag_file(name):
    with DAG("d", schedule=None):

        @task
        def found() -> str:
            return "x"

        with pytest.raises(DefinitionError, match=f"{name} of task 't' is XComArg.*; expected P"):
            made("InterLinkPodOperator", name, found())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "command",
            "python3 infer.py",
            r"command of task 'infer' is 'python3 infer.py'; expected a list or None",
        ),
        ("command", ["python3", None], "command of task 'infer' has None as word 2"),
        ("command", None, "exactly one of command, payload and event_format"),
        ("environment", {"A": None}, "environment of task 'infer' has A=None"),
        ("environment", {"A": {"x"}}, "environment of task 'infer' has A={'x'}, whose order is chance"),
        ("command", ["x", {"y"}], "command of task 'infer' has {'y'} as word 2"),
        ("environment", ["A=1"], r"environment of task 'infer' is \['A=1'\]; expected Mapping or None"),
        ("service", None, "service of task 'infer' is None; expected str"),
        ("service", "None", "service of task 'infer' is 'None', so what its template names has no value"),
        ("output_uri", ["s3://b"], r"output_uri of task 'infer' is \['s3://b'\]; expected str"),
    ],
)
def test_what_arguments_turn_out_to_be_is_refused_before_a_job_is_submitted(oscar, supervisor, name, value, message):
    ready = oscar_operator(deferrable=False)
    setattr(ready, name, value)  # as Airflow does when it renders
    with pytest.raises(AirflowFailException, match=message):
        ready.execute(context())
    assert not oscar.jobs


def test_a_payload_that_turns_out_to_be_none_is_not_taken_for_a_command(oscar):
    ready = oscar_operator(command=None, object_event=None, payload="{{ ti.xcom_pull('found') }}")
    ready.payload = None
    with pytest.raises(AirflowFailException, match="exactly one of command, payload and event_format"):
        ready.execute(context())
    assert not oscar.jobs


def test_a_number_that_native_rendering_makes_of_a_text_is_a_text_again():
    ready = S3NewObjectSensor(task_id="t", bucket="b", prefix="{{ ds_nodash }}", suffix="{{ params.part }}")
    ready.prefix, ready.suffix = 20261130, True
    with pytest.raises(DefinitionError, match="suffix of task 't' is True; expected str"):
        check_rendered(ready)
    assert ready.prefix == "20261130"


def test_an_environment_that_turns_out_to_be_none_is_an_empty_one(oscar, supervisor):
    ready = oscar_operator(deferrable=False)
    ready.environment = None
    ready.check_rendered()
    assert ready.environment == {}


@pytest.mark.parametrize(("name", "value"), [("image", "None"), ("image", None), ("command", "python3 train.py")])
def test_a_pod_is_made_of_no_wrong_arguments_either(cluster, supervisor, name, value):
    ready = InterLinkPodOperator(task_id="t", object_event=EVENT, target=HPC, **POD)
    setattr(ready, name, value)
    with pytest.raises(AirflowFailException, match=f"{name} of task 't' is {value!r}"):
        ready.execute(context())
    assert not cluster.pods


@pytest.mark.parametrize(
    ("ready", "name", "value"),
    [
        (OscarInvokeOperator(task_id="t", service="s"), "payload", None),
        (OscarDeleteServiceOperator(task_id="t", service="s", delete_buckets=True), "service", "None"),
        (OscarBucketOperator(task_id="t", bucket="b"), "users", "a@egi.eu"),
        (OscarJobSensor(task_id="t", service="s", job_id="j"), "job_id", "None"),
        (S3NewObjectSensor(task_id="t", bucket="b"), "bucket", None),
    ],
    ids=lambda each: getattr(each, "task_type", None),
)
def test_other_operators_and_sensors_look_before_they_ask_anybody(ready, name, value):
    setattr(ready, name, value)
    with pytest.raises(AirflowFailException, match=f"{name} of task 't' is {value!r}"):
        ready.execute(context())


@pytest.mark.parametrize(
    ("given", "wanted"), [("gpu", {"gpu"}), (["gpu", "large"], {"gpu", "large"}), (None, set()), ("", set())]
)
def test_required_capabilities_may_turn_out_to_be_one_or_none(given, wanted):
    assert make_request(None, "", given).requires == wanted
