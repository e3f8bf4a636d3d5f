# SPDX-License-Identifier: Apache-2.0
"""Each decorator shows and takes the arguments of its operator, and refuses others where the function is decorated."""

from __future__ import annotations

import inspect

import pytest
from airflow.sdk import DAG, BaseOperator

import airflow_provider_oscar as public
from airflow_provider_oscar import interlink_command_task, interlink_task, task
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.decorators.function import FunctionJobOperator
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.kubernetes import KubernetesJobOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.operators.placement import PlacementBranchOperator
from airflow_provider_oscar.placement.targets import PlacementTarget

FUNCTION = FunctionJobOperator
#: Decorator, classes whose arguments it takes, and those that its function stands for or that go with them.
DECORATORS = {
    "interlink": (task.interlink, [InterLinkPodOperator, FUNCTION], {"command", "script"}),
    "interlink_cmd": (task.interlink_cmd, [InterLinkPodOperator], {"command", "script"}),
    "kubernetes_job": (task.kubernetes_job, [KubernetesJobOperator, FUNCTION], {"command"}),
    "oscar": (task.oscar, [OscarJobOperator, FUNCTION], {"command", "payload", "event_format", "success_when"}),
    "placement": (task.placement, [PlacementBranchOperator], {"policy"}),
}
TARGET = PlacementTarget(name="hpc", kind="interlink", node="vk")


def own(kind: type) -> dict[str, inspect.Parameter]:
    left_out = {"self", "kwargs", "python_callable", "op_args", "op_kwargs"}
    return {name: each for name, each in inspect.signature(kind).parameters.items() if name not in left_out}


@pytest.mark.parametrize("name", DECORATORS)
def test_a_decorator_shows_the_arguments_of_its_operator(name):
    decorator, kinds, stands_for = DECORATORS[name]
    expected = {key: each for kind in kinds for key, each in own(kind).items() if key not in stands_for}
    shown = dict(inspect.signature(decorator).parameters)
    common = own(BaseOperator)
    assert {key for key in shown if key not in common} - {"python_callable"} == set(expected)
    assert {key for key in common if key in shown} == set(common)
    for key, each in expected.items():
        hint = (
            str(shown[key].annotation).removeprefix("Required[").removesuffix("]" if each.default is each.empty else "")
        )
        assert hint == each.annotation, key
        assert shown[key].default == each.default, key


@pytest.mark.parametrize("name", DECORATORS)
def test_a_misspelt_argument_is_refused_where_the_function_is_decorated(name):
    with pytest.raises(DefinitionError, match=f"@task.{name} takes no argument 'retris'; did you mean 'retries'"):
        DECORATORS[name][0](retris=3)


@pytest.mark.parametrize("name", DECORATORS)
def test_what_the_function_stands_for_is_no_argument(name):
    stands_for = "policy" if name == "placement" else "command"
    with pytest.raises(DefinitionError, match=f"takes the {stands_for} from its function; remove the argument"):
        DECORATORS[name][0](**{stands_for: ["x"]})


def test_a_value_of_another_type_is_refused_when_the_function_is_called():
    def count() -> list[str]:
        return ["x"]

    decorated = interlink_command_task(count, image=5, target=TARGET, output_uri="s3://b/")
    with pytest.raises(DefinitionError, match="image of task 'count' is 5; expected str"):
        decorated()


def test_the_collection_has_all_of_airflow_as_well():
    @task
    def plain() -> int:
        return 1

    assert plain().operator.task_id == "plain"
    assert callable(task.bash)


def sent(decorated) -> str:
    with DAG("dag", schedule=None) as dag:
        decorated(1)
    return dag.get_task("double")._source()


def test_the_function_is_sent_without_its_decorator_however_that_is_written():
    given = {"image": "docker://python:3.12", "target": TARGET, "output_uri": "s3://b/"}

    @task.interlink(**given)
    def double(x: int) -> int:
        return 2 * x

    first = double

    @public.task.interlink(
        image="docker://python:3.12",
        target=TARGET,
        output_uri="s3://b/",
    )
    def double(x: int) -> int:
        return 2 * x

    second = double

    @interlink_task(**given)
    def double(x: int) -> int:
        return 2 * x

    assert {sent(each) for each in (first, second, double)} == {"def double(x: int) -> int:\n    return 2 * x\n"}
