# SPDX-License-Identifier: Apache-2.0
"""``@task.placement``."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.decorators.placement import placement_task
from airflow_provider_oscar.placement.learned import FastestFinish
from airflow_provider_oscar.placement.policies import Explicit
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import context

TARGETS = [PlacementTarget(name=name, task_id=f"run_{name}", kind="oscar") for name in ("cloud", "hpc")]


def made(function, *args, **arguments):
    with DAG("dag", schedule=None) as dag:
        placement_task(function, **{"targets": TARGETS, "observe": False} | arguments)(*args)
    return dag.get_task(function.__name__)


def test_function_names_the_target(caplog):
    def where(size: int, run_id=None):
        return "hpc" if size > 3 and run_id == "run-1" else "cloud"

    state = context()
    assert made(where, 5).choose_branch(state) == "run_hpc"
    assert state["ti"].xcoms["decision"]["reasons"] == ["the function of task where chose it"]


def test_function_may_return_a_policy():
    def where():
        return Explicit(target="cloud")

    assert made(where).choose_branch(context()) == "run_cloud"


def test_force_wins_over_the_function():
    def where():
        return "cloud"

    assert made(where, force="hpc").choose_branch(context()) == "run_hpc"


@pytest.mark.parametrize("returned", [None, "", 3, "moon"])
def test_anything_else_is_refused_with_the_names(returned):
    def where():
        return returned

    with pytest.raises(AirflowFailException, match="cloud, hpc"):
        made(where).choose_branch(context())


@pytest.mark.parametrize("raised", [AirflowSkipException, AirflowFailException, ValueError])
def test_what_the_function_raises_is_airflows_to_judge(raised):
    def where():
        raise raised("no night run today")

    with pytest.raises(raised, match="no night run"):
        made(where).choose_branch(context())


def test_a_class_of_policies_is_no_policy():
    def where():
        return FastestFinish

    with pytest.raises(AirflowFailException, match=r"expected an object: FastestFinish\("):
        made(where).choose_branch(context())


def test_policy_cannot_be_given_twice():
    def where():
        return "cloud"

    with pytest.raises(DefinitionError):
        made(where, policy=Explicit())
