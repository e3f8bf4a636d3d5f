# SPDX-License-Identifier: Apache-2.0
"""Many objects in one job: the command runs once for each, several at a time, each with a result of its own."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import signal
from typing import Any

from airflow_provider_oscar.supervisor import trees, usage
from airflow_provider_oscar.supervisor.access import Access
from airflow_provider_oscar.supervisor.command import Signals
from airflow_provider_oscar.supervisor.errors import RUN, StageError
from airflow_provider_oscar.supervisor.job import Job
from airflow_provider_oscar.supervisor.manifest import first_manifest, print_marker, signed
from airflow_provider_oscar.supervisor.outputs import MANIFEST_NAME
from airflow_provider_oscar.supervisor.slots import Slot, start_slot
from airflow_provider_oscar.supervisor.stores import open_store
from airflow_provider_oscar.supervisor.text import quoted, say, utc_now
from airflow_provider_oscar.supervisor.transport import CONNECTIONS, persist

#: Seconds between two polls while nothing tells of an end.
TICK = 1.0


def perform_all(spec: dict[str, object], work: str, signals: Signals) -> int:
    """Perform a job, or each object of a job that has several."""
    if not spec["objects"]:
        return Job(spec, work, signals).perform()
    return Batch(spec, work, signals).perform()


class Batch:
    """A job of many objects: one manifest for each, below its own prefix, and one that lists them.

    Processes of ours do them, ``parallel`` at a time. An object that fails stops no other; a signal that stops the job,
    or says that its time ends, reaches those that run, and no further one is begun.
    """

    def __init__(self, spec: dict[str, Any], work: str, signals: Signals) -> None:
        self.spec, self.work, self.signals = spec, work, signals
        self.manifest = first_manifest({**spec, "inputs": []})
        self.store: Any = open_store(spec["output"])
        self.access = Access(spec, self.store.renew)
        self.width = spec["parallel"] or len(os.sched_getaffinity(0))
        self.slots: list[Slot] = []
        self.waiting = list(range(len(spec["objects"])))
        self.done: dict[int, dict[str, object]] = {}
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)

    def perform(self) -> int:
        """Do all objects; the exit code is 0 if every one succeeded."""
        started = utc_now()
        for url in {
            self.spec["output"]["url"],
            *(each["url"] for one in self.spec["objects"] for each in one["inputs"]),
            *(each["output"]["url"] for one in self.spec["objects"] for each in one["outputs"] if each["output"]),
        }:
            CONNECTIONS.prepare(url)
        usage.prepare()
        # What is there by now is there for good: collections in each copy of this process would look at all of it, and
        # make a copy of its memory, which costs more than all else a small object needs.
        gc.collect()
        gc.freeze()
        # Signals are kept for this loop, which passes them on.
        self.signals.stage = RUN
        while self.slots or self.waiting:
            self._hand_out()
            self.signals.wait(TICK, (self._reader,))
            if self._pass_signals_on():
                self.waiting = []
            self._collect()
        self._conclude(started)
        self.access.refresh()
        self._publish()
        print_marker(self.manifest, self.spec["signing_key"])
        return int(self.manifest["exit_code"])

    def _hand_out(self) -> None:
        """Give every process that has none an object, or nothing more to wait for."""
        for slot in [each for each in self.slots if each.number is None]:
            if self.waiting:
                slot.give(self.waiting.pop(0))
            else:
                slot.dismiss()
        while self.waiting and len(self.slots) < self.width:
            try:
                self.slots.append(start_slot(self.spec, self.work, self.signals, self._writer, self.slots))
            except OSError as error:
                if not self.slots:
                    raise
                say(f"no more than {len(self.slots)} objects at a time can be done: {error.strerror}")
                self.width = len(self.slots)
                break
            self.slots[-1].give(self.waiting.pop(0))

    def _pass_signals_on(self) -> bool:
        """Whether no further object is to be begun."""
        received = list(self.signals.received)
        del self.signals.received[: len(received)]
        for number in received:
            for slot in self.slots:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(slot.pid, number)
        return bool(received)

    def _collect(self) -> None:
        """Note what is done, and which processes ended."""
        ended = {slot.pid: os.waitpid(slot.pid, os.WNOHANG) for slot in self.slots}
        told = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                told += os.read(self._reader, 4096)
        for number in map(int, told.split()):
            self._note(number)
        for slot in list(self.slots):
            if slot.number in self.done:
                slot.number = None
            pid, status = ended[slot.pid]
            if pid:
                self.slots.remove(slot)
                slot.dismiss()
                if slot.number is not None:
                    self._note(slot.number, status)

    def _note(self, number: int, status: int = 0) -> None:
        """Note what became of one object.

        :param status: of the process that ended without a word about it.
        """
        each, folder = self.spec["objects"][number], os.path.join(self.work, str(number))
        try:
            with open(f"{folder}.result", encoding="ascii") as file:
                result = json.load(file)
        except (OSError, ValueError):
            code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else 1
            message = "the process of this object ended without a result; see the job's log"
            lost = {"stage": RUN, "message": message, "reason": "killed", "permanent": False}
            result = {"exit_code": code, "error": lost}
        trees.remove(folder)
        self.done[number] = {
            "submission_id": each["submission_id"],
            "output_uri": each["output"]["uri"],
            "exit_code": result["exit_code"],
            "error": result["error"],
        }

    def _conclude(self, started: str) -> None:
        done: list[Any] = [self.done[number] for number in sorted(self.done)]
        failed = [each for each in done if each["exit_code"] != 0 or each["error"] is not None]
        missing = len(self.spec["objects"]) - len(done)
        self.manifest["objects"] = done
        self.manifest["phases"][RUN] = {"start": started, "end": utc_now()}
        if failed or missing:
            self.manifest["exit_code"] = (failed[0]["exit_code"] if failed else 0) or 128 + signal.SIGTERM
            self.manifest["error"] = {
                "stage": RUN,
                "message": f"{len(failed)} of {len(self.spec['objects'])} objects failed, {missing} were not begun; "
                f"the first: {quoted(failed[0]['submission_id']) if failed else 'none'}",
                "reason": "objects-failed",
                "permanent": not missing
                and all((each["error"] or {"permanent": True})["permanent"] for each in failed),
            }

    def _publish(self) -> None:
        data = json.dumps(signed(self.manifest, self.spec["signing_key"]), indent=1).encode("ascii")
        try:
            persist("stage-out of the manifest", lambda: self.store.put(MANIFEST_NAME, io.BytesIO(data), len(data)))
        except StageError as error:
            say(str(error))
            self.manifest["exit_code"] = self.manifest["exit_code"] or error.code
