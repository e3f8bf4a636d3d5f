# SPDX-License-Identifier: Apache-2.0
"""Many objects in one job: the command runs once for each, several at a time, each with a result of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import traceback
from typing import Any

from airflow_provider_oscar.supervisor import trees
from airflow_provider_oscar.supervisor.access import Access
from airflow_provider_oscar.supervisor.command import Signals
from airflow_provider_oscar.supervisor.errors import RUN, StageError
from airflow_provider_oscar.supervisor.job import Job
from airflow_provider_oscar.supervisor.manifest import first_manifest, print_marker, signed
from airflow_provider_oscar.supervisor.outputs import MANIFEST_NAME
from airflow_provider_oscar.supervisor.stores import open_store
from airflow_provider_oscar.supervisor.text import quoted, say, utc_now
from airflow_provider_oscar.supervisor.transport import persist

#: Seconds between two looks while nothing tells of an end.
TICK = 1.0


def perform_all(spec: dict[str, object], work: str, signals: Signals) -> int:
    """Perform a job, or each object of a job that has several."""
    if not spec["objects"]:
        return Job(spec, work, signals).perform()
    return Batch(spec, work, signals).perform()


class Batch:
    """A job of many objects: one manifest for each, below its own prefix, and one that lists them.

    Each object is done by a process of its own, ``parallel`` at a time. One that fails stops no other; a signal that
    stops the job, or says that its time ends, reaches those that run, and no further one is begun.
    """

    def __init__(self, spec: dict[str, Any], work: str, signals: Signals) -> None:
        self.spec, self.work, self.signals = spec, work, signals
        self.manifest = first_manifest({**spec, "inputs": []})
        self.store: Any = open_store(spec["output"])
        self.access = Access(spec, self.store.renew)
        self.width = spec["parallel"] or len(os.sched_getaffinity(0))
        self.running: dict[int, int] = {}
        self.done: dict[int, dict[str, object]] = {}

    def perform(self) -> int:
        """Do all objects; the exit code is 0 if every one succeeded."""
        started = utc_now()
        # Signals are kept for this loop, which passes them on.
        self.signals.stage = RUN
        waiting = list(range(len(self.spec["objects"])))
        while waiting or self.running:
            while waiting and len(self.running) < self.width:
                # Here and not in a thread: a copy of this process must not inherit a lock that a thread holds.
                self.access.refresh()
                self._begin(waiting.pop(0))
            self.signals.wait(TICK)
            if self._pass_signals_on():
                waiting = []
            self._reap()
        self._conclude(started)
        self.access.refresh()
        self._publish()
        print_marker(self.manifest, self.spec["signing_key"])
        return int(self.manifest["exit_code"])

    def _begin(self, number: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self.running[pid] = number
            return
        try:
            self._perform_one(number)
        except BaseException:  # noqa: BLE001 (a copy of this process must never return into what it was copied from)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    def _perform_one(self, number: int) -> None:
        """In the process of one object: do it, and leave what became of it as a file."""
        each, folder = self.spec["objects"][number], os.path.join(self.work, str(number))
        os.mkdir(folder, 0o700)
        job = Job(each, folder, Signals())
        job.perform()
        with open(f"{folder}.result", "w", encoding="ascii") as file:
            json.dump({"exit_code": job.manifest["exit_code"], "error": job.manifest["error"]}, file)

    def _pass_signals_on(self) -> bool:
        """Whether no further object is to be begun."""
        received = list(self.signals.received)
        del self.signals.received[: len(received)]
        for number in received:
            for pid in self.running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        return bool(received)

    def _reap(self) -> None:
        for pid, number in list(self.running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self.running[pid]
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
