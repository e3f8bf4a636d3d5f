# SPDX-License-Identifier: Apache-2.0
"""A batch script as people give it to ``sbatch``: its ``#SBATCH`` lines become SLURM options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.slurm import FIELD_OF_FLAG, SlurmOptions, flag_text
from airflow_provider_oscar.core.slurm_notations import is_node_range

#: sbatch's own short forms; those of the second table take no value.
_LONG = {
    "A": "account",
    "B": "extra-node-info",
    "C": "constraint",
    "D": "chdir",
    "F": "nodefile",
    "G": "gpus",
    "J": "job-name",
    "L": "licenses",
    "M": "clusters",
    "N": "nodes",
    "S": "core-spec",
    "a": "array",
    "b": "begin",
    "c": "cpus-per-task",
    "d": "dependency",
    "e": "error",
    "i": "input",
    "m": "distribution",
    "n": "ntasks",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "t": "time",
    "w": "nodelist",
    "x": "exclude",
}
_SWITCHES = {
    "H": "hold",
    "O": "overcommit",
    "Q": "quiet",
    "V": "version",
    "W": "wait",
    "h": "help",
    "k": "no-kill",
    "s": "oversubscribe",
    "v": "verbose",
}
#: Their values are read by people alone, so what cannot be in them is replaced.
_LABELS = ("job-name", "comment")
#: Separates the parts of a heterogeneous job.
_PARTS = ("hetjob", "packjob")
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
            found[field] = flag_text(value) if name in _LABELS else _value(name, field, value)
    given = {flag.partition("=")[0] for flag in slurm.extra_flags}
    extra = (*slurm.extra_flags, *(flag for flag in further if flag.partition("=")[0] not in given))
    return replace(slurm, **{name: value for name, value in found.items() if name in untouched}, extra_flags=extra)


def interpreter(script: str) -> list[str]:
    """Return the program that the script's first line names, with its argument, as Linux reads it.

    :param script: text of the script.
    :raises DefinitionError: for a script that ``sbatch`` would refuse.
    """
    first = script.partition("\n")[0]
    words = first.removeprefix("#!").split(None, 1)
    if not first.startswith("#!") or not words:
        raise DefinitionError(
            f"the script begins with {quoted(first[:80])}; sbatch wants #! and the path of an interpreter, such as "
            "#!/bin/bash, in the first line of its text (give the text of a file, not its name)"
        )
    if "\r\n" in script:
        raise DefinitionError(
            "the script has DOS line breaks (\\r\\n), of which each shell makes part of the words; sbatch refuses it "
            "as well. Convert it, for example by dos2unix"
        )
    if "\0" in script:
        raise DefinitionError("the script has a NUL in it, at which shells and sbatch stop reading")
    return [word.strip() for word in words]


def _value(name: str, field: str, value: str) -> object:
    if field == "memory_mib":
        match = _MEMORY.fullmatch(value)
        if match is None or value.strip("0") == "":
            raise DefinitionError(
                f"#SBATCH --mem={value}: expected a size such as 4G; a whole node cannot be asked for"
            )
        return max(round(int(match[1]) * _MIB[match[2].upper()]), 1)
    if field == "nodes" and is_node_range(value):
        return value
    if field in _NUMBERS:
        if not value.isascii() or not value.isdigit():
            what = "one number, or a range such as 2-4" if field == "nodes" else "one number"
            raise DefinitionError(f"#SBATCH --{name}={value}: expected {what}")
        return int(value)
    return value


def _flags(script: str) -> Iterator[tuple[str, str]]:
    """Names and values of the directives, which end at the first command."""
    for line in script.split("\n"):
        if line.startswith("#SBATCH"):
            try:
                words = shlex.split(line.removeprefix("#SBATCH"), comments=True)
            except ValueError as error:
                raise DefinitionError(f"{quoted(line)}: {error}") from error
            yield from _options(line, words)
        elif line.strip() and not line.lstrip().startswith("#"):
            return


def _options(line: str, words: list[str]) -> Iterator[tuple[str, str]]:
    while words:
        word = words.pop(0)
        if word in _PARTS:
            raise DefinitionError(
                f"{quoted(line)}: a heterogeneous job has several parts, and one pod is one job of one part; submit "
                "one task for each part, or ask for what all parts together need"
            )
        if word.startswith("-") and word[1:] in _SWITCHES:
            yield _SWITCHES[word[1:]], ""
            continue
        name, _, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            name, value = _LONG.get(word[1:2], ""), word[2:].removeprefix("=")
        if not word.startswith("-") or not name:
            raise DefinitionError(f"{quoted(line)}: {quoted(word)} is not an option that is known; write --name=value")
        if not value and words and not words[0].startswith("-"):
            value = words.pop(0)
        yield name, value
