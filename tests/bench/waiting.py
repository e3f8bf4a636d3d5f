# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.waiting``: what a waiting job costs the triggerer, in memory and processor time.

As many waits as jobs, in one event loop as in a triggerer, for jobs of one place that answers at once. Logs are
followed, as by default; what an answer costs the network is not measured. ``held`` is the longest processor time that
the loop's thread used without letting others come round, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.status import JobStatus
from airflow_provider_oscar.jobs.waiting import Wait, wait_for_job
from tests.bench.measure import Figures, loop_watched

#: Seconds between two polls: the default of ``[oscar] poll_interval``.
INTERVAL = 10.0


class RunningPlace:
    """A place whose jobs all run; the names are those a real list would hold."""

    conn_id = "bench"
    name = "bench"
    key = "bench"
    display_name = "bench"

    def __init__(self, number: int) -> None:
        self.jobs = [f"threedgan-{index:016x}" for index in range(number)]
        self.looks = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[RunningPlace]:
        """Open itself as the client."""
        yield self

    async def statuses(self) -> Mapping[str, JobStatus]:
        """Return a fresh list, as one read from an answer is."""
        self.looks += 1
        return {name: JobStatus(JobPhase.RUNNING, node="n1") for name in self.jobs}

    async def log(self, job_id: str) -> str | None:
        """Return a short log."""
        return f"{job_id} works\n"


async def waiting(number: int, seconds: float) -> Figures:
    """Let so many jobs be waited for, and measure."""
    place = RunningPlace(number)
    async with loop_watched() as figures:
        tasks = [
            asyncio.create_task(
                wait_for_job(place, Wait(job_id=job, poll_interval=INTERVAL), say=lambda *_: None)  # type: ignore[arg-type]
            )
            for job in place.jobs
        ]
        await asyncio.sleep(seconds)
        figures.count, figures.requests = number, place.looks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return figures


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="how long each number of jobs is waited for")
    parser.add_argument("--jobs", type=int, nargs="*", default=[100, 1000, 5000], help="numbers of jobs")
    options = parser.parse_args()
    print("jobs   kB each   looks   processor   held")
    for number in options.jobs:
        figures = asyncio.run(waiting(number, options.seconds))
        share, each = figures.cpu / figures.wall, figures.growth * 1024 / number
        print(f"{number:5}  {each:8.1f}  {figures.requests:6}  {share:9.1%}  {figures.held:6.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
