# SPDX-License-Identifier: Apache-2.0
"""``make bench-oscar``: what waiting and submitting cost, against one poll for each job and against oscar-python.

Everything runs on this machine against the embedded OSCAR, so ratios count and absolute numbers do not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from oscar_testbed.fakes.oscar.server import application
from oscar_testbed.webserver import AsgiServer

from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.jobs.oscar import OscarBackend, OscarWork
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.waiting import Wait, wait_for_job
from tests.support.oscar_api import SERVICE, Oscar

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / ".venv-clients" / "bin" / "python"
#: Seconds between two polls of a waiting task.
INTERVAL = 10.0
_PEER = """
import sys, time
from oscar_python.client import Client
endpoint, count = sys.argv[1], int(sys.argv[2])
client = Client({"cluster_id": "c", "endpoint": endpoint, "user": "oscar", "password": "pw", "ssl": False})
began = time.monotonic()
for _ in range(count):
    client.run_service("svc", input="hello", async_call=True)
print(time.monotonic() - began)
"""


class Counted:
    """An embedded OSCAR over HTTP whose requests are counted."""

    def __init__(self, directory: Path) -> None:
        self.oscar = Oscar(directory)
        self.requests = 0
        inner = application(self.oscar.api)

        async def counting(scope: object, receive: object, send: object) -> None:
            self.requests += 1
            await inner(scope, receive, send)  # type: ignore[arg-type]

        self.server = AsgiServer(counting)
        self.server.start()
        made = httpx.post(f"{self.server.url}/system/services", json=SERVICE, auth=("oscar", "pw"))
        made.raise_for_status()
        fields = {"conn_type": "oscar", "host": self.server.url, "login": "oscar", "password": "pw"}
        os.environ["AIRFLOW_CONN_OSCAR_DEFAULT"] = json.dumps(fields)


@contextmanager
def embedded() -> Iterator[Counted]:
    """An OSCAR with one service."""
    with tempfile.TemporaryDirectory() as directory:
        found = Counted(Path(directory))
        try:
            yield found
        finally:
            found.server.stop()


def waiting(count: int, seconds: float) -> tuple[float, float, float, float]:
    """Requests a minute, and CPU seconds a minute of this thread, of shared polls and of one poll for each job."""
    with embedded() as place:
        for number in range(count):
            place.oscar.submit(name=f"j{number}")

        async def shared() -> None:
            backend = OscarBackend(conn_id="oscar_default", service="svc")
            waits = [
                wait_for_job(
                    backend, Wait(job_id=f"j{n}", poll_interval=INTERVAL, follow_log=False), say=lambda *_: None
                )
                for n in range(count)
            ]
            tasks = [asyncio.ensure_future(each) for each in waits]
            await asyncio.sleep(seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        async def alone() -> None:
            hook = await OscarHook.resolved("oscar_default")
            limit = asyncio.Semaphore(50)

            async def one(client: httpx.AsyncClient) -> None:
                while True:
                    async with limit:
                        await hook.arun(hook.list_jobs("svc"), client)
                    await asyncio.sleep(INTERVAL)

            async with hook.async_client() as client:
                tasks = [asyncio.ensure_future(one(client)) for _ in range(count)]
                await asyncio.sleep(seconds)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        figures = []
        for work in (shared, alone):
            place.requests = 0
            cpu = time.thread_time()
            asyncio.run(work())
            figures += [place.requests * 60 / seconds, (time.thread_time() - cpu) * 60 / seconds]
        return figures[0], figures[1], figures[2], figures[3]


def submitting(count: int) -> tuple[float, float, float]:
    """Submissions a second of this provider and of oscar-python (0 if it is not installed), and our requests each."""
    with embedded() as place:
        backend = OscarBackend(conn_id="oscar_default", service="svc")
        place.requests, began = 0, time.monotonic()
        for number in range(count):
            backend.submit(RunningJob(submission_id=f"s{number}", job_id=f"s{number}"), OscarWork(b"aGVsbG8="))
        ours, each = count / (time.monotonic() - began), place.requests / count
    if not CLIENTS.exists():
        return ours, 0.0, each
    with embedded() as place:
        command = [str(CLIENTS), "-c", _PEER, place.server.url, str(count)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        return ours, count / float(done.stdout.split()[-1]), each


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1000, help="jobs that are waited for")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement of waiting")
    parser.add_argument("--submissions", type=int, default=100)
    options = parser.parse_args()
    ours, ours_cpu, alone, alone_cpu = waiting(options.jobs, options.seconds)
    print(f"waiting for {options.jobs} jobs, one look each {INTERVAL:g} s, {options.seconds:g} s measured")
    print(f"  shared poll:        {ours:8.0f} requests/min  {ours_cpu:6.1f} CPU s/min")
    print(f"  one poll each job:  {alone:8.0f} requests/min  {alone_cpu:6.1f} CPU s/min")
    print(f"  ratio:              {alone / max(ours, 1):8.1f}               {alone_cpu / max(ours_cpu, 0.001):6.1f}")
    rate, peer, each = submitting(options.submissions)
    print(f"submitting {options.submissions} jobs, one after the other")
    print(f"  this provider:      {rate:8.1f} jobs/s  {each:.1f} requests each")
    print(f"  oscar-python:       {peer:8.1f} jobs/s" if peer else "  oscar-python:       not installed; make clients")
    if peer:
        print(f"  ratio:              {rate / peer:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
