# SPDX-License-Identifier: Apache-2.0
"""The part of the demo that shows a choice which is learnt, and changes when its target becomes slower."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oscar_testbed.demo.results import ENDED, Findings

if TYPE_CHECKING:
    from oscar_testbed.standalone import StandaloneAirflow

DAG_ID = "placement_learns"
SLOW, FAST = "hpc-cpu", "hpc-gpu"
_PAUSE = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The same work, chosen anew until the policy has learnt what there is to learn.

    :param title: what has happened before it.
    :param objects: how many a run is about.
    :param rounds: the runs at most, each as seconds of the work at the targets, where they differ from the usual. They
        grow, since a busy machine adds seconds of its own to the jobs by chance, and hides a difference that is small.
    :param until: the target that all are to go to in the end; empty when one run is enough.
    """

    title: str
    objects: int
    rounds: Sequence[Mapping[str, float]]
    until: str = ""


STEPS = (
    Step("Nothing is known yet", 4, [{}]),
    Step("Both targets were tried", 2, [{"seconds_cpu": each} for each in (6.0, 12.0, 24.0)], until=FAST),
    Step(
        f"{FAST} became slower than {SLOW}, and nobody says so",
        2,
        [{"seconds_gpu": each} for each in (12.0, 24.0, 48.0, 96.0)],
        until=SLOW,
    ),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What one run came to.

    :param step: that it belongs to.
    :param state: of the run.
    :param targets: how many objects went to each target.
    :param words: the grounds of its last decision, as it left them.
    """

    step: Step
    state: str
    targets: Mapping[str, int]
    words: Sequence[str]

    @property
    def summary(self) -> str:
        """Where the objects went, as ``hpc-cpu 2, hpc-gpu 2``."""
        return ", ".join(f"{name} {count}" for name, count in sorted(self.targets.items())) or self.state

    @property
    def is_learnt(self) -> bool:
        """Whether it is the choice to which the step leads."""
        return self.state == "success" and (not self.step.until or set(self.targets) == {self.step.until})


def learn(
    airflow: StandaloneAirflow, objects: Sequence[Mapping[str, object]], *, patience: float, say: Callable[[str], None]
) -> list[Choice]:
    """Play the steps one after the other, and stop at a run that fails.

    :param airflow: that has parsed the DAG.
    :param objects: some that are in the store; each run takes as many as it needs, from the first.
    :param patience: seconds a run may take.
    :param say: called with a line for each run.
    """
    found: list[Choice] = []
    for step in STEPS:
        given = [objects[number % len(objects)] for number in range(step.objects)]
        for seconds in step.rounds:
            made = airflow.post(f"dags/{DAG_ID}/dagRuns", {"logical_date": None, "conf": {**seconds, "objects": given}})
            run_id = str(made["dag_run_id"])
            state = _wait(airflow, run_id, patience)
            found.append(_choice(step, state, airflow.xcom(DAG_ID, run_id, "work.choose")))
            say(f"placement learns: {step.title}: {found[-1].summary}")
            if state != "success":
                return found
            if found[-1].is_learnt:
                break
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


def _choice(step: Step, state: str, chosen: object) -> Choice:
    rows = chosen if isinstance(chosen, list) else []
    decisions = [each["decision"] for each in rows if isinstance(each, dict) and each.get("decision")]
    return Choice(
        step=step,
        state=state,
        targets=Counter(str(each["target"]) for each in decisions),
        words=[str(each) for each in decisions[-1].get("reasons") or ()] if decisions else [],
    )


def judge_learning(choices: Sequence[Choice]) -> Findings:
    """Say what was not as it should be; a choice that more runs may bring is not finished, and nothing has failed."""
    last = {each.step: each for each in choices}
    failed, unfinished = [], []
    for step in STEPS:
        choice = last.get(step)
        if choice is None:
            unfinished.append(f"what placement learns: {step.title!r} did not take place")
        elif choice.state in ENDED and choice.state != "success":
            failed.append(f"what placement learns: the run is {choice.state}: {step.title}")
        elif not choice.is_learnt:
            unfinished.append(f"placement did not come to choose {step.until}, but {choice.summary}: {step.title}")
    first = last.get(STEPS[0])
    if first is not None and first.state == "success" and set(first.targets) != {SLOW, FAST}:
        failed.append(f"with nothing known all the work went to {first.summary}")
    return Findings(failed, unfinished)
