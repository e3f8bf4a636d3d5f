# SPDX-License-Identifier: Apache-2.0
"""What the command cost: CPU, memory, input and output, GPUs, and what SLURM gave it.

Totals come from the kernel when the command is reaped; peaks are looked at while it runs. Only what runs on this
machine is counted: of a command that ``srun`` starts elsewhere, SLURM's own accounting knows more (``scope``).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import shutil
import subprocess
import threading
import time
from typing import Any, Callable, Iterator

from airflow_provider_oscar.supervisor.text import setting

#: Variables of SLURM worth keeping, and their names in the manifest.
SLURM_NAMES = {
    "SLURM_JOB_ID": "job_id",
    "SLURM_JOB_PARTITION": "partition",
    "SLURM_JOB_ACCOUNT": "account",
    "SLURM_CLUSTER_NAME": "cluster",
    "SLURM_JOB_NODELIST": "nodelist",
    "SLURM_JOB_NUM_NODES": "nodes",
    "SLURM_NTASKS": "ntasks",
    "SLURM_CPUS_PER_TASK": "cpus_per_task",
    "SLURM_RESTART_COUNT": "restarts",
}
NVIDIA = (
    "nvidia-smi",
    "--query-gpu=index,name,utilization.gpu,memory.used,memory.total,power.draw",
    "--format=csv,noheader,nounits",
)
ROCM = ("rocm-smi", "--showuse", "--showmeminfo", "vram", "--showpower", "--csv")
#: What a look at a GPU gives: per cent, MiB, MiB, watts.
READINGS = ("use", "used", "total", "power")
PROGRAM_TIMEOUT = 10.0
MIB = 1024 * 1024


def slurm_facts(environment: dict[str, str]) -> dict[str, object]:
    """Return what SLURM says of the allocation, numbers as numbers; empty outside SLURM."""
    found: dict[str, object] = {}
    for name, key in SLURM_NAMES.items():
        value = environment.get(name, "")
        if value:
            found[key] = int(value) if value.isdigit() and key not in ("job_id",) else value
    return found


def allocated_cpus(environment: dict[str, str]) -> int:
    """Return how many CPUs the job has: what SLURM gave it, or else what this process may run on."""
    found = [environment.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "SLURM_NTASKS", "SLURM_CPUS_ON_NODE")]
    per_task, tasks, on_node = (int(each) if each.isdigit() else 0 for each in found)
    if per_task:
        return per_task * max(tasks, 1)
    return on_node or len(os.sched_getaffinity(0))


def parse_nvidia(text: str) -> list[dict[str, Any]]:
    """Return one reading per GPU of :data:`NVIDIA`'s output; ``[N/A]`` becomes None."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 6:
            numbers = [_number(part) for part in parts[2:]]
            found.append({"index": parts[0], "name": parts[1], **dict(zip(READINGS, numbers))})
    return found


def parse_rocm(text: str) -> list[dict[str, Any]]:
    """Return one reading per GPU of :data:`ROCM`'s output, whose columns differ between releases."""
    lines = [line.split(",") for line in text.splitlines() if "," in line]
    if not lines:
        return []
    head, found = [each.strip().lower() for each in lines[0]], []
    for parts in lines[1:]:
        row = dict(zip(head, (part.strip() for part in parts)))
        used, total = _column(row, "used memory"), _column(row, "total memory")
        found.append(
            {
                "index": re.sub(r"\D", "", row.get("device", "")),
                "name": "AMD",
                "use": _column(row, "gpu use"),
                "used": None if used is None else used / MIB,
                "total": None if total is None else total / MIB,
                "power": _column(row, "power"),
            }
        )
    return found


