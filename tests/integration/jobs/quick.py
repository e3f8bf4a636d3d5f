# SPDX-License-Identifier: Apache-2.0
"""Jobs of one second through a whole Airflow: how many tries are lost, to its race of deferral or to anything else.

``python -m tests.integration.jobs.quick 200`` prints it; CI runs 40.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from oscar_testbed import LocalPlatform
from oscar_testbed.images import LocalImage

from tests.integration.faults.airflow_parts import AirflowParts

DAGS = Path(__file__).parent / "quick_dags"
IMAGE = "python:3-slim"


@dataclass(frozen=True)
class Quick:
    """What became of the jobs.

    :param states: tasks by their state.
    :param tries: tries that were begun, deferrals not counted.
    :param mismatches: times the scheduler found a task in a state that its process did not report.
    :param executed: jobs that SLURM ran.
    :param seconds: from the first to the last.
    """

    states: dict[str, int]
    tries: int
    mismatches: int
    executed: int
    seconds: float

    @property
    def lost(self) -> int:
        """Tries beyond one for each task."""
        return self.tries - sum(self.states.values())

    def __str__(self) -> str:
        return (
            f"{self.states}, {self.tries} tries ({self.lost} lost), {self.mismatches} state mismatches, "
            f"{self.executed} SLURM jobs, {self.seconds:.0f} s"
        )


def measure(directory: Path, jobs: int, platform: LocalPlatform, *, patience: float) -> Quick:
    """Run the DAG once, and count."""
    airflow = AirflowParts(
        directory / "airflow",
        dags=DAGS,
        environment={**platform.environment(), "QUICK_JOBS": str(jobs), "QUICK_NODE": node_of(platform)},
        parallelism=4,
    )
    before = newest_job(platform)
    try:
        airflow.start()
        environment = airflow.environment()
        until(lambda: query(airflow, "SELECT count(*) FROM dag WHERE dag_id = 'quick'")[0][0] == 1, 120)
        command = [sys.executable, "-m", "airflow", "dags", "trigger", "quick"]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
        begun = time.monotonic()
        done = "SELECT count(*) FROM task_instance WHERE dag_id = 'quick' AND state IN ('success', 'failed')"
        until(lambda: query(airflow, done)[0][0] >= jobs, patience)
        seconds = time.monotonic() - begun
        states = dict(query(airflow, "SELECT state, count(*) FROM task_instance WHERE dag_id = 'quick' GROUP BY state"))
        tries = query(airflow, "SELECT sum(try_number) FROM task_instance WHERE dag_id = 'quick'")[0][0]
        mismatches = query(airflow, "SELECT count(*) FROM log WHERE event = 'state mismatch'")[0][0]
        return Quick(states, tries, mismatches, newest_job(platform) - before, seconds)
    finally:
        airflow.stop()


def newest_job(platform: LocalPlatform) -> int:
    """Return the number of the last job; SLURM counts them up, and soon forgets those that have ended."""
    return max(map(int, platform.slurm.jobs()), default=0)


def node_of(platform: LocalPlatform) -> str:
    """Name of the virtual node for CPUs."""
    names = [node["metadata"]["name"] for node in platform.kubernetes.store.objects("nodes")]
    return next(name for name in names if "cpu" in name)


def query(airflow: AirflowParts, text: str) -> list[tuple[object, ...]]:
    """Ask Airflow's database."""
    path = airflow.database.partition("///")[2].partition("?")[0]
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as database:
        return database.execute(text).fetchall()


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"it did not come true within {seconds:.0f} s")
        time.sleep(1.0)


def main() -> None:
    """Measure once, and print; fails if a try was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", type=int, nargs="?", default=200)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quick-") as name:
        images = {IMAGE: LocalImage(IMAGE, path=[Path(sys.executable).parent])}
        with LocalPlatform(Path(name) / "p", images=images) as platform:
            platform.s3.create_bucket("outgoing")
            found = measure(Path(name), chosen.jobs, platform, patience=20.0 * chosen.jobs + 300)
    print(found)
    if found.lost or found.states != {"success": chosen.jobs}:
        sys.exit(1)


if __name__ == "__main__":
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    main()
