# SPDX-License-Identifier: Apache-2.0
"""Operators and sensors refuse what their constructors do not declare, while the DAG file is parsed."""

from __future__ import annotations

import inspect
from datetime import timedelta

import pytest
from airflow.sdk import DAG, task

import airflow_provider_oscar as public
from airflow_provider_oscar import InterLinkBatchOperator, InterLinkPodOperator, OscarJobOperator, PlacementTarget
from airflow_provider_oscar.core.errors import DefinitionError

TARGET = PlacementTarget(name="hpc", kind="interlink", node="vk")
POD = {"task_id": "t", "output_uri": "s3://b/", "image": "i", "command": ["x"], "target": TARGET}
TASKS = [name for name in public.__all__ if name.endswith(("Operator", "Sensor"))]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("image", 5, "image of task 't' is 5; expected str"),
        ("command", "python3 x.py", r"command of task 't' is 'python3 x.py'; expected a list or None, such as \['pyth"),
        ("command", "{{ params.command }}", "expected a list or None"),
        ("target", "hpc", "target of task 't' is 'hpc'; expected PlacementTarget"),
        ("timeout", "soon", "timeout of task 't' is 'soon'; expected timedelta or float or None"),
        ("deferrable", "yes", "expected bool"),
        ("reuse", "often", "expected one of 'retries', 'always', 'never'"),
        ("keep_pod", "yes", "expected one of 'never', 'on_failure', 'always'"),
        ("environment", ["A=1"], "expected Mapping or None"),
        ("run_options", {"launcher": "srun"}, "expected RunOptions or None"),
        ("namespace", 3, "expected str or None"),
    ],
)
@pytest.mark.parametrize("kind", [InterLinkPodOperator, InterLinkBatchOperator])
def test_a_value_of_another_type_is_refused_with_task_argument_and_what_was_expected(kind, name, value, expected):
    with pytest.raises(DefinitionError, match=expected):
        kind(**{**POD, name: value})


@pytest.mark.parametrize("kind", [InterLinkPodOperator, InterLinkBatchOperator])
def test_a_misspelt_argument_is_refused_by_name(kind):
    with pytest.raises(TypeError, match="imge"):
        kind(**POD, imge="x")


@pytest.mark.parametrize("kind", [InterLinkPodOperator, InterLinkBatchOperator])
def test_a_place_of_results_that_is_none_is_refused_when_the_file_is_parsed(kind):
    with pytest.raises(DefinitionError, match="output_uri of task 't' is 'results/'; expected s3://bucket/prefix"):
        kind(**{**POD, "output_uri": "results/"})
    assert kind(**{**POD, "output_uri": "{{ params.results }}"}).output_uri == "{{ params.results }}"


def test_templates_and_results_of_other_tasks_are_taken_for_templated_arguments_alone():
    with DAG("d", schedule=None):

        @task
        def words() -> list[str]:
            return ["x"]

        found = InterLinkPodOperator(**{**POD, "command": words(), "namespace": "{{ params.namespace }}"})
        assert found.upstream_task_ids == {"words"}
        with pytest.raises(DefinitionError, match="timeout of task 't2'"):
            InterLinkPodOperator(**{**POD, "task_id": "t2", "timeout": words()})


@pytest.mark.parametrize("name", TASKS)
def test_every_constructor_checks_the_types_of_its_arguments(name):
    kind = getattr(public, name)
    own = inspect.signature(kind).parameters
    given = {key: "x" for key, each in own.items() if each.default is each.empty and key != "kwargs"}
    flag = next((key for key, each in own.items() if each.annotation == "bool"), None)
    key, value = (flag, "yes") if flag else (next(key for key in own if "str" in str(own[key].annotation)), 5)
    with pytest.raises(DefinitionError, match=r"of task '[tx]' is .*; expected"):
        kind(**{"task_id": "t", **given, key: value})


@pytest.mark.parametrize("name", TASKS)
def test_every_duration_may_be_seconds_or_a_timedelta(name):
    for key, each in inspect.signature(getattr(public, name)).parameters.items():
        if key.endswith(("timeout", "interval", "period", "lifetime", "delay")):
            assert str(each.annotation).startswith("timedelta | float"), key


def test_a_duration_is_kept_as_seconds():
    assert OscarJobOperator(task_id="t", service="s", payload="x", poll_interval=timedelta(minutes=1)).interval == 60


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"execution_timeout": timedelta(hours=2)}, 7200),
        ({"execution_timeout": timedelta(hours=2), "timeout": 60}, 60),
        ({"execution_timeout": timedelta(hours=2), "deferrable": False}, 86_400),
        ({}, 86_400),
    ],
    ids=["alone", "longer", "Airflow sees to it", "none"],
)
def test_airflow_s_own_limit_ends_a_job_that_is_waited_for_in_the_triggerer(given, seconds):
    assert OscarJobOperator(task_id="t", service="s", payload="x", **given).timeout_seconds() == seconds
