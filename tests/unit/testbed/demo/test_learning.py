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


GOOD = ("hpc-cpu hpc-cpu hpc-gpu hpc-gpu", "hpc-gpu hpc-gpu hpc-gpu", "hpc-cpu")


def test_each_step_is_a_run_and_its_decisions_are_told_in_their_own_words(tmp_path):
    airflow, said = Airflow(*GOOD), []
    found = learn(airflow, [{"key": "a"}, {"key": "b"}], patience=5, say=said.append)
    assert [len(conf["objects"]) for conf in airflow.posted] == [step.objects for step in STEPS]
    assert airflow.posted[0]["objects"][2] == {"key": "a"}
    assert [each.summary for each in found] == ["hpc-cpu 2, hpc-gpu 2", "hpc-gpu 3", "hpc-cpu 1"]
    assert judge_learning(found) == []
    assert len(said) == 3
    write_report(tmp_path / "r.html", [], Findings(), [], found)
    page = (tmp_path / "r.html").read_text()
    assert "What placement learnt" in page
    assert "expected to end in 7 s (5 to 9), &lt;b&gt;" in page


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        (("hpc-gpu hpc-gpu", GOOD[1], GOOD[2]), "with nothing known the work went to hpc-gpu 2 alone"),
        ((GOOD[0], "hpc-gpu hpc-cpu", GOOD[2]), "had not learnt that hpc-gpu is faster: it chose hpc-cpu 1, hpc-gpu 1"),
        ((GOOD[0], GOOD[1], "hpc-gpu"), "did not notice that hpc-gpu had become slower: it chose hpc-gpu 1"),
        ((GOOD[0], GOOD[1], ""), "did not notice"),
    ],
)
def test_a_choice_that_was_not_learnt_is_a_failure_of_the_demo(chosen, problem):
    (found,) = judge_learning(learn(Airflow(*chosen), [{}], patience=5, say=lambda _: None))
    assert problem in found


def test_a_step_whose_run_failed_is_named():
    failed = Choice("The next choice", "failed", {}, ())
    assert judge_learning([failed]) == ["The next choice: its run is failed"]
    assert judge_learning([]) == ["the steps that show what placement learns did not take place"]
