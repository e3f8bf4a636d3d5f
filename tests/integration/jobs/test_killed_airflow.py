# SPDX-License-Identifier: Apache-2.0
"""``kill -9`` of the triggerer, and of the scheduler with the tasks it runs: each job runs once, each task succeeds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.faults.airflow_parts import AirflowParts
from tests.integration.jobs import quick

DAGS = Path(__file__).parent / "killed_dags"


@pytest.mark.timeout(1500)
@pytest.mark.filterwarnings("default")
def test_jobs_of_a_killed_triggerer_and_of_killed_workers_run_once_and_succeed(tmp_path, platform):
    variables = {**platform.environment(), "QUICK_NODE": quick.node_of(platform), "AIRFLOW__OSCAR__DEFER_AFTER": "0"}
    airflow = AirflowParts(tmp_path / "airflow", dags=DAGS, environment=variables, parallelism=5)
    before = quick.newest_job(platform)

    def states() -> list[tuple[object, ...]]:
        return quick.query(airflow, "SELECT task_id, state, try_number FROM task_instance WHERE dag_id = 'killed'")

    try:
        airflow.start()
        quick.until(lambda: quick.query(airflow, "SELECT count(*) FROM dag WHERE dag_id = 'killed'")[0][0] == 1, 120)
        command = [sys.executable, "-m", "airflow", "dags", "trigger", "killed"]
        subprocess.run(command, env=airflow.environment(), check=True, capture_output=True, timeout=120)
        quick.until(lambda: quick.newest_job(platform) - before == 5, 480)
        quick.until(lambda: sum(state == "deferred" for _, state, _ in states()) == 3, 180)
        for part in ("triggerer", "scheduler"):
            airflow.kill(part)
        for part in ("triggerer", "scheduler"):
            airflow.start_part(part)
        quick.until(lambda: all(state in ("success", "failed") for _, state, _ in states()), 600)
        found = states()
    finally:
        airflow.stop()
    assert [state for _, state, _ in found] == ["success"] * 5, found
    assert {number for task, _, number in found if task == "deferred"} == {1}, "the next triggerer goes on with them"
    assert quick.newest_job(platform) - before == 5, "no job was submitted twice"
