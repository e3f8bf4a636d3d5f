# SPDX-License-Identifier: Apache-2.0
"""A lock file that one process holds at a time, with its owner's process id in it.

The lock is the kernel's (``flock``): it ends with its owner, however that ends, and what the file says is only read
while somebody holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from oscar_testbed.errors import PlatformError

#: :func:`owner` takes the lock for a moment to see whether it is free; who wants it meanwhile tries again.
_ATTEMPTS = 5
_PAUSE = 0.05


@contextlib.contextmanager
def hold(path: Path, busy: str, remedy: str, *, error: type[Exception] = PlatformError) -> Iterator[None]:
    """Hold a lock, with our process id in the file.

    :param path: the lock file; its directory is made.
    :param busy: what the error says of another process that holds it.
    :param remedy: what to do about that.
    :param error: raised if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a+", encoding="ascii") as file:
        for attempt in range(1, _ATTEMPTS + 1):
            if _try(file):
                break
            if attempt == _ATTEMPTS:
                raise error(f"{busy} (process {_pid(file)}); {remedy}")
            time.sleep(_PAUSE)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def owner(path: Path) -> int | None:
    """Process id of who holds a lock, or None."""
    with contextlib.suppress(FileNotFoundError), path.open("r+", encoding="ascii") as file:
        if not _try(file):
            return _pid(file)
    return None


def _try(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(file: IO[str]) -> int | None:
    file.seek(0)
    text = file.read().strip()
    return int(text) if text.isdigit() else None
