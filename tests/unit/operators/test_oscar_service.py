# SPDX-License-Identifier: Apache-2.0
"""Applying and deleting OSCAR services from a DAG."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.operators.oscar_service import OscarServiceOperator
from tests.support.fakes import context

DEFINITION = ServiceDefinition(name="svc", image="python:3", script="#!/bin/sh\ntrue\n")


def test_service_operator_says_what_it_did(oscar):
    task = OscarServiceOperator(task_id="services", definition=DEFINITION)
    assert task.execute(context()) == {"svc": "updated"}
    assert ("PUT", "/system/services") in oscar.calls


def test_fdl_may_name_the_script_of_the_supervisor(oscar, monkeypatch):
    fdl = "functions: {oscar: [{c: {name: svc, image: 'python:3', script: '@supervisor'}}]}"
    task = OscarServiceOperator(task_id="services", fdl=fdl)
    (definition,) = task._definitions()
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
