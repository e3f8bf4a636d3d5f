# SPDX-License-Identifier: Apache-2.0
"""Waiting for the demo's runs: it ends when they end, says what it waits for, and gives up by name."""

from __future__ import annotations

from typing import Any

import pytest
from oscar_testbed.demo import scenario
from oscar_testbed.demo.scenario import wait_for_runs
from oscar_testbed.errors import PlatformError

from airflow_provider_oscar.core.nodes import VirtualNode
from airflow_provider_oscar.hooks.interlink import InterLinkHook


class Airflow:
    """Says at which second each run has which state."""

    def __init__(self, states: dict[float, list[str]]) -> None:
        self.states = states
        self.now = 0.0

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        known = [states for since, states in self.states.items() if since <= self.now][-1]
        return {"dag_runs": [{"dag_run_id": f"run-{number}", "state": state} for number, state in enumerate(known)]}

    def require_running(self) -> None: ...

    def wait(self, expected: int, patience: float) -> tuple[list[str], list[str]]:
        said: list[str] = []

        def sleep(seconds: float) -> None:
            self.now += seconds

        runs = wait_for_runs(
            self, expected, patience=patience, say=said.append, clock=lambda: self.now, sleep=sleep  # type: ignore[arg-type]
        )  # fmt: skip
        return [run["state"] for run in runs], said


def test_it_ends_once_as_many_as_expected_have_ended():
    airflow = Airflow({0: ["running"], 5: ["success"], 9: ["success", "failed"]})
    states, said = airflow.wait(2, patience=60)
    assert states == ["success", "failed"]
    assert airflow.now == 9
    assert said == ["run-0: running", "run-0: success", "run-1: failed"]


def test_it_gives_up_when_nothing_changes_and_says_so_before():
    airflow = Airflow({0: ["running"], 50: ["running", "queued"]})
    states, said = airflow.wait(3, patience=100)
    assert states == ["running", "queued"]
    assert airflow.now == 150
    assert said[1] == "waiting: 0 of 3 runs have ended, 1 running; given up in 70 s without a change"
    assert said[-1] == "given up: no run has changed for 100 s, 0 of 3 have ended"


def test_a_slow_machine_is_not_given_up_while_runs_go_on():
    airflow = Airflow({0: ["running"] * 3, 90: ["success", "running", "running"], 180: ["success"] * 3})
    states, _ = airflow.wait(3, patience=100)
    assert states == ["success"] * 3


def test_it_begins_once_every_virtual_node_takes_work(monkeypatch):
    cpu = VirtualNode(name="slurm-cpu")
    down = VirtualNode(name="slurm-gpu", unready_reason="the node is not ready: kubelet is pending.")
    answers = [[cpu, down], [cpu, down], [cpu, VirtualNode(name="slurm-gpu")]]
    monkeypatch.setattr(InterLinkHook, "nodes", lambda self: answers.pop(0) if len(answers) > 1 else answers[0])
    monkeypatch.setattr(scenario.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(scenario.time, "sleep", lambda seconds: None)
    scenario.wait_for_nodes(deadline=1.0)
    assert len(answers) == 1
    answers[0] = [cpu, down]
    with pytest.raises(PlatformError, match=r"takes no work: slurm-gpu: the node is not ready: kubelet is pending"):
        scenario.wait_for_nodes(deadline=0.0)
