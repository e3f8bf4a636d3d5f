# SPDX-License-Identifier: Apache-2.0
"""Programs the user brings: upstream's own releases, looked up and never built or downloaded here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: What can be brought, and what takes its place where it is absent.
PROGRAMS = {
    "interlink": "the embedded virtual nodes",
    "virtual-kubelet": "the embedded virtual nodes",
    "interlink-slurm-plugin": "the embedded virtual nodes",
    "oscar": "the embedded OSCAR",
    "minio": "SeaweedFS",
}
#: The three programs that make interLink; one alone is of no use.
INTERLINK = ("interlink", "virtual-kubelet", "interlink-slurm-plugin")


def find(name: str) -> Path | None:
    """Path of a program in the directory that ``REAL_BIN`` names, else on PATH, else None."""
    directory = os.environ.get("REAL_BIN")
    found = (shutil.which(name, path=directory) if directory else None) or shutil.which(name)
    return Path(found).absolute() if found else None


def complete(names: tuple[str, ...]) -> bool:
    """Whether all of them are there."""
    return all(find(name) for name in names)
