# SPDX-License-Identifier: Apache-2.0
"""Functions with packages of their own, in jobs of the embedded OSCAR and of SLURM behind the embedded interLink."""

from __future__ import annotations

import sys

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.decorators.interlink import interlink_task
from airflow_provider_oscar.decorators.oscar import oscar_task
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.integration.jobs.conftest import IMAGE
from tests.support.fakes import context
from tests.support.wheels import make_wheel

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def index(tmp_path, monkeypatch):
    make_wheel(tmp_path, "tinyrules", "1.0", {"tinyrules.py": "factor = 3\n"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


@pytest.fixture(params=["oscar", "interlink"])
def run(request, service, node, index, s3):
    """Run a function as a task of either kind, and return its value."""
    known = {"output_uri": "s3://outgoing/functions", "requirements": ["tinyrules==1.0"], "python_version": HERE}
    known |= {"timeout": 120, "poll_interval": 0.3, "deferrable": False}
    place = {"service": service}
    decorator = oscar_task
    if request.param == "interlink":
        decorator = interlink_task
        place = {"image": IMAGE, "target": PlacementTarget(name="hpc", task_id="x", kind="interlink", node=node)}

    def run(function, *args):
        with DAG("dag", schedule=None) as dag:
            decorator(function, **known | place)(*args)
        name = function.__name__
        return dag.get_task(name).execute(context(partition_key=request.node.name, task_id=name))

    return run


def test_large_arguments_and_values_and_packages_go_through_the_store(run):
    def multiply(numbers):
        import tinyrules

        print("multiplying", len(numbers))
        return [number * tinyrules.factor for number in numbers]

    numbers = list(range(300_000))  # two megabytes of JSON, more than any command line
    assert run(multiply, numbers) == [number * 3 for number in numbers]


def test_what_the_function_raises_is_in_the_error_with_its_line(run):
    def fail():
        import tinyrules

        raise ValueError(f"no rule for {tinyrules.factor}")

    with pytest.raises(AirflowFailException, match=r"(?s)line 4, in fail.*ValueError: no rule for 3"):
        run(fail)
