# SPDX-License-Identifier: Apache-2.0
"""``OscarJobOperator`` with ``retries=0`` before an OSCAR that fails all the time, and a store that restarts: each task
has one job, and none gives up. ``OSCAR_SUBMISSIONS=200`` is the long form (``make oscar-faults``)."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from oscar_testbed import LocalPlatform

from tests.support.fault_proxy import NAMED, FaultProxy, failing
from tests.support.submitting import Task, run_all

COUNT = int(os.environ.get("OSCAR_SUBMISSIONS", "12"))
SEED = int(os.environ.get("OSCAR_SEED", "1"))
#: Seconds until the store restarts for the first time, and between two restarts.
FIRST_RESTART, RESTARTS = 5.0, 40.0
#: Submissions at the same time.
SUBMITTERS = 4


@pytest.fixture
def proxy(platform: LocalPlatform, service: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The default OSCAR connection through a proxy that fails; the service is there already."""
    found = FaultProxy(0.1, seed=SEED)
    with failing(platform.oscar.url, found) as url:
        fields = {**platform.connections["oscar_default"], "host": url}
        monkeypatch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps(fields))
        yield found


class Restarts(threading.Thread):
    """Takes the store away for some seconds, again and again, as OSCAR does with MinIO for each service it makes."""

    def __init__(self, platform: LocalPlatform) -> None:
        super().__init__()
        self.stopped = threading.Event()
        self.count = 0
        self._platform = platform

    def run(self) -> None:
        pause = FIRST_RESTART
        while not self.stopped.wait(pause):
            self._platform.s3.stop()
            time.sleep(3.0)
            self._platform.s3.start()
            self.count += 1
            pause = RESTARTS


def test_each_task_without_retries_has_one_job_and_none_gives_up(platform, service, proxy):
    restarts = Restarts(platform)
    tasks = [Task(service, number) for number in range(COUNT)]
    before = set(platform.oscar.registry.listing(service))
    restarts.start()
    try:
        with ThreadPoolExecutor(SUBMITTERS) as pool:
            run_all(tasks, pool)
    finally:
        restarts.stopped.set()
        restarts.join()
    assert [task.error for task in tasks if task.error] == []
    names = [str(task.manifest["submission_id"]) for task in tasks]
    assert len(set(names)) == COUNT
    listed = platform.oscar.registry.listing(service)
    ours = {name: entry["status"] for name, entry in listed.items() if name not in before}
    assert sorted(ours) == sorted(names), "a job that no task has is an orphan"
    assert set(ours.values()) == {"Succeeded"}
    assert {task.manifest["exit_code"] for task in tasks} == {0}
    print(f"{COUNT} tasks, {len(ours)} jobs, store restarts: {restarts.count}, faults: {dict(proxy.faults)}")
    assert set(NAMED) <= set(proxy.faults)
    assert restarts.count > 0
