# SPDX-License-Identifier: Apache-2.0
"""A batch script as people give it to ``sbatch``: its ``#SBATCH`` lines become SLURM options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.slurm import FIELD_OF_FLAG, SlurmOptions

_LONG = {
    "A": "account",
    "C": "constraint",
    "D": "chdir",
    "G": "gpus",
    "J": "job-name",
    "L": "licenses",
    "N": "nodes",
    "c": "cpus-per-task",
    "e": "error",
    "n": "ntasks",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "t": "time",
    "d": "dependency",
    "w": "nodelist",
    "x": "exclude",
}
#: The log is the job's own, so where the script would have it does not count.
_LEFT_OUT = ("output", "error", "open-mode")
_NUMBERS = ("cpus_per_task", "nodes", "ntasks", "ntasks_per_node")
_MEMORY = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
_MIB = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024 * 1024}


def with_script(slurm: SlurmOptions, script: str) -> SlurmOptions:
    """Return options with what the script's ``#SBATCH`` lines ask for; what the options say themselves wins.

    :param slurm: of the target.
    :param script: text of the script.
    :raises DefinitionError: for a line that cannot be read, or that interLink cannot pass on.
    """
    default = SlurmOptions()
    untouched = {each.name for each in fields(slurm) if getattr(slurm, each.name) == getattr(default, each.name)}
    found: dict[str, Any] = {}
    further: list[str] = []
    for name, value in _flags(script):
        field = FIELD_OF_FLAG.get(name)
        if name in _LEFT_OUT:
            continue
        if name == "gres" and re.fullmatch(r"gpu:\d+", value):
            found["gpus"] = int(value.partition(":")[2])
        elif field is None:
            further.append(f"--{name}={value}" if value else f"--{name}")
        else:
            found[field] = _value(name, field, value)
    given = {flag.partition("=")[0] for flag in slurm.extra_flags}
    extra = (*slurm.extra_flags, *(flag for flag in further if flag.partition("=")[0] not in given))
    return replace(slurm, **{name: value for name, value in found.items() if name in untouched}, extra_flags=extra)


def _value(name: str, field: str, value: str) -> object:
    if field == "memory_mib":
        match = _MEMORY.fullmatch(value)
        if match is None or value.strip("0") == "":
            raise DefinitionError(
                f"#SBATCH --mem={value}: expected a size such as 4G; a whole node cannot be asked for"
            )
        return max(round(int(match[1]) * _MIB[match[2].upper()]), 1)
    if field in _NUMBERS:
        if not value.isascii() or not value.isdigit():
            raise DefinitionError(f"#SBATCH --{name}={value}: expected one number")
        return int(value)
    return value


def _flags(script: str) -> Iterator[tuple[str, str]]:
    """Names and values of the directives, which end at the first command."""
    for line in script.splitlines():
        if not line.startswith("#SBATCH"):
            if line.strip() and not line.startswith("#"):
                return
            continue
        try:
            words = shlex.split(line.removeprefix("#SBATCH"), comments=True)
        except ValueError as error:
            raise DefinitionError(f"{quoted(line)}: {error}") from error
        while words:
            word = words.pop(0)
            name, _, value = word.removeprefix("--").partition("=")
            if not word.startswith("--"):
                name, value = _LONG.get(word[1:2], ""), word[2:].removeprefix("=")
            if not word.startswith("-") or not name:
                raise DefinitionError(
                    f"{quoted(line)}: {quoted(word)} is not an option that is known; write --name=value"
                )
            if not value and words and not words[0].startswith("-"):
                value = words.pop(0)
            yield name, value