def _column(row: dict[str, str], word: str) -> float | None:
    names = [name for name in row if word in name and ("used" in word or "used" not in name)]
    return _number(row[names[0]]) if names else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class GpuStatistics:
    """Means and peaks over the readings of each GPU."""

    def __init__(self) -> None:
        self._gpus: dict[str, dict[str, Any]] = {}

    def add(self, readings: list[dict[str, Any]], seconds: float) -> None:
        """Count one look, ``seconds`` after the one before."""
        for reading in readings:
            gpu = self._gpus.setdefault(
                reading["index"],
                {
                    "name": reading["name"],
                    "looks": 0,
                    "use": 0.0,
                    "use_peak": None,
                    "memory_peak": None,
                    "joules": None,
                },
            )
            gpu["looks"] += 1
            gpu["use"] += reading["use"] or 0.0
            gpu["use_peak"] = _greater(gpu["use_peak"], reading["use"])
            gpu["memory_peak"] = _greater(gpu["memory_peak"], reading["used"])
            gpu["memory_total"] = reading["total"]
            if reading["power"] is not None:
                gpu["joules"] = (gpu["joules"] or 0.0) + reading["power"] * seconds

    def summary(self) -> list[dict[str, object]]:
        """Return one entry per GPU, as in the manifest."""
        return [
            {
                "index": index,
                "name": gpu["name"],
                "utilization_mean_percent": round(gpu["use"] / gpu["looks"], 1)
                if gpu["use_peak"] is not None
                else None,
                "utilization_peak_percent": gpu["use_peak"],
                "memory_peak_mib": gpu["memory_peak"],
                "memory_total_mib": gpu["memory_total"],
                "energy_joules": None if gpu["joules"] is None else round(gpu["joules"], 1),
            }
            for index, gpu in sorted(self._gpus.items())
        ]


def _greater(old: float | None, new: float | None) -> float | None:
    return new if old is None else old if new is None else max(old, new)


#: Seconds between two polls at all processes of the machine for those that left the command's family.
SCAN_INTERVAL = 2.0


def session_memory(session: int) -> int:
    """Return the resident bytes of all processes of a session, shared pages counted once per process."""
    page, total = os.sysconf("SC_PAGE_SIZE"), 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            if int(fields[3]) == session:  # fields after the name: state, ppid, pgrp, session, ... 22nd is rss
                total += int(fields[21]) * page
    return total


def family_memory(pid: int) -> int:
    """Return the resident bytes of a process and its descendants; 0 where the kernel does not tell who they are.

    What left the family is not seen. But it costs a few files, and not one for each process of the machine.
    """
    page, total = os.sysconf("SC_PAGE_SIZE"), 0
    for member in family(pid):
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{member}/statm", "rb") as file:
            total += int(file.read().split()[1]) * page
    return total


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants, as far as the kernel tells who they are."""
    pending = [pid]
    while pending:
        member = pending.pop()
        yield member
        with contextlib.suppress(OSError, ValueError):
            for thread in os.listdir(f"/proc/{member}/task"):
                with open(f"/proc/{member}/task/{thread}/children", "rb") as file:
                    pending += [int(each) for each in file.read().split()]


def oom_kills(groups: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int:
    """Return how many processes of our control group the kernel has ended for want of memory; 0 where it does not tell.

    :param groups: file that names our groups.
    :param root: where the control groups are, of both versions.
    """
    with contextlib.suppress(OSError, ValueError):
        with open(groups, encoding="utf-8", errors="surrogateescape") as file:
            fields = [line.rstrip("\n").split(":", 2) for line in file]
        own = [place for _, kinds, place in fields if not kinds or "memory" in kinds.split(",")]
        # In a container the root is often its own group, whatever the name that the host has for it.
        for place in [*own, ""]:
            for name in (f"{root}{place}/memory.events", f"{root}/memory{place}/memory.oom_control"):
                with contextlib.suppress(OSError), open(name, encoding="ascii") as file:
                    return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    return 0


def handles(pid: int, number: int) -> bool:
    """Whether a process or one of its descendants catches or ignores a signal."""
    for member in family(pid):
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{member}/status", encoding="ascii", errors="replace") as file:
                masks = [line.split()[1] for line in file if line.startswith(("SigCgt:", "SigIgn:"))]
            if any(int(mask, 16) >> (number - 1) & 1 for mask in masks):
                return True
    return False


def process_io(pid: int) -> dict[str, int]:
    """Return the bytes a process and its reaped children read and wrote; empty where the kernel does not tell."""
    with contextlib.suppress(OSError, ValueError):
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            found = {name: int(value) for name, value in (line.split(":") for line in file)}
        return {
            "io_read_bytes": found["rchar"],
            "io_written_bytes": found["wchar"],
            "disk_read_bytes": found["read_bytes"],
            "disk_written_bytes": found["write_bytes"],
        }
    return {}


class Sampler:
    """Looks at a running command from a thread of its own.

    :param pid: of the command, which leads its session.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._gpus = GpuStatistics()
        self.memory_peak = 0
        self._query, self._parse = _gpu_program()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> list[dict[str, object]]:
        """End, and return what was seen of GPUs."""
        self._ended.set()
        self._thread.join(PROGRAM_TIMEOUT + 1.0)
        return self._gpus.summary()

    def _run(self) -> None:
        started = gpu_at = scanned = time.monotonic()
        interval = setting("SAMPLE_INTERVAL", 10.0)
        first = True
        while not self._ended.is_set():
            moment = time.monotonic()
            with contextlib.suppress(OSError):
                if moment - scanned >= SCAN_INTERVAL:
                    scanned = moment
                    self.memory_peak = max(self.memory_peak, session_memory(self._pid))
                else:
                    self.memory_peak = max(self.memory_peak, family_memory(self._pid))
            if self._query and (first or moment - gpu_at >= interval):
                self._gpus.add(self._read_gpus(), moment - gpu_at)
                gpu_at, first = moment, False
            # Often at first, because many commands are short; a long one costs next to nothing.
            self._ended.wait(min(interval, max(0.1, (moment - started) / 20)))

    def _read_gpus(self) -> list[dict[str, object]]:
        try:
            done = subprocess.run(
                self._query,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=setting("GPU_TIMEOUT", PROGRAM_TIMEOUT),
                close_fds=False,
            )
        except (OSError, subprocess.SubprocessError):
            self._query = ()
            return []
        if done.returncode != 0:
            self._query = ()
            return []
        return self._parse(done.stdout.decode("utf-8", "replace"))


