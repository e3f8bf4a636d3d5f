# SPDX-License-Identifier: Apache-2.0
"""One job, stage by stage: in, run, out, and the manifest that grows with it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import traceback
from datetime import datetime, timezone
from typing import Any, Callable, Iterator

from airflow_provider_oscar.supervisor import text
from airflow_provider_oscar.supervisor.access import Access
from airflow_provider_oscar.supervisor.command import Run, Signals
from airflow_provider_oscar.supervisor.destinations import open_destinations
from airflow_provider_oscar.supervisor.errors import (
    EXIT_ACCESS,
    RUN,
    STAGE_IN,
    STAGE_OUT,
    Interrupted,
    StageError,
    TransientError,
)
from airflow_provider_oscar.supervisor.joblog import JobLog
from airflow_provider_oscar.supervisor.launch import launched, thread_count
from airflow_provider_oscar.supervisor.manifest import first_manifest, print_marker, read_metrics, signed
from airflow_provider_oscar.supervisor.outputs import MANIFEST_NAME, UNSTAGED_LIMIT, StageOut, Upload
from airflow_provider_oscar.supervisor.spec import command_environment
from airflow_provider_oscar.supervisor.stage_in import stage_in
from airflow_provider_oscar.supervisor.stores import open_store
from airflow_provider_oscar.supervisor.text import clip, say, utc_now
from airflow_provider_oscar.supervisor.transport import local_file, persist
from airflow_provider_oscar.supervisor.worker import Worker, WorkerRun

#: Where checkpoints are, below the output prefix.
CHECKPOINT_PREFIX = "checkpoint/"


class Job:
    """One job on its way through the stages.

    :param spec: see :func:`airflow_provider_oscar.supervisor.spec.read_spec`.
    :param work: an empty directory of its own.
    :param worker: does it, instead of a process of its own.
    """

    def __init__(self, spec: dict[str, Any], work: str, signals: Signals, worker: Worker | None = None) -> None:
        self.spec, self.signals, self.work, self.worker = spec, signals, work, worker
        self.input_dir = os.path.join(work, "input")
        self.output_dir = os.path.join(work, "output")
        self.checkpoint_dir = os.path.join(work, "checkpoint")
        self.files_dir = os.path.join(work, "files")
        self.metrics_path = os.path.join(work, "metrics.json")
        for folder in (self.input_dir, self.output_dir, self.checkpoint_dir, self.files_dir):
            os.mkdir(folder, 0o700)
        self.store: Any = open_store(spec["output"])
        self.others = open_destinations(spec)
        self.access = Access(spec, self._renew)
        self.log = JobLog(work)
        self.manifest = first_manifest(spec)

    def _renew(self, target: dict[str, object]) -> None:
        """Go on with fresh access to the output, and to the places of its patterns."""
        self.store.renew(target)
        for destination, given in zip(self.others, self.spec["outputs"]):
            if destination.store is not None:
                destination.store.renew(given["output"])

    def perform(self) -> int:
        """Do all of it; whatever happens, the manifest and its marker line come last."""
        with self.access.kept():
            text.listeners.append(self.log.note)
            try:
                self._attempt(self.signals.begin, self._check_access, self._stage_in, self._run)
                self.signals.stage = STAGE_OUT
                with self._phase(STAGE_OUT):
                    self.access.refresh()
                    self._attempt(self._stage_out)
                    self._attempt(self._stage_out_checkpoint)
                    self._attempt(self._stage_out_log)
            finally:
                text.listeners.remove(self.log.note)
            self._attempt(self._publish)
        print_marker(self.manifest, self.spec["signing_key"])
        return int(self.manifest["exit_code"])

    def _attempt(self, *steps: Callable[[], None]) -> None:
        """Take steps until one fails; why goes into the manifest."""
        try:
            for step in steps:
                step()
        except Interrupted as signalled:
            name, code = signalled.args
            cancelled = StageError(f"cancelled by {name} before the command ran", code, "cancelled", permanent=False)
            self.manifest["interrupted"] = name
            self._fail(cancelled, STAGE_IN)
        except StageError as failure:
            self._fail(failure, self.signals.stage)
        except Exception as error:  # noqa: BLE001 (an error of ours must still reach the manifest)
            traceback.print_exc()
            message = f"internal error of the supervisor: {type(error).__name__}"
            self._fail(TransientError(message, reason="internal"), self.signals.stage)

    def _fail(self, failure: StageError, stage: str) -> None:
        """Note what went wrong first; a command's own exit code stays."""
        say(f"{stage} failed: {failure}")
        self.manifest["exit_code"] = self.manifest["exit_code"] or failure.code
        if self.manifest["error"] is None:
            self.manifest["error"] = {
                "stage": stage,
                "message": clip(str(failure)),
                "reason": failure.reason,
                "permanent": failure.permanent,
            }

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = utc_now()
        try:
            yield
        finally:
            self.manifest["phases"][name] = {"start": started, "end": utc_now()}

    def _check_access(self) -> None:
        """Notice access that ran out in the queue before hours are computed for nothing."""
        self.access.refresh()
        stores = [self.store, *(each.store for each in self.others if each.store is not None)]
        expires = min((each.expires for each in stores if each.expires is not None), default=None)
        if expires is not None and expires <= datetime.now(timezone.utc):
            raise TransientError(
                f"the access to the output store expired at {expires.isoformat(timespec='seconds')}, while the job "
                "waited; submit it again, with a longer lifetime if queues are long",
                EXIT_ACCESS,
                "access-expired",
            )

    def _stage_in(self) -> None:
        sources, checkpoint, files = self.spec["inputs"], self.spec["resume_from"], self.spec["files"]
        if not sources and not checkpoint and not files:
            return
        with self._phase(STAGE_IN):
            sizes = stage_in(sources, self.input_dir)
            stage_in(checkpoint, self.checkpoint_dir)
            stage_in([each for each in files if "url" in each], self.files_dir)
            for each in files:
                if "url" not in each:
                    with local_file("write a file of the job"), open(
                        os.path.join(self.files_dir, each["name"]), "wb"
                    ) as file:
                        file.write(each["content"])
        for number, size in enumerate(sizes):
            if number == 0:
                self.manifest["input"]["size"] = size
            if "inputs" in self.manifest:
                self.manifest["inputs"][number]["size"] = size

    def _run(self) -> None:
        spec = self.spec
        places = {
            "TMP_INPUT_DIR": self.input_dir,
            "TMP_OUTPUT_DIR": self.output_dir,
            "CHECKPOINT_DIR": self.checkpoint_dir,
            "JOB_FILES_DIR": self.files_dir,
            "SUPERVISOR_METRICS_FILE": self.metrics_path,
        }
        if spec["inputs"]:
            # Of several, the directory, as OSCAR's own supervisor does it for data sets.
            single = spec["inputs"][0]["name"] if len(spec["inputs"]) == 1 else ""
            places["INPUT_FILE_PATH"] = os.path.join(self.input_dir, single) if single else self.input_dir
        environment = command_environment(dict(os.environb), spec, places)
        threads = thread_count(spec, environment)
        if threads:
            environment[b"OMP_NUM_THREADS"] = str(threads).encode("ascii")
        bounds = (self.signals, self.log, spec["timeout"], spec["grace_period"])
        run = Run(*bounds) if self.worker is None else WorkerRun(self.worker, *bounds)
        self.signals.stage = RUN
        with self._phase(RUN):
            run.perform(launched(spec, environment), environment)
        self.manifest["exit_code"] = run.exit_code
        self.manifest["resources"] = run.resources
        if run.interrupted:
            self.manifest["interrupted"] = run.interrupted
        if run.stopped is not None:
            self._fail(run.stopped, RUN)
        say(f"the command ended with exit code {run.exit_code}")

    def _stage_out(self) -> None:
        metrics = self.manifest["metrics"] = read_metrics(self.metrics_path)
        self.manifest["device"] = clip(str(metrics["device"])) if metrics.get("device") is not None else None
        out = StageOut(self.store, self.spec["max_output_bytes"], others=self.others)
        try:
            out.run(self.output_dir)
        finally:
            self.manifest["outputs"] = out.outputs
            in_parts = sum("parts" in each for each in out.outputs)
            if in_parts:
                self.manifest["in_parts"] = in_parts
            self._note_unstaged(out.unstaged)
        out.check(self.spec["on_unstaged"])

    def _stage_out_checkpoint(self) -> None:
        """Keep the state of a command that did not finish; of one that did, nobody needs it."""
        if self.manifest["exit_code"] == 0 or not os.path.lexists(self.checkpoint_dir):
            return
        taken = frozenset(str(each["key"]) for each in self.manifest["outputs"] if "uri" not in each)
        out = StageOut(self.store, None, CHECKPOINT_PREFIX, taken)
        out.run(self.checkpoint_dir)
        if out.outputs:
            self.manifest["checkpoint"] = out.outputs
        self._note_unstaged([{**each, "name": CHECKPOINT_PREFIX + each["name"]} for each in out.unstaged])

    def _note_unstaged(self, entries: list[dict[str, str]]) -> None:
        if entries:
            self.manifest["unstaged_count"] = self.manifest.get("unstaged_count", 0) + len(entries)
            self.manifest["unstaged"] = (self.manifest.get("unstaged", []) + entries)[:UNSTAGED_LIMIT]

    def _stage_out_log(self) -> None:
        """Put the whole output beside the manifest; a result does not fail for the want of its log."""
        self.log.close()
        if not self.log.bytes:
            self.log.release()
            return
        name = self.log.name
        upload = Upload(self.store, name, self.log.opened)
        try:
            entry = persist("stage-out of the log", upload.attempt, lambda: upload.count)
        except StageError as error:
            say(f"the log was not staged out: {error}")
            self.manifest["log"] = {"key": None, "problem": clip(str(error))}
            return
        finally:
            self.log.release()
        self.manifest["log"] = {**entry, "bytes": self.log.bytes}
        if self.log.truncated:
            self.manifest["log"]["problem"] = self.log.truncated

    def _publish(self) -> None:
        data = json.dumps(signed(self.manifest, self.spec["signing_key"]), indent=1).encode("ascii")
        persist("stage-out of the manifest", lambda: self.store.put(MANIFEST_NAME, io.BytesIO(data), len(data)))
