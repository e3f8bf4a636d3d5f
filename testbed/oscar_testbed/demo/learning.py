# SPDX-License-Identifier: Apache-2.0
"""The part of the demo that shows a choice which is learnt, and changes when its target becomes slower."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oscar_testbed.demo.results import ENDED

if TYPE_CHECKING:
    from oscar_testbed.standalone import StandaloneAirflow

DAG_ID = "placement_learns"
SLOW, FAST = "hpc-cpu", "hpc-gpu"
_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """One run of the DAG.

    :param title: what has happened before it.
    :param objects: how many it is about.
    :param conf: seconds of the work at the targets, where they differ from the usual.
    """

    title: str
    objects: int
    conf: Mapping[str, float]


STEPS = (
    Step("Nothing is known yet: the work is spread", 4, {}),
    Step(
        "The faster target is known; while these jobs run there, it becomes 40 times slower", 3, {"seconds_gpu": 20.0}
    ),
    Step("The next choice", 1, {"seconds_gpu": 20.0}),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What one step came to.

    :param title: of the step.
    :param state: of its run.
    :param targets: how many objects went to each target.
    :param words: the grounds of its last decision, as it left them.
    """

    title: str
    state: str
    targets: Mapping[str, int]
    words: Sequence[str]

    @property
    def summary(self) -> str:
        """Where the objects went, as ``hpc-cpu 2, hpc-gpu 2``."""
        return ", ".join(f"{name} {count}" for name, count in sorted(self.targets.items()))


def learn(
    airflow: StandaloneAirflow, objects: Sequence[Mapping[str, object]], *, patience: float, say: Callable[[str], None]
) -> list[Choice]:
    """Play the steps one after the other.

    :param airflow: that has parsed the DAG.
    :param objects: some that are in the store; each step takes as many as it needs, from the first.
    :param patience: seconds a run may take.
    :param say: called with a line for each step.
    """
    found = []
    for step in STEPS:
        given = [objects[number % len(objects)] for number in range(step.objects)]
        conf = {**step.conf, "objects": given}
        made = airflow.post(f"dags/{DAG_ID}/dagRuns", {"logical_date": None, "conf": conf})
        run_id = str(made["dag_run_id"])
        choice = _choice(step, _wait(airflow, run_id, patience), airflow.xcom(DAG_ID, run_id, "work.choose"))
        say(f"placement learns: {choice.title}: {choice.summary or choice.state}")
        found.append(choice)
    return found


def _wait(airflow: StandaloneAirflow, run_id: str, patience: float) -> str:
    """Return the state in which a run ended, or that in which it was given up."""
    end = time.monotonic() + patience
    while True:
        state = str((airflow.get(f"dags/{DAG_ID}/dagRuns/{run_id}") or {}).get("state"))
        if state in ENDED or time.monotonic() > end:
            return state
        airflow.require_running()
        time.sleep(_PAUSE)


def _choice(step: Step, state: str, chosen: Any) -> Choice:
    decisions = [each["decision"] for each in chosen or () if isinstance(each, dict) and each.get("decision")]
    return Choice(
        title=step.title,
        state=state,
        targets=Counter(str(each["target"]) for each in decisions),
        words=[str(each) for each in decisions[-1].get("reasons") or ()] if decisions else [],
    )


def judge_learning(choices: Sequence[Choice]) -> list[str]:
    """Say what was not as it should be, in sentences."""
    problems = [f"{each.title}: its run is {each.state}" for each in choices if each.state != "success"]
    if problems or len(choices) != len(STEPS):
        return problems or ["the steps that show what placement learns did not take place"]
    spread, learnt, changed = choices
    if set(spread.targets) != {SLOW, FAST}:
        problems.append(f"with nothing known the work went to {spread.summary} alone")
    if learnt.targets.get(FAST, 0) != sum(learnt.targets.values()):
        problems.append(f"placement had not learnt that {FAST} is faster: it chose {learnt.summary}")
    if set(changed.targets) != {SLOW}:
        problems.append(f"placement did not notice that {FAST} had become slower: it chose {changed.summary}")
    return problems
