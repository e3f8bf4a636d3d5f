# SPDX-License-Identifier: Apache-2.0
"""The processes of a batch: each does one object after another, and keeps its connections and the user's worker."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from typing import Any

from airflow_provider_oscar.supervisor.access import Access
from airflow_provider_oscar.supervisor.command import Signals
from airflow_provider_oscar.supervisor.errors import BETWEEN
from airflow_provider_oscar.supervisor.job import Job
from airflow_provider_oscar.supervisor.worker import Worker


class Slot:
    """One of the processes, as the batch sees it.

    :param pid: of the process.
    :param orders: where it reads the numbers of its objects.
    """

    def __init__(self, pid: int, orders: int) -> None:
        self.pid, self._orders = pid, orders
        #: The object it does.
        self.number: int | None = None

    def give(self, number: int) -> None:
        """Let it do one object."""
        self.number = number
        with contextlib.suppress(BrokenPipeError):  # its end is noticed elsewhere
            os.write(self._orders, b"%d\n" % number)

    def dismiss(self) -> None:
        """Tell it that there is nothing more to do."""
        if self._orders >= 0:
            os.close(self._orders)
        self._orders = -1


def start_slot(spec: dict[str, Any], work: str, signals: Signals, done: int, others: list[Slot]) -> Slot:
    """Start a process.

    :param spec: of the batch.
    :param work: directory of the batch.
    :param signals: of the batch; what it has of them goes on to the process.
    :param done: where the process writes the numbers of the objects that are done.
    :param others: the processes there are; the new one must not keep their orders open.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(reader)
        return Slot(pid, writer)
    try:
        os.close(writer)
        for each in others:
            each.dismiss()
        _serve(spec, work, signals, reader, done)
    except BaseException:  # noqa: BLE001 (a copy of this process must never return into what it was copied from)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _serve(spec: dict[str, Any], work: str, inherited: Signals, orders: int, done: int) -> None:
    signals = Signals(BETWEEN)
    signals.held += inherited.received
    worker = Worker(work) if spec["persistent_worker"] else None
    access = Access(spec, lambda output: None)
    with open(orders, "rb", buffering=0) as lines:
        for line in lines:
            number = int(line)
            access.refresh()
            _perform(spec["objects"][number], os.path.join(work, str(number)), signals, worker)
            signals.stage = BETWEEN
            sys.stdout.flush()
            os.write(done, b"%d\n" % number)
    if worker is not None:
        worker.close(signals)


def _perform(spec: dict[str, Any], folder: str, signals: Signals, worker: Worker | None) -> None:
    """Do one object, and leave what became of it as a file."""
    os.mkdir(folder, 0o700)
    job = Job(spec, folder, signals, worker)
    job.perform()
    with open(f"{folder}.result", "w", encoding="ascii") as file:
        json.dump({"exit_code": job.manifest["exit_code"], "error": job.manifest["error"]}, file)
