# SPDX-License-Identifier: Apache-2.0
"""The demo's steps of learning: what is asked of Airflow, and what is made of the answers."""

from __future__ import annotations

import pytest
from oscar_testbed.demo.learning import STEPS, Choice, judge_learning, learn
from oscar_testbed.demo.report import write_report
from oscar_testbed.demo.results import Findings


class Airflow:
    """Answers with the targets that each run is to choose."""

    def __init__(self, *chosen: str) -> None:
        self.chosen, self.posted = list(chosen), []

    def post(self, path, body):
        self.posted.append(body["conf"])
        return {"dag_run_id": f"run-{len(self.posted)}"}

    def get(self, path):
        return {"state": "success"}

    def require_running(self) -> None:
        pass

    def xcom(self, dag_id, run_id, task_id):
        target = self.chosen[len(self.posted) - 1].split()
        reasons = ["expected to end in 7 s (5 to 9), <b>"]
        return [{"object_event": {}, "decision": {"target": each, "reasons": reasons}} for each in target]


SPREAD, FAST, SLOW = "hpc-cpu hpc-cpu hpc-gpu hpc-gpu", "hpc-gpu hpc-gpu", "hpc-cpu hpc-cpu"


def learnt(*chosen: str) -> tuple[Airflow, list[Choice]]:
    airflow = Airflow(*chosen)
    return airflow, learn(airflow, [{"key": "a"}, {"key": "b"}], patience=5, say=lambda _: None)


def test_a_step_is_repeated_until_its_choice_is_learnt():
    airflow, found = learnt(SPREAD, SPREAD, FAST, FAST, SLOW)
    assert [each.step for each in found] == [STEPS[0], STEPS[1], STEPS[1], STEPS[2], STEPS[2]]
    assert [len(conf["objects"]) for conf in airflow.posted] == [4, 2, 2, 2, 2]
    # A machine that is busy at the wrong moment hides a small difference, so that it grows from round to round.
    assert [conf.get("seconds_cpu") for conf in airflow.posted] == [None, 6.0, 12.0, None, None]
    assert [conf.get("seconds_gpu") for conf in airflow.posted] == [None, None, None, 12.0, 24.0]
    assert airflow.posted[0]["objects"][2] == {"key": "a"}
    assert judge_learning(found).proven


def test_the_report_tells_each_run_in_the_words_of_its_decision(tmp_path):
    _, found = learnt(SPREAD, FAST, FAST, SLOW)
    assert [each.summary for each in found] == ["hpc-cpu 2, hpc-gpu 2", "hpc-gpu 2", "hpc-gpu 2", "hpc-cpu 2"]
    write_report(tmp_path / "r.html", [], Findings(), [], found)
    page = (tmp_path / "r.html").read_text()
    assert "What placement learnt" in page
    assert "expected to end in 7 s (5 to 9), &lt;b&gt;" in page


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ((SPREAD, *[SLOW] * 3, *[SLOW]), f"placement did not come to choose hpc-gpu, but hpc-cpu 2: {STEPS[1].title}"),
        ((SPREAD, FAST, *[FAST] * 4), f"placement did not come to choose hpc-cpu, but hpc-gpu 2: {STEPS[2].title}"),
        ((SPREAD, FAST, *[""] * 4), f"placement did not come to choose hpc-cpu, but success: {STEPS[2].title}"),
    ],
)
def test_a_choice_that_was_not_learnt_is_not_finished(chosen, problem):
    findings = judge_learning(learnt(*chosen)[1])
    assert (list(findings.failed), list(findings.unfinished)) == ([], [problem])


def test_work_that_is_not_spread_when_nothing_is_known_is_a_failure():
    findings = judge_learning(learnt(FAST, FAST, SLOW)[1])
    assert list(findings.failed) == ["with nothing known all the work went to hpc-gpu 2"]


def test_a_run_that_failed_is_named_and_ends_the_steps():
    findings = judge_learning([Choice(STEPS[0], "failed", {}, ())])
    assert list(findings.failed) == [f"what placement learns: the run is failed: {STEPS[0].title}"]
    assert len(findings.unfinished) == 2
    assert len(judge_learning([]).unfinished) == 3
