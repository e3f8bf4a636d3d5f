# SPDX-License-Identifier: Apache-2.0
"""A program of its own that holds another one, with all its descendants, and ends them when its parent ends.

A death signal (``prctl``) reaches one process. A program that starts others in sessions of their own, as
``airflow standalone`` does, would leave them behind when whoever started it is killed. This one is a subreaper: what
loses its parent becomes its child, so that nothing gets away.

Run as ``python -I -S keeper.py PARENT PATIENCE PROGRAM [ARGUMENTS]``. It needs Linux and the standard library alone.
SIGTERM (also sent by the kernel when the parent ends) asks the program to end and kills what is left after
``PATIENCE`` seconds; SIGUSR1 kills at once. The exit code is the program's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}


def main(arguments: list[str]) -> int:
    """Run the program to its end and return its exit code."""
    parent, patience, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    # This process has one thread, which makes preexec_fn safe.
    child = subprocess.Popen(command, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before))
    code = _wait(child, patience)
    _kill_descendants()
    return code if code >= 0 else 128 - code


def _wait(child: subprocess.Popen[bytes], patience: float) -> int:
    """Return the program's exit code once it has ended, or been asked to and did not."""
    deadline: float | None = None
    while (code := _reaped(child)) is None:
        left = 60.0 if deadline is None else max(0.0, deadline - time.monotonic())
        found = signal.sigtimedwait(_WATCHED, left)
        number = None if found is None else found.si_signo
        if number == signal.SIGUSR1 or (number is None and deadline is not None):
            return -int(signal.SIGKILL)
        if number in (signal.SIGTERM, signal.SIGINT) and deadline is None:
            deadline = time.monotonic() + patience
            os.kill(child.pid, signal.SIGTERM)  # it is ours until it is reaped, so that the number is its own
    return code


def _reaped(child: subprocess.Popen[bytes]) -> int | None:
    """Collect every process that has ended; the exit code of the program if it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        if pid == 0:
            return None
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


def _kill_descendants() -> None:
    """Kill every descendant, and those they start meanwhile, until there is none."""
    while True:
        for pid in _descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0.1)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # "pid (name) state parent ...", and the name may hold anything.
                parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
