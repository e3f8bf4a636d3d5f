# SPDX-License-Identifier: Apache-2.0
"""A batch queue of our own that behaves as the private SLURM cluster does, where SLURM is not installed.

It reads the same ``#SBATCH`` lines, has the same partitions, states and wait statuses, and refuses what
SLURM refuses. Unlike SLURM it counts the slots of a partition as one node's, and knows no priorities:
the first job that fits is started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from oscar_testbed.errors import RejectedError
from oscar_testbed.fakes.slurm.batch import COMPACT, PARTITIONS, BatchJob, Partition
from oscar_testbed.fakes.slurm.batch_script import Request, parse_script, refusal
from oscar_testbed.faults import SlurmFaults
from oscar_testbed.process import spawn

_DEFAULT_LIMIT = 600.0
_TICK = 0.1
_KILL_WAIT = 2.0
#: How a job ends that waits again.
_REQUEUED = "REQUEUED"


@dataclass
class _Entry:
    job: BatchJob
    request: Request
    script: Path
    directory: Path
    submitted: float = field(default_factory=time.monotonic)
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    #: Why it is being killed: CANCELLED or TIMEOUT.
    ending: str = ""
    kill_at: float = 0.0
    gpu_numbers: tuple[int, ...] = field(default=())
    restarts: int = 0


class BuiltinSlurm:
    """Partitions, slots and jobs as process groups, scheduled by one thread.

    :param directory: where its log goes; created when absent.
    :param faults: switches that make it refuse or hold jobs.
    """

    kind = "builtin"

    def __init__(self, directory: Path, *, faults: SlurmFaults | None = None) -> None:
        self.directory = directory.absolute()
        self.log_path = self.directory / "queue.log"
        self._faults = faults or SlurmFaults()
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._entries: dict[str, _Entry] = {}
        self._next_id = 1
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self) -> None:
        """Start the scheduler thread."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._loop, name="builtin-slurm", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Kill every job and end the scheduler thread; does nothing if it does not run."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            for entry in self._entries.values():
                if entry.process is not None and entry.process.poll() is None:
                    _signal_group(entry.process, signal.SIGKILL)
                    entry.process.wait()
                    entry.job = replace(entry.job, state="CA", wait_status=int(signal.SIGKILL))
                elif entry.job.state == "PD":
                    entry.job = replace(entry.job, state="CA")

    def healthy(self) -> bool:
        """True while the scheduler thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def submit(self, script: Path) -> str:
        """See :meth:`BatchSystem.submit`."""
        if self._faults.refuse:
            raise RejectedError(self._faults.refuse)
        try:
            request = parse_script(script.read_text(errors="surrogateescape"))
        except (RejectedError, ValueError) as error:
            raise RejectedError(str(error)) from error
        reason = refusal(request)
        if reason:
            raise RejectedError(f"sbatch: error: Batch job submission failed: {reason}")
        with self._lock:
            job_id = str(self._next_id)
            self._next_id += 1
            name = request.partition or next(one.name for one in PARTITIONS if one.default)
            job = BatchJob(job_id, "PD", reason="None", partition=name)
            self._entries[job_id] = _Entry(job, request, script, script.parent)
        self._log(f"job {job_id} queued in {name}")
        self._wake.set()
        return job_id

    def jobs(self) -> dict[str, BatchJob]:
        """See :meth:`BatchSystem.jobs`."""
        with self._lock:
            return {job_id: entry.job for job_id, entry in self._entries.items()}

    def cancel(self, job_id: str) -> None:
        """See :meth:`BatchSystem.cancel`."""
        with self._lock:
            entry = self._entries.get(job_id)
            if entry is None or entry.job.finished:
                return
            if entry.process is None:
                entry.job = replace(entry.job, state="CA")
            else:
                _end(entry, "CANCELLED")
        self._wake.set()

    def requeue(self, job_id: str) -> None:
        """See :meth:`BatchSystem.requeue`."""
        with self._lock:
            entry = self._entries.get(job_id)
            if entry is not None and entry.process is not None:
                _end(entry, _REQUEUED)
        self._wake.set()

    def environment(self) -> dict[str, str]:
        """See :meth:`BatchSystem.environment`."""
        return {}

    def partitions(self) -> tuple[Partition, ...]:
        """See :meth:`BatchSystem.partitions`."""
        return PARTITIONS

    def _loop(self) -> None:
        while not self._stopping:
            with self._lock:
                for entry in self._entries.values():
                    self._watch(entry)
                self._schedule()
                busy = any(entry.process is not None for entry in self._entries.values())
            # A finished job is noticed within one tick; an idle queue sleeps until someone submits.
            self._wake.wait(_TICK if busy or self._faults.hold_pending else 5.0)
            self._wake.clear()

    def _watch(self, entry: _Entry) -> None:
        process = entry.process
        if process is None:
            return
        code = process.poll()
        now = time.monotonic()
        if code is not None:
            # What the batch script left behind dies with it, as under SLURM's process tracking.
            _signal_group(process, signal.SIGKILL)
            entry.process = None
            if entry.ending == _REQUEUED:
                entry.ending, entry.restarts, entry.submitted = "", entry.restarts + 1, now
                entry.job = replace(entry.job, state="PD", reason="BeginTime", node="")
            else:
                entry.job = _finished(entry, code)
            self._log(f"job {entry.job.job_id} {entry.job.state}, wait status {entry.job.wait_status}")
        elif entry.ending and now >= entry.kill_at:
            _signal_group(process, signal.SIGKILL)
        elif not entry.ending and entry.request.limit is not None and now - entry.started > entry.request.limit:
            _end(entry, "TIMEOUT")

    def _schedule(self) -> None:
        if self._faults.hold_pending:
            return
        for partition in PARTITIONS:
            running = [e for e in self._entries.values() if e.process and e.job.partition == partition.name]
            for entry in self._entries.values():
                if entry.job.state != "PD" or entry.job.partition != partition.name:
                    continue
                if time.monotonic() < entry.submitted + entry.request.delay:
                    entry.job = replace(entry.job, reason="BeginTime")
                    continue
                if not _fits(entry.request, partition, running):
                    hopeless = entry.request.cpus > partition.cpus
                    entry.job = replace(entry.job, reason="PartitionConfig" if hopeless else "Resources")
                    continue
                taken = {number for other in running for number in other.gpu_numbers}
                free = [number for number in range(partition.gpus) if number not in taken]
                entry.gpu_numbers = tuple(free[: entry.request.gpus])
                self._launch(entry, partition)
                running.append(entry)

    def _launch(self, entry: _Entry, partition: Partition) -> None:
        job_id, request = entry.job.job_id, entry.request
        node = "gn1" if partition.gpus else "cn1"
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "SLURM_JOB_ID": job_id,
            "SLURM_JOBID": job_id,
            "SLURM_JOB_NAME": request.name,
            "SLURM_JOB_PARTITION": partition.name,
            "SLURM_CPUS_PER_TASK": str(request.cpus),
            "SLURM_JOB_NODELIST": node,
            "SLURMD_NODENAME": node,
            **({"SLURM_RESTART_COUNT": str(entry.restarts)} if entry.restarts else {}),
        }
        if entry.gpu_numbers:
            numbers = ",".join(str(number) for number in entry.gpu_numbers)
            environment |= {"CUDA_VISIBLE_DEVICES": numbers, "SLURM_JOB_GPUS": numbers}
        output = Path((request.output or "slurm-%j.out").replace("%j", job_id))
        try:
            with (entry.directory / output).open("ab") as stream:
                entry.process = spawn(
                    ["/bin/bash", str(entry.script)], stdout=stream.fileno(), env=environment, cwd=entry.directory
                )
        except OSError as error:
            self._log(f"job {job_id} could not be launched: {error}")
            entry.job = replace(entry.job, state="F", wait_status=256, reason="JobLaunchFailure")
            return
        entry.started = time.monotonic()
        entry.job = replace(entry.job, state="R", reason="None", node=node)
        if entry.request.limit is None:
            entry.request = replace(entry.request, limit=_DEFAULT_LIMIT)

    def _log(self, text: str) -> None:
        with self.log_path.open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n")


def _fits(request: Request, partition: Partition, running: list[_Entry]) -> bool:
    cpus = sum(entry.request.cpus for entry in running) + request.cpus
    memory = sum(entry.request.memory_mib for entry in running) + request.memory_mib
    gpus = sum(len(entry.gpu_numbers) for entry in running) + request.gpus
    return cpus <= partition.cpus and memory <= partition.memory_mib and gpus <= partition.gpus


def _descendants(pid: int) -> list[int]:
    """Processes below ``pid``, also those that made a group of their own; empty elsewhere than on Linux."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    below = _descendants(process.pid) if number == signal.SIGKILL else []
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
    for pid in below:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _end(entry: _Entry, state: str) -> None:
    if entry.ending or entry.process is None:
        return
    entry.ending = state
    entry.kill_at = time.monotonic() + _KILL_WAIT
    _signal_group(entry.process, signal.SIGTERM)


def _finished(entry: _Entry, code: int) -> BatchJob:
    wait_status = code << 8 if code >= 0 else -code
    if entry.ending:
        reason = "TimeLimit" if entry.ending == "TIMEOUT" else "None"
        return replace(entry.job, state=COMPACT[entry.ending], wait_status=int(signal.SIGTERM), reason=reason)
    if code == 0:
        return replace(entry.job, state="CD", reason="None")
    reason = "NonZeroExitCode" if code > 0 else "JobLaunchFailure"
    return replace(entry.job, state="F", wait_status=wait_status, reason=reason)
