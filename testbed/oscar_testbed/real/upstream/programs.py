# SPDX-License-Identifier: Apache-2.0
"""Upstream's release programs: their paths, or an error that names what is absent, and their versions."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.programs import find_program

#: The three programs that make interLink; one alone is of no use.
INTERLINK = ("interlink", "virtual-kubelet", "interlink-slurm-plugin")


def find(name: str) -> Path | None:
    """Path of a program in the directory that ``REAL_BIN`` names, else on PATH, else None."""
    folder = os.environ.get("REAL_BIN")
    return find_program(name, folders=[Path(folder)] if folder else [])


def require(*names: str) -> list[Path]:
    """Paths of programs.

    :raises MissingPrerequisite: naming those that are absent.
    """
    missing = [name for name in names if find(name) is None]
    if missing:
        raise MissingPrerequisite(f"not found in REAL_BIN or on PATH: {', '.join(missing)}", part=missing[0])
    return [path for path in map(find, names) if path is not None]


def version(name: str) -> str:
    """What to call a program's version: the file ``<program>.version`` beside it, else the start of its digest."""
    path = find(name)
    if path is None:
        return "absent"
    version_file = path.with_name(f"{name}.version")
    if version_file.exists():
        return version_file.read_text().strip()
    return f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