@functools.lru_cache(None)
def _gpu_program() -> tuple[tuple[str, ...], Callable[[str], list[dict[str, object]]]]:
    for query, parse in ((NVIDIA, parse_nvidia), (ROCM, parse_rocm)):
        if shutil.which(query[0]):
            return query, parse
    return (), parse_nvidia


def prepare() -> None:
    """Find out what is the same for every command, before copies of this process find it out once each."""
    _gpu_program()
    with contextlib.suppress(ImportError):
        importlib.import_module("resource")  # os.wait4 does so when it is first called


def summary(
    seconds: float, rusage: Any, io: dict[str, int], sampler: Sampler, environment: dict[str, str]
) -> dict[str, object]:
    """Return the manifest's ``resources``.

    :param seconds: wall time of the command.
    :param rusage: of the command and what it waited for.
    :param io: see :func:`process_io`.
    :param sampler: stops here.
    :param environment: for SLURM's variables.
    """
    gpus = sampler.stop()
    cpus, slurm = allocated_cpus(environment), slurm_facts(environment)
    cpu_seconds = rusage.ru_utime + rusage.ru_stime
    nodes = slurm.get("nodes", 1)
    nodes = nodes if isinstance(nodes, int) else 1
    found: dict[str, object] = {
        "scope": "node",
        "wall_seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "cpu_user_seconds": round(rusage.ru_utime, 3),
        "cpu_system_seconds": round(rusage.ru_stime, 3),
        "cpus": cpus,
        "cpu_efficiency": round(cpu_seconds / (seconds * cpus), 4) if seconds > 0 else None,
        # The kernel knows the largest process, the samples the sum; short peaks are seen by the one alone.
        "memory_peak_bytes": max(sampler.memory_peak, rusage.ru_maxrss * 1024),
        **io,
        "nodes": nodes,
        "node_hours": round(nodes * seconds / 3600, 6),
        "cpu_hours": round(cpus * seconds / 3600, 6),
    }
    if gpus:
        found["gpus"] = gpus
        found["gpu_hours"] = round(len(gpus) * seconds / 3600, 6)
    if slurm:
        found["slurm"] = slurm
    return found
