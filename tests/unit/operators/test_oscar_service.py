# SPDX-License-Identifier: Apache-2.0
"""Applying and deleting OSCAR services from a DAG."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.operators.oscar_service import OscarServiceOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import context

DEFINITION = ServiceDefinition(name="svc", image="python:3", script="#!/bin/sh\ntrue\n")


def test_service_operator_says_what_it_did(oscar):
    task = OscarServiceOperator(task_id="services", definition=DEFINITION)
    assert task.execute(context()) == {"svc": "updated"}
    assert ("PUT", "/system/services") in oscar.calls


def test_fdl_may_name_the_script_of_the_supervisor(oscar, monkeypatch):
    fdl = "functions: {oscar: [{c: {name: svc, image: 'python:3', script: '@supervisor'}}]}"
    task = OscarServiceOperator(task_id="services", fdl=fdl)
    (definition,) = task._definitions(context())
    assert "OSCAR_SUPERVISOR" in definition.script


def test_missing_script_is_named_with_its_folder(tmp_path):
    fdl = "functions: {oscar: [{c: {name: svc, image: 'python:3', script: run.sh}}]}"
    task = OscarServiceOperator(task_id="services", fdl=fdl, script_folder=str(tmp_path))
    with pytest.raises(AirflowFailException, match=r"cannot read the script 'run\.sh'.*set script_folder"):
        task.execute(context())


def test_services_are_deleted_only_with_a_clear_word(oscar):
    with pytest.raises(DefinitionError, match="delete_buckets=True"):
        OscarServiceOperator(task_id="services", service="svc", action="delete")
    task = OscarServiceOperator(task_id="services", service="svc", action="delete", delete_buckets=True)
    oscar.refuse["DELETE", "/system/services/svc"] = 404
    assert task.execute(context()) == {"svc": "absent"}


@pytest.mark.parametrize(
    "arguments", [{}, {"service": "x"}, {"fdl": "a", "definition": DEFINITION}, {"action": "x", "fdl": "a"}]
)
def test_contradicting_arguments_of_the_service_operator_are_refused(arguments):
    with pytest.raises(DefinitionError):
        OscarServiceOperator(task_id="services", **arguments)


TWO = """
functions:
  oscar:
  - cluster-a: {name: same, image: "img:a", script: "@supervisor"}
  - cluster-b: {name: same, image: "img:b", script: "@supervisor"}
"""


def test_cluster_that_has_no_connection_is_refused_before_anything_is_sent(oscar):
    task = OscarServiceOperator(task_id="services", fdl=TWO, clusters={"cluster-a": "oscar_default"})
    with pytest.raises(AirflowFailException, match="several clusters.*'cluster-b'.*no connection"):
        task.execute(context())
    assert oscar.calls == []


def test_each_cluster_has_its_own_connection(oscar, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER-B", "oscar://u:p@https%3A%2F%2Fb.test")
    monkeypatch.setenv("AIRFLOW_CONN_A", "oscar://u:p@https%3A%2F%2Fa.test")
    task = OscarServiceOperator(task_id="services", fdl=TWO, clusters={"cluster-a": "a"})
    assert task.execute(context()) == {"cluster-a/same": "updated", "cluster-b/same": "updated"}


def test_a_cluster_that_is_not_among_those_that_are_mapped_does_not_go_to_the_connection_of_the_task(oscar):
    fdl = "functions: {oscar: [{cluster-a: {name: svc, image: i, script: '@supervisor'}}]}"
    task = OscarServiceOperator(task_id="services", fdl=fdl, clusters={"clsuter-a": "oscar_default"})
    with pytest.raises(AirflowFailException, match="clusters are mapped, and 'cluster-a' of service 'svc' has no"):
        task.execute(context())
    assert oscar.calls == []


def test_a_connection_of_another_type_is_no_cluster(oscar, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER-B", "http://u:p@https%3A%2F%2Fb.test")
    task = OscarServiceOperator(task_id="services", fdl=TWO, clusters={"cluster-a": "oscar_default"})
    with pytest.raises(AirflowFailException, match="'cluster-b'.*no connection.*of type oscar"):
        task.execute(context())


def test_file_for_one_cluster_goes_to_the_connection_of_the_task(oscar):
    fdl = "functions: {oscar: [{somewhere: {name: svc, image: i, script: '@supervisor'}}]}"
    assert OscarServiceOperator(task_id="services", fdl=fdl).execute(context()) == {"svc": "updated"}


def test_dry_run_says_what_differs_and_sends_nothing(oscar):
    task = OscarServiceOperator(task_id="services", definition=DEFINITION, dry_run=True)
    assert "would be updated (cpu: None -> '0.2'" in task.execute(context())["svc"]
    assert {method for method, _ in oscar.calls} == {"GET"}


def test_value_of_a_parameter_cannot_add_fields_to_the_service(tmp_path):
    fdl = "functions: {oscar: [{c: {name: svc, image: '{{ params.image }}', script: '@supervisor'}}]}"
    task = OscarServiceOperator(task_id="services", fdl=fdl)
    seen = context() | {"params": {"image": "i:1"}}
    assert task._definitions(seen)[0].image == "i:1"
    with pytest.raises(DefinitionError, match="without blanks"):
        task._definitions(context() | {"params": {"image": "i'\n      enable_gpu: true"}})


TARGETS = [
    PlacementTarget(name="cloud", task_id="a", kind="oscar"),
    PlacementTarget(name="hpc", task_id="b", kind="oscar", node="vega"),
]


def test_one_workload_is_applied_once_for_each_target(oscar):
    task = OscarServiceOperator(task_id="services", definition=DEFINITION, targets=TARGETS, images={"hpc": "/a.sif"})
    assert set(task.execute(context())) == {"svc-cloud", "svc-hpc"}


def test_a_service_for_a_virtual_node_is_refused_where_oscar_offloads_nothing(oscar, monkeypatch):
    def nothing(self):
        return False
        yield

    monkeypatch.setattr(OscarHook, "offloads", nothing)
    with pytest.raises(AirflowFailException, match="svc-hpc would run in the cloud"):
        OscarServiceOperator(task_id="services", definition=DEFINITION, targets=TARGETS).execute(context())
    assert not [path for method, path in oscar.calls if method in ("POST", "PUT")]


def test_targets_are_for_one_workload_and_images_for_targets(oscar):
    with pytest.raises(AirflowFailException, match="for one workload"):
        OscarServiceOperator(task_id="services", fdl=TWO, targets=TARGETS).execute(context())
    with pytest.raises(DefinitionError, match="for its targets"):
        OscarServiceOperator(task_id="services", definition=DEFINITION, images={"hpc": "i"})
