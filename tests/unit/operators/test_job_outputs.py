# SPDX-License-Identifier: Apache-2.0
"""Outputs by pattern as an argument: what reaches the job, what is another request, and who is told where files are."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.output_rules import OutputRule
from airflow_provider_oscar.decorators import collection
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.interlink_batch import InterLinkBatchOperator
from airflow_provider_oscar.operators.job_outputs import PLACES, described, output_rules, reached, returned
from airflow_provider_oscar.operators.kubernetes import KubernetesJobOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import OUTPUT, manifest
from tests.support.operators import oscar_operator

OPERATORS = [InterLinkPodOperator, InterLinkBatchOperator, KubernetesJobOperator, OscarJobOperator]
OUTPUTS = {"*.png": {"uri": "s3://pictures/x", "conn_id": "other"}, "raw/*": "dcache://door/archive", "c": OUTPUT + "/"}


def test_rules_have_connections_and_the_jobs_own_place_has_no_uri():
    task = oscar_operator(outputs=OUTPUTS)
    assert output_rules(task) == (
        OutputRule("*.png", "s3://pictures/x", "other"),
        OutputRule("raw/*", "dcache://door/archive", "door"),
        OutputRule("c", "", "oscar_s3_default"),
    )


def test_rules_are_another_request_and_their_absence_is_the_old_one():
    plain = oscar_operator().request()
    assert oscar_operator(outputs={}).request() == oscar_operator(outputs=None).request() == plain
    assert "outputs" not in plain
    assert oscar_operator(outputs=OUTPUTS).request() != oscar_operator(outputs={"*": "s3://pictures/x"}).request()


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_job_operator_renders_places_and_keeps_their_order(operator):
    assert "outputs" in operator.template_fields
    common = {"task_id": "t", "output_uri": OUTPUT, "command": ["x"], "outputs": {"*.b": "s3://b/{{ ds }}", "*.a": ""}}
    if operator is OscarJobOperator:
        common["service"] = "s"
    else:
        common["image"] = "docker://i"
    if operator in (InterLinkPodOperator, InterLinkBatchOperator):
        common["target"] = PlacementTarget(name="hpc", task_id="t", kind="interlink", node="vk")
    with DAG("d", schedule=None):
        task = operator(**common)
    task.render_template_fields({"ds": "2026-11-29"})
    assert [(each.pattern, each.uri) for each in output_rules(task)] == [("*.b", "s3://b/2026-11-29"), ("*.a", "")]


def test_one_place_with_two_connections_is_refused():
    twice = {"a": {"uri": "s3://p/x", "conn_id": "one"}, "b": {"uri": "s3://p/x/", "conn_id": "two"}}
    with pytest.raises(DefinitionError, match="by the connections 'one' and 'two'; use one"):
        output_rules(oscar_operator(outputs=twice))


def test_a_wrong_rule_is_refused_in_the_dag_file():
    with pytest.raises(DefinitionError, match="outputs of task 'infer', pattern '\\*'"):
        oscar_operator(outputs={"*": "https://host/x"})


def test_rules_need_a_place_for_log_and_manifest():
    task = oscar_operator(output_uri="", command=None, payload={}, object_event=None, outputs={"*": "s3://p/x"})
    with pytest.raises(DefinitionError, match="outputs and no output_uri"):
        output_rules(task)


def test_a_function_gets_its_value_back_whatever_the_patterns_say():
    @collection.oscar_task(service="s", output_uri=OUTPUT, outputs={"*": "s3://elsewhere/x"})
    def f():
        return 1

    with DAG("d", schedule=None):
        task = f().operator
    rules = output_rules(task)
    assert [(each.pattern, each.uri) for each in rules] == [
        ("return_value.json", ""), ("exception.json", ""), ("*", "s3://elsewhere/x"),
    ]  # fmt: skip


def found(*outputs):
    whole = manifest("infer-0123456789abcdef").to_dict()
    from airflow_provider_oscar.jobs.manifest import Manifest

    return Manifest.from_dict({**whole, "outputs": [{"size": 1, "sha256": "", **each} for each in outputs]})


def test_the_task_returns_connections_of_its_own_places_and_of_no_other():
    task = oscar_operator(outputs=OUTPUTS)
    job = "infer-0123456789abcdef"
    own = f"s3://pictures/x/{job}/"
    done = found(
        {"key": "a.png", "uri": own},
        {"key": "raw/b", "uri": f"dcache://door/archive/{job}/"},
        {"key": "c"},
        {"key": "forged", "uri": f"s3://secrets/x/{job}/"},
    )
    assert returned(task, done)[PLACES] == [
        {"uri": f"dcache://door/archive/{job}/", "conn_id": "door"},
        {"uri": own, "conn_id": "other"},
    ]
    assert PLACES not in returned(oscar_operator(), found({"key": "c"}))
    told = described(
        [{"key": each.key, "sha256": "", "uri": each.uri} for each in done.outputs[:3]],
        (done.output_uri, "mine"),
        dict(reached(task, {each.uri for each in done.outputs if each.uri})),
    )
    assert [(each["uri"].rpartition("/")[2], each["conn_id"]) for each in told] == [
        ("a.png", "other"), ("b", "door"), ("c", "mine"),
    ]  # fmt: skip
