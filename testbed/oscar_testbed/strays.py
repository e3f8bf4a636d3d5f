# SPDX-License-Identifier: Apache-2.0
"""Processes that an earlier platform left behind, found by a variable every one of its programs inherits.

Programs end with the platform also when it is killed; this is for what got away all the same, such as a keeper that
was killed as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

#: Holds the directory of the platform that started a process.
VARIABLE = "OSCAR_TESTBED_DIRECTORY"
_PATIENCE = 10.0


def mark(directory: Path) -> None:
    """Mark this process's future children as those of the platform in ``directory``."""
    os.environ[VARIABLE] = str(directory)


def find(directory: Path) -> list[int]:
    """Process ids of what a platform in ``directory`` started, without this process and its ancestors."""
    wanted = f"{VARIABLE}={directory}".encode()
    own = _ancestors()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(entry.name) not in own and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def end(directory: Path, *, patience: float = _PATIENCE) -> int:
    """End what :func:`find` finds; returns how many processes that were.

    :param patience: seconds between SIGTERM and SIGKILL.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + patience
    while pids := find(directory):
        number = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        for pid in pids:
            if pid not in ended or number == signal.SIGKILL:
                ended.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        time.sleep(0.1)
    return len(ended)


def _ancestors() -> set[int]:
    pids, pid = set(), os.getpid()
    while pid > 0 and pid not in pids:
        pids.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            break
    return pids
