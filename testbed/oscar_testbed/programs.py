# SPDX-License-Identifier: Apache-2.0
"""Programs of the machine: where they are, and what to say where they are not."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite

#: Daemons live here, which a user's PATH may lack.
_ADMINISTRATOR = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find_program(name: str, *, folders: Iterable[Path] = ()) -> Path | None:
    """Path of a program: in ``folders``, beside this Python (from a wheel), on PATH, or among the daemons."""
    first = [*map(str, folders), str(Path(sys.executable).parent)]
    places = (os.pathsep.join(first), None, os.pathsep.join(_ADMINISTRATOR))
    found = next((found for place in places if (found := shutil.which(name, path=place))), None)
    return Path(found).absolute() if found else None


def missing(names: Iterable[str], *, folders: Iterable[Path] = ()) -> tuple[str, ...]:
    """Those of the programs that are not there."""
    folders = list(folders)
    return tuple(name for name in names if find_program(name, folders=folders) is None)


def require_program(name: str, *, package: str = "", folders: Iterable[Path] = ()) -> Path:
    """Path of a program.

    :param package: what to install; its own name where that is the same.
    :raises MissingPrerequisite: if it is not there.
    """
    found = find_program(name, folders=folders)
    if found is None:
        raise MissingPrerequisite(f"the program {name} is not installed; install {package or name}", part=name)
    return found
