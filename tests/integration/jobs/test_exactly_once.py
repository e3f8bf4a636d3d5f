# SPDX-License-Identifier: Apache-2.0
"""``OscarJobOperator`` with ``retries=0`` before an OSCAR that fails all the time, and a store that restarts: each task
has one job, and none gives up. ``OSCAR_SUBMISSIONS=200`` is the long form (``make oscar-faults``)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from oscar_testbed import LocalPlatform

from tests.support.fault_proxy import NAMED, FaultProxy, failing
from tests.support.submitting import Task, restarting, run_all

COUNT = int(os.environ.get("OSCAR_SUBMISSIONS", "12"))
SEED = int(os.environ.get("OSCAR_SEED", "1"))
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


def test_each_task_without_retries_has_one_job_and_none_gives_up(platform, service, proxy):
    tasks = [Task(service, number) for number in range(COUNT)]
    before = set(platform.oscar.registry.listing(service))
    with restarting(platform.s3) as restarts, ThreadPoolExecutor(SUBMITTERS) as pool:
        run_all(tasks, pool)
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
