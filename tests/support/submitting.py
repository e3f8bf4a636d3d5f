# SPDX-License-Identifier: Apache-2.0
"""Tasks of ``OscarJobOperator`` without retries, run as workers and a triggerer run them, many at once,
and a store that restarts meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_oscar.operators.oscar import OscarJobOperator
from tests.support.fakes import context

COMMAND = ["python3", "-c", "import os; open(os.path.join(os.environ['TMP_OUTPUT_DIR'], 'done'), 'w').write('x')"]

#: Seconds until a store restarts for the first time, and between two restarts.
FIRST_RESTART, BETWEEN_RESTARTS = 5.0, 40.0


class Task:
    """One task of a run with ``retries=0``: an error of it is its end.

    :param service: name of the service.
    :param number: tells the tasks apart.
    :param output_uri: where the results go.
    """

    def __init__(self, service: str, number: int, output_uri: str = "s3://outgoing/once") -> None:
        self.context = context(partition_key=f"once-{number}", task_id="once")
        self.arguments = {
            "task_id": "once",
            "retries": 0,
            "service": service,
            "object_event": "",
            "command": COMMAND,
            "output_uri": output_uri,
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


class Restartable(Protocol):
    """A store that can be taken away."""

    def stop(self) -> None:
        """Take it away."""

    def start(self) -> None:
        """Bring it back."""


class Restarts(threading.Thread):
    """Takes a store away for some seconds, again and again, as OSCAR does with MinIO for each service it makes."""

    def __init__(self, store: Restartable) -> None:
        super().__init__()
        self.stopped = threading.Event()
        self.count = 0
        self._store = store

    def run(self) -> None:
        pause = FIRST_RESTART
        while not self.stopped.wait(pause):
            self._store.stop()
            time.sleep(3.0)
            self._store.start()
            self.count += 1
            pause = BETWEEN_RESTARTS


@contextmanager
def restarting(store: Restartable) -> Iterator[Restarts]:
    """Let a store restart within the block, and leave it running."""
    restarts = Restarts(store)
    restarts.start()
    try:
        yield restarts
    finally:
        restarts.stopped.set()
        restarts.join()
