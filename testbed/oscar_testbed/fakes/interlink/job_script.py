# SPDX-License-Identifier: Apache-2.0
"""A pod as a batch job: the ``#SBATCH`` lines and the two scripts, as text. No files are touched here.

The layout of the files and the meaning of the annotations are those of interLink's SLURM plugin; the
scripts are our own.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from oscar_testbed.fakes.interlink.volumes import Bind

PREFIX = "slurm-job.vk.io/"
#: What the plugin always gives to the container runtime.
DEFAULT_OPTIONS = ("--nv", "--no-eval", "--containall")
_LONG = {
    "-A": "--account",
    "-C": "--constraint",
    "-D": "--chdir",
    "-G": "--gpus",
    "-J": "--job-name",
    "-N": "--nodes",
    "-c": "--cpus-per-task",
    "-n": "--ntasks",
    "-o": "--output",
    "-p": "--partition",
    "-t": "--time",
    "-w": "--nodelist",
}
_SUFFIXES = {
    **{suffix: Decimal(1024) ** n for n, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), 1)},
    **{suffix: Decimal(1000) ** n for n, suffix in enumerate(("k", "M", "G", "T", "P"), 1)},
    "m": Decimal("0.001"),
}


@dataclass(frozen=True)
class ContainerLine:
    """One container of the job, with everything its command line is made of."""

    name: str
    init: bool
    image: str
    arguments: tuple[str, ...]
    #: Whether the pod names a command (``exec``) or leaves the image's own (``run``).
    has_command: bool
    binds: tuple[Bind, ...]
    #: None for a container without variables.
    env_file: Path | None


def quantity(text: str) -> Decimal:
    """Value of a Kubernetes quantity."""
    for suffix, factor in _SUFFIXES.items():
        if text.endswith(suffix):
            return Decimal(text.removesuffix(suffix)) * factor
    return Decimal(text)


def split_flags(text: str) -> list[str]:
    """Flags of the annotation, one per line to be written: ``-p cpu`` stays together, the last of a kind wins.

    Quotes are taken off and not put back, so a value with a blank breaks the line, as upstream.
    """
    flags: list[str] = []
    for word in shlex.split(text):
        if word.startswith("-") or not flags:
            flags.append(word)
        else:
            flags[-1] += f" {word}"
    by_name: dict[str, str] = {}
    for flag in flags:
        name = _name(flag)
        by_name.pop(name, None)
        by_name[name] = flag
    return list(by_name.values())


def _name(flag: str) -> str:
    name = flag.split("=")[0].split(" ")[0]
    return _LONG.get(name, name)


def resource_flags(containers: Sequence[Mapping[str, Any]], flags: Sequence[str]) -> list[str]:
    """Flags with cpu and memory: from the largest limit when there is one, else the annotation's, else one each."""
    limits = [(container.get("resources") or {}).get("limits") or {} for container in containers]
    cpus = [quantity(str(limit["cpu"])) for limit in limits if "cpu" in limit]
    memory = [quantity(str(limit["memory"])) for limit in limits if "memory" in limit]
    result = list(flags)
    for name, values, unit, default in (
        ("--cpus-per-task", cpus, Decimal(1), "1"),
        ("--mem", memory, Decimal(1024) ** 2, "1"),
    ):
        if values:
            result = [flag for flag in result if _name(flag) != name]
            amount = max(values) / unit
            result.append(f"{name}={math.ceil(amount) if name == '--cpus-per-task' else int(amount)}")
        elif not any(_name(flag) == name for flag in result):
            result.append(f"{name}={default}")
    return result


def batch_script(uid: str, directory: Path, flags: Sequence[str], annotations: Mapping[str, str]) -> str:
    """Text of ``job.slurm``: directives, the site's and the user's preparation, and the call of ``job.sh``."""
    lines = ["#!/bin/bash", f"#SBATCH --job-name={uid}", f"#SBATCH --output={directory}/job.out"]
    lines += [f"#SBATCH {flag}" for flag in flags]
    if address := annotations.get("interlink.eu/pod-ip"):
        lines.append(f"export POD_IP={shlex.quote(address)}")
    if commands := annotations.get("interlink.eu/wstunnel-client-commands"):
        lines.append(commands)
    if before := annotations.get(f"{PREFIX}pre-exec"):
        lines.append(before)
    lines.append(shlex.quote(str(directory / "job.sh")))
    return "\n".join(lines) + "\n"


