# SPDX-License-Identifier: Apache-2.0
"""Seconds from the upload of one small object to the event of its result, against Airflow's floor in the same run.

The floor is a DAG of the same number of tasks that do nothing, started by an object in the same way. ``python -m
tests.bench.object_to_result``; the goal is twice the floor.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from oscar_testbed import LocalPlatform
from oscar_testbed.images import LocalImage

from tests.integration.faults.airflow_parts import AirflowParts

DAGS = Path(__file__).parent / "result_dags"
IMAGE = "python:3-slim"
#: Ours may take so many times the floor.
GOAL = 2.0


def measure(directory: Path, rounds: int) -> dict[str, list[float]]:
    """Upload objects by turns, one at a time, and return the seconds of each way."""
    images = {IMAGE: LocalImage(IMAGE, path=[Path(sys.executable).parent])}
    with LocalPlatform(directory / "p", images=images) as platform:
        for bucket in ("incoming", "outgoing"):
            platform.s3.create_bucket(bucket)
        names = [node["metadata"]["name"] for node in platform.kubernetes.store.objects("nodes")]
        node = next(name for name in names if "cpu" in name)
        airflow = AirflowParts(
            directory / "airflow", dags=DAGS, environment={**platform.environment(), "BENCH_NODE": node}
        )
        os.environ.update(platform.environment())
        try:
            airflow.start()
            from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

            store = OscarS3Hook()
            found: dict[str, list[float]] = {"floor": [], "job": []}
            for number in range(rounds + 1):
                for way, seconds in found.items():
                    before = _events(airflow, way)
                    begun = time.time()
                    store.put_bytes("incoming", f"{way}/{number:03d}", b"small")
                    taken = _next_event(airflow, way, before) - begun
                    if number:  # the first imports everything
                        seconds.append(taken)
            return found
        finally:
            airflow.stop()


def _next_event(airflow: AirflowParts, way: str, before: int) -> float:
    end = time.monotonic() + 300
    while _events(airflow, way) <= before:
        if time.monotonic() > end:
            raise TimeoutError(f"no event of {way} within 300 s")
        time.sleep(0.05)
    return time.time()


def _events(airflow: AirflowParts, way: str) -> int:
    path = airflow.database.partition("///")[2].partition("?")[0]
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as database:
        asked = "SELECT count(*) FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.uri LIKE ?"
        return int(database.execute(asked, (f"bench://{way}%",)).fetchone()[0])


def compare(rounds: int) -> float:
    """Measure, print, and return how many times the floor ours takes."""
    with tempfile.TemporaryDirectory(prefix="bench-result-") as name:
        found = measure(Path(name), rounds)
    for way, seconds in found.items():
        print(f"{way}: median {statistics.median(seconds):.1f} s of {[round(each, 1) for each in seconds]}", flush=True)
    ratio = statistics.median(found["job"]) / statistics.median(found["floor"])
    print(f"one small object to its result event: {ratio:.2f} times Airflow's floor (goal: {GOAL})", flush=True)
    return ratio


def main() -> None:
    """Measure once, and fail if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=7)
    sys.exit(0 if compare(parser.parse_args().rounds) <= GOAL else 1)


if __name__ == "__main__":
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    main()
