# SPDX-License-Identifier: Apache-2.0
"""``OscarJobOperator`` with ``retries=0`` before an OSCAR that fails all the time, and a store that restarts: each task
has one job, and none gives up. ``OSCAR_SUBMISSIONS=200`` is the long form (``make oscar-faults``)."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from oscar_testbed import LocalPlatform

from airflow_provider_oscar.operators.oscar import OscarJobOperator
from tests.support.fakes import context
from tests.support.fault_proxy import NAMED, FaultProxy, failing

COUNT = int(os.environ.get("OSCAR_SUBMISSIONS", "12"))
SEED = int(os.environ.get("OSCAR_SEED", "1"))
#: Seconds until the store restarts for the first time, and between two restarts.
FIRST_RESTART, RESTARTS = 5.0, 40.0
#: Submissions at the same time.
SUBMITTERS = 4
COMMAND = ["python3", "-c", "import os; open(os.path.join(os.environ['TMP_OUTPUT_DIR'], 'done'), 'w').write('x')"]


@pytest.fixture
def proxy(platform: LocalPlatform, service: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The default OSCAR connection through a proxy that fails; the service is there already."""
    found = FaultProxy(0.1, seed=SEED)
    with failing(platform.oscar.url, found) as url:
        fields = {**platform.connections["oscar_default"], "host": url}
        monkeypatch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps(fields))
        yield found


class Task:
    """One task of a run with ``retries=0``: an error of it is its end."""

    def __init__(self, service: str, number: int) -> None:
        self.context = context(partition_key=f"once-{number}", task_id="once")
        self.arguments = {
            "task_id": "once",
            "retries": 0,
            "service": service,
            "object_event": "",
            "command": COMMAND,
            "output_uri": "s3://outgoing/once",
            "poll_interval": 1.0,
            "timeout": 3600,
        }
        self.pause: TaskDeferred | None = None
        self.manifest: Mapping[str, Any] = {}
        self.error = ""

    def submit(self) -> None:
        """What the worker does first."""
        self._work(lambda task: task.execute(self.context))

    def resume(self, event: Mapping[str, Any]) -> None:
        """What a worker does with the trigger's event, in another process as a rule: with an operator made again."""
        assert self.pause is not None
        arguments = self.pause.kwargs or {}
        self._work(lambda task: task.execute_complete(self.context, event=dict(event), **arguments))

    def _work(self, step: Any) -> None:
        self.pause = None
        try:
            self.manifest = step(OscarJobOperator(**self.arguments))
        except TaskDeferred as pause:
            self.pause = pause
        except Exception as error:  # noqa: BLE001 - whatever it is, the task has failed
            self.error = f"{type(error).__name__}: {error}"

    async def wait(self) -> Mapping[str, Any]:
        """What the triggerer does, from the trigger's stored form."""
        assert self.pause is not None
        path, arguments = self.pause.trigger.serialize()
        module, _, name = path.rpartition(".")
        async for event in getattr(import_module(module), name)(**arguments).run():
            return dict(event.payload)
        raise AssertionError("the trigger ended without an event")


def run_all(tasks: list[Task], pool: ThreadPoolExecutor) -> None:
    """Submit all, wait for all in one event loop, and resume each, as workers and a triggerer do."""
    list(pool.map(Task.submit, tasks))

    async def until_done(task: Task) -> None:
        while task.pause is not None:
            event = await task.wait()
            await asyncio.get_running_loop().run_in_executor(pool, task.resume, event)

    async def waiting() -> None:
        await asyncio.gather(*map(until_done, tasks))

    asyncio.run(waiting())


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
