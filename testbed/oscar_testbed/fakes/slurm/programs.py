# SPDX-License-Identifier: Apache-2.0
"""SLURM's programs: the machine's own, or those of another release in a folder that ``OSCAR_STACK_SLURM`` names."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from oscar_testbed import programs
from oscar_testbed.errors import MissingPrerequisite, quoted

#: Names the folder of an installation (``--prefix``), or one with all programs in it.
VARIABLE = "OSCAR_STACK_SLURM"
_VERSION = re.compile(r"^slurm(?:-wlm)? ((\d+)\.(\d+)\S*)", re.MULTILINE)


def folders() -> list[Path]:
    """Where programs are looked for before anywhere else; empty where the machine's own are meant."""
    given = os.environ.get(VARIABLE)
    return [Path(given).absolute() / name for name in ("", "bin", "sbin")] if given else []


def find(name: str) -> Path | None:
    """Path of a program."""
    return programs.find_program(name, folders=folders())


def missing(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the programs that are not there."""
    return programs.missing(names, folders=folders())


def plugin_settings() -> dict[str, str]:
    """What configurations say of a named folder's plugins, whose programs were built to look elsewhere for them."""
    given = os.environ.get(VARIABLE)
    found = Path(given).absolute() / "lib" / "slurm" if given else None
    return {"PluginDir": str(found)} if found and found.is_dir() else {}


def step_daemon() -> Path | None:
    """slurmstepd of a folder that was named, which slurmd otherwise starts from where it was built to be."""
    return next((found for each in folders() if (found := each / "slurmstepd").is_file()), None)


def version() -> str:
    """Release of the programs, such as ``22.05.8``.

    :raises MissingPrerequisite: when they are not there, or do not say.
    """
    program = find("slurmctld")
    if program is None:
        raise MissingPrerequisite("the program slurmctld is not installed; install slurmctld", part="slurm")
    return _said(program)


def release() -> tuple[int, int]:
    """Year and month of the release, by which configurations differ."""
    year, month = version().split(".")[:2]
    return int(year), int(month)


@functools.cache
def _said(program: Path) -> str:
    done = subprocess.run([str(program), "-V"], capture_output=True, text=True, timeout=20, check=False)
    found = _VERSION.search(done.stdout)
    if found is None:
        said = quoted((done.stdout + done.stderr).strip())
        raise MissingPrerequisite(f"{program} -V does not name a release of SLURM: {said}", part="slurm")
    return found[1]
