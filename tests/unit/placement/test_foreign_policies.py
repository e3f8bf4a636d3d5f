# SPDX-License-Identifier: Apache-2.0
"""Policies that users write: what they may do wrong, and what is said of it."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

import pytest
from airflow.sdk import DAG

from airflow_provider_oscar import Explicit, Fallback, FastestFinish, Rule, RuleBased, placed
from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.placement.batch import decide_many
from airflow_provider_oscar.placement.history import History, RunRecord
from airflow_provider_oscar.placement.policies import HistorySnapshot
from airflow_provider_oscar.placement.targets import Decision, PlacementRequest, PlacementTarget

CLOUD = PlacementTarget(name="cloud", kind="oscar")
HPC = PlacementTarget(name="hpc-gpu", kind="interlink", node="n", task_id="group.hpc_gpu")
TARGETS = (CLOUD, HPC)


class Own:
    """A policy of somebody's own."""

    def __init__(self, answer: Callable[[PlacementRequest], object]) -> None:
        self.answer = answer

    def decide(self, request, targets, observations=(), snapshot=None):
        return self.answer(request)


def decided(answer, **request):
    (found,) = decide_many(Own(answer), [PlacementRequest(key="a.h5", **request)], TARGETS)
    return found


@pytest.mark.parametrize(
    ("answer", "request_", "error", "said"),
    [
        (lambda _: 1 / 0, {}, TransientError, "policy Own failed with ZeroDivisionError"),
        (lambda _: {}["x"], {}, TransientError, "policy Own failed with KeyError"),
        (lambda _: None, {}, DefinitionError, "policy Own returned 'None'; expected a Decision"),
        (lambda _: "cloud", {}, DefinitionError, "expected a Decision with one of the targets"),
        (lambda _: Decision(target="cloud", reasons=()), {}, DefinitionError, "expected a Decision with one of"),
        (
            lambda _: Decision(target=PlacementTarget(name="moon", kind="oscar"), reasons=()),
            {},
            DefinitionError,
            "policy Own cannot be followed: there is no placement target 'moon'; expected one of cloud, hpc-gpu",
        ),
        (
            lambda _: Decision(target=CLOUD, reasons=None),
            {},
            DefinitionError,
            "reasons=None; expected a tuple",
        ),
        (lambda _: Decision(target=CLOUD, reasons="mine"), {}, DefinitionError, "reasons='mine'; expected a tuple"),
        (
            lambda _: Decision(target=CLOUD, reasons=(), rejected={"hpc-gpu": None}),
            {},
            DefinitionError,
            "policy Own returned a Decision with rejected=.*; expected a text for each name",
        ),
        *(
            (
                lambda _, predictions=predictions: Decision(target=CLOUD, reasons=(), predictions=predictions),
                {},
                DefinitionError,
                "policy Own returned a Decision with predictions=.*; expected for each name",
            )
            for predictions in (
                None,
                {"cloud": None},
                {"cloud": {"total": "1 h"}},
                {"cloud": {"total": math.nan}},
                {"cloud": {"total": 10**400}},
                {"cloud": {"total": 1e300}},
            )
        ),
        (lambda _: Decision(target=CLOUD, reasons=()), {"target": "hpc-gpu"}, DefinitionError, "insists on 'hpc-gpu'"),
        (
            lambda _: Decision(target=CLOUD, reasons=()),
            {"excluded": frozenset({"cloud"})},
            DefinitionError,
            "'cloud', which has been tried for this work already",
        ),
    ],
)
def test_what_a_policy_does_wrong_is_said_with_its_name(answer, request_, error, said):
    with pytest.raises(error, match=said):
        decided(answer, **request_)


def test_a_target_of_the_same_name_stands_for_the_one_of_the_group():
    own = PlacementTarget(name="hpc-gpu", kind="interlink", node="n")
    found = decided(lambda _: Decision(target=own, reasons=("mine",)))
    assert found.target is HPC
    assert found.reasons == ("mine",)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Fallback(("cloud", "moon")), "no placement target 'moon'"),
        (Explicit(target="moon"), "no placement target 'moon'"),
        (RuleBased(rules=(Rule(target="moon"),)), "no placement target 'moon'"),
        (RuleBased(default="moon"), "no placement target 'moon'"),
        (lambda request: "cloud", "expected an object with decide"),
        ("fastest", "expected an object with decide"),
    ],
)
@pytest.mark.parametrize("each", [False, True])
def test_a_policy_that_cannot_work_is_refused_in_the_dag_file(policy, said, each):
    common = {"command": ["x"], "output_uri": "s3://b/", "service": "s", "image": "i", "each": each}
    with DAG("dag", schedule=None), pytest.raises(DefinitionError, match=said):
        placed("infer", targets=TARGETS, policy=policy, **common)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("cloud", "choose"), "target 'choose' would be named 'choose', as a task of the group is"),
        (("cloud", "result"), "as a task of the group is"),
        (("hpc-gpu", "hpc_gpu"), "target 'hpc_gpu' would be named 'hpc_gpu', as that of target 'hpc-gpu' is"),
        (("cloud", "cloud"), "different names"),
    ],
)
def test_targets_whose_tasks_would_have_the_same_name_are_refused(names, said):
    targets = [PlacementTarget(name=name, kind="oscar") for name in names]
    with DAG("dag", schedule=None), pytest.raises(DefinitionError, match=said):
        placed("infer", targets=targets, command=["x"], output_uri="s3://b/", service="s")


def test_a_thousand_objects_are_placed_in_a_moment():
    records = [
        RunRecord(
            target=target.name, ended_at=1e9 + number, run=10.0 + number % 7, size=number, submission_id=f"{number}"
        )
        for target in TARGETS
        for number in range(60)
    ]
    requests = [PlacementRequest(key=f"{number}.h5", size=number) for number in range(1000)]
    spent = time.process_time()
    found = decide_many(FastestFinish(), requests, TARGETS, (), HistorySnapshot(History.of(records)))
    chosen = Counter(each.target.name for each in found if each is not None)
    assert min(chosen["cloud"], chosen["hpc-gpu"]) > 300, "although nobody knows how many jobs they run at once"
    assert time.process_time() - spent < 20, "a second on a quiet machine"


def test_a_first_thousand_is_spread_although_nothing_is_known_at_all():
    found = decide_many(FastestFinish(), [PlacementRequest()] * 1000, TARGETS, (), HistorySnapshot())
    chosen = Counter(each.target.name for each in found if each is not None)
    assert min(chosen["cloud"], chosen["hpc-gpu"]) > 300
