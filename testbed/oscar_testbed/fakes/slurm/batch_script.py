# SPDX-License-Identifier: Apache-2.0
"""A batch script as sbatch reads it: its ``#SBATCH`` lines, durations, sizes and start times."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from oscar_testbed.errors import RejectedError
from oscar_testbed.fakes.slurm.batch import PARTITIONS

_MEMORY_UNITS = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024}
_BEGIN_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0, "week": 604_800.0}
_SHORT = {
    "-p": "--partition",
    "-t": "--time",
    "-c": "--cpus-per-task",
    "-o": "--output",
    "-J": "--job-name",
    "-G": "--gpus",
    "-n": "--ntasks",
    "-N": "--nodes",
    "-A": "--account",
    "-C": "--constraint",
}


@dataclass(frozen=True)
class Request:
    """What the ``#SBATCH`` lines of a script ask for."""

    name: str = "sbatch"
    partition: str = ""
    output: str = ""
    cpus: int = 1
    memory_mib: int = 0
    gpus: int = 0
    #: Seconds; None means the partition's default.
    limit: float | None = None
    #: Seconds after submission before which it is not started.
    delay: float = 0.0


def parse_duration(text: str) -> float | None:
    """Seconds of a SLURM time: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S; None for "no limit" and 0.

    :raises RejectedError: for anything else.
    """
    if text.upper() in {"UNLIMITED", "INFINITE", "0"}:
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        raise RejectedError(f"sbatch: error: Invalid --time specification: {text}")
    days, *numbers = match.groups()
    values = [int(number) for number in numbers if number is not None]
    if days is not None:
        hours, minutes, seconds = (values + [0, 0])[:3]
        return int(days) * 86_400.0 + hours * 3600 + minutes * 60 + seconds
    if len(values) == 1:
        return values[0] * 60.0
    return float(sum(value * unit for value, unit in zip(reversed(values), (1, 60, 3600), strict=False)))


def parse_memory(text: str) -> int:
    """MiB of a SLURM memory size (``500``, ``2G``).

    :raises RejectedError: for anything else.
    """
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", text.upper())
    if match is None:
        raise RejectedError(f"sbatch: error: Invalid --mem specification: {text}")
    return int(int(match[1]) * _MEMORY_UNITS[match[2]])


def parse_begin(text: str) -> float:
    """Seconds of ``now+COUNT[UNIT]``; other forms of ``--begin``, which name a time of day, count as now."""
    match = re.fullmatch(r"now\+(\d+)([a-z]*)", text.lower())
    unit = (match[2] if match else "").removesuffix("s") or "second"
    return int(match[1]) * _BEGIN_UNITS.get(unit, 0.0) if match else 0.0


def _options(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if not line.startswith("#SBATCH"):
            if line.strip() and not line.startswith("#"):
                return
            continue
        words = iter(shlex.split(line.removeprefix("#SBATCH"), comments=True))
        for word in words:
            if not word.startswith("-"):
                raise RejectedError(f'sbatch: error: Invalid directive found in batch script: "{word}"')
            name, mark, value = word.partition("=")
            if not mark and not word.startswith("--"):
                name, value = word[:2], word[2:] or next(words, "")
            elif not mark:
                value = next(words, "")
            yield _SHORT.get(name, name), value


def _gpus(value: str) -> int:
    total = 0
    for part in value.split(","):
        kind, *rest = part.split(":")
        if kind == "gpu" or (kind.isdigit() and not rest):
            count = rest[-1] if rest else kind
            total += int(count) if count.isdigit() else 1
    return total


def parse_script(text: str) -> Request:
    """Read the ``#SBATCH`` lines; options that do not matter here are accepted and left out.

    :raises RejectedError: for a value that SLURM would refuse.
    """
    request = Request()
    for name, value in _options(text):
        match name:
            case "--partition":
                request = replace(request, partition=value)
            case "--job-name":
                request = replace(request, name=value)
            case "--output":
                request = replace(request, output=value)
            case "--cpus-per-task":
                if not value.isdigit() or int(value) == 0:
                    raise RejectedError(f"sbatch: error: Invalid numeric value {value!r} for --cpus-per-task.")
                request = replace(request, cpus=int(value))
            case "--mem":
                request = replace(request, memory_mib=parse_memory(value))
            case "--gres" | "--gpus" | "--gpus-per-node":
                request = replace(request, gpus=_gpus(value))
            case "--time" | "--begin":
                request = _timed(request, name, value)
    return request


def _timed(request: Request, name: str, value: str) -> Request:
    if name == "--time":
        return replace(request, limit=parse_duration(value))
    return replace(request, delay=parse_begin(value))


def refusal(request: Request) -> str:
    known = {partition.name: partition for partition in PARTITIONS}
    partition = known.get(request.partition or "cpu")
    if partition is None:
        return "Invalid partition name specified"
    cpus, memory = partition.cpus // partition.nodes, partition.memory_mib // partition.nodes
    # More CPUs than the whole partition has is accepted by SLURM, and waits forever.
    too_wide = cpus < request.cpus <= partition.cpus
    if too_wide or request.memory_mib > memory or request.gpus > partition.gpus:
        return "Requested node configuration is not available"
    return ""
