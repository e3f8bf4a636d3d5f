# SPDX-License-Identifier: Apache-2.0
"""``@task.interlink``."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.decorators.interlink import interlink_command_task
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import OUTPUT, context

pytestmark = pytest.mark.usefixtures("cluster")


def made(function, *args, **arguments):
    target = PlacementTarget(name="hpc", task_id="count", kind="interlink", node="vk")
    wanted = {"image": "docker://python:3", "output_uri": OUTPUT, "target": target}
    with DAG("dag", schedule=None) as dag:
        interlink_command_task(function, **wanted | arguments)(*args)
    return dag.get_task(function.__name__)


def test_function_composes_the_command_from_arguments_and_context(supervisor):
    def count(letter: str, run_id=None) -> list[str]:
        return ["python3", "count.py", letter, run_id]

    with pytest.raises(TaskDeferred):
        made(count, "a").execute(context(task_id="count"))
    assert supervisor.built[0]["command"] == ["python3", "count.py", "a", "run-1"]


@pytest.mark.parametrize("returned", ["python3 x.py", [], None, 7])
def test_anything_but_a_list_of_words_is_refused(supervisor, returned):
    def count():
        return returned

    with pytest.raises(AirflowFailException, match="expected the command as a list of words"):
        made(count).execute(context(task_id="count"))


def test_command_cannot_be_given_twice():
    def count():
        return ["x"]

    with pytest.raises(DefinitionError, match="takes the command from its function"):
        made(count, command=["y"])