def command_line(runtime: Path, line: ContainerLine, annotations: Mapping[str, str]) -> str:
    """Shell text that runs one container."""
    words = [shlex.quote(str(runtime)), "exec" if line.has_command else "run", *DEFAULT_OPTIONS]
    # These two are pasted in as they are written, so that one annotation can hold several options.
    words += [
        annotations[f"{PREFIX}{key}"]
        for key in ("singularity-mounts", "singularity-options")
        if annotations.get(f"{PREFIX}{key}")
    ]
    if line.env_file is not None:
        words += ["--env-file", shlex.quote(str(line.env_file))]
    for bind in line.binds:
        words += ["--bind", shlex.quote(bind.text())]
    return " ".join([*words, shlex.quote(image(line.image, annotations)), *map(shlex.quote, line.arguments)])


def image(name: str, annotations: Mapping[str, str]) -> str:
    """Image reference with the annotation's root in front, unless it is a path or has a scheme."""
    root = annotations.get(f"{PREFIX}image-root", "")
    return name if name.startswith("/") or "://" in name else f"{root}{name}"


_HEAD = """#!/bin/bash
export workingPath={directory}
export SANDBOX={directory}
echo "This pod {pod} has been submitted to SLURM node ${{SLURMD_NODENAME:-$(hostname)}} as job ${{SLURM_JOB_ID}}."
record() {{
  # Renamed into place: whoever reads the file finds the whole number or nothing.
  printf '%s' "$2" > "$workingPath/.$1" && mv "$workingPath/.$1" "$workingPath/$1"
}}
runInitCtn() {{
  local ctn="$1"; shift
  echo "Running init container $ctn..."
  {{ time "$@" ; }} > "$workingPath/init-$ctn.out" 2>&1
  local code=$?
  record "init-$ctn.status" "$code"
  if [ "$code" -ne 0 ]; then
    echo "$(date -Is --utc) InitContainer $ctn failed with status $code"
    exit "$code"
  fi
}}
runCtn() {{
  local ctn="$1"; shift
  echo "Running in background $ctn..."
  {{ time "$@" ; }} > "$workingPath/run-$ctn.out" 2>&1 &
  pids+=("$!")
  names+=("$ctn")
}}
pids=()
names=()
"""
_TAIL = """for index in "${!pids[@]}"; do
  echo "Waiting for container ${names[$index]}..."
  wait "${pids[$index]}"
  code=$?
  # A job that is cancelled leaves no code, as upstream: the signal that ended the container is on its way to us.
  if [ "$code" -gt 128 ]; then sleep 0.3; fi
  record "run-${names[$index]}.status" "$code"
  echo "Container ${names[$index]} ended with status $code"
done
highest=0
for file in "$workingPath"/*.status; do
  code="$(cat "$file")"
  if [ "$code" -gt "$highest" ]; then highest="$code"; fi
done
exit "$highest"
"""


def job_script(pod: Mapping[str, Any], directory: Path, lines: Sequence[ContainerLine], runtime: Path) -> str:
    """Text of ``job.sh``: init containers one after the other, then all containers at once."""
    meta = pod["metadata"]
    annotations = meta.get("annotations") or {}
    parts = [_HEAD.format(directory=shlex.quote(str(directory)), pod=f"{meta['namespace']}/{meta['uid']}")]
    for line in sorted(lines, key=lambda one: not one.init):
        function = "runInitCtn" if line.init else "runCtn"
        parts.append(f"{function} {shlex.quote(line.name)} {command_line(runtime, line, annotations)}\n")
    return "".join([*parts, _TAIL])


def environment_file(environment: Mapping[str, str]) -> str:
    """Text of an ``--env-file``: one shell-quoted assignment per variable."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
