# SPDX-License-Identifier: Apache-2.0
"""What the stack changed on the machine, written down before it is done, so that it can be undone after a crash."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_SYSCTL = re.compile(r"[a-z0-9_.]+")
_PROC = Path("/proc")
_PATIENCE = 5.0


class UndoLog:
    """One line of JSON per change, in order; :meth:`undo` takes them back from the last to the first.

    :param directory: the stack's; the file lies in it.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "ledger.jsonl"
        self._directory = directory

    def note(self, kind: str, value: str, before: str = "") -> None:
        """Write a change down, to be called before it is made.

        :param kind: ``sysctl``, ``link``, ``mounts`` (all below a path), ``cgroup`` or ``shims`` (of a socket).
        :param value: what is changed.
        :param before: what a sysctl was.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([kind, value, before]) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def undo(self) -> list[str]:
        """Take back everything that is written down, and return what could not be; safe to call again."""
        failed = []
        for kind, value, before in reversed(list(self._entries())):
            try:
                _UNDO[kind](value, before)
            except (OSError, subprocess.SubprocessError, KeyError) as error:
                failed.append(f"{kind} {value}: {error}")
        if not failed:
            self.path.unlink(missing_ok=True)
        return failed

    def _entries(self) -> Iterator[tuple[str, str, str]]:
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_text().splitlines():
                with contextlib.suppress(ValueError):  # the last line of a crash may be half a line
                    kind, value, before = json.loads(line)
                    yield kind, value, before


def read_sysctl(name: str) -> str:
    """Present value of a kernel setting."""
    return _sysctl_path(name).read_text().strip()


def _sysctl_path(name: str) -> Path:
    if not _SYSCTL.fullmatch(name):
        raise ValueError(f"{name!r} is not a sysctl")
    return _PROC / "sys" / name.replace(".", "/")


def _undo_sysctl(name: str, before: str) -> None:
    if read_sysctl(name) != before:
        _sysctl_path(name).write_text(before)


def _undo_link(name: str, _: str) -> None:
    if Path("/sys/class/net", name).exists():
        subprocess.run(["ip", "link", "delete", name], check=True, capture_output=True, timeout=20)


def mounts_below(path: str) -> list[str]:
    """Mount points at or below a path, the deepest last mounted first."""
    points = []
    for line in (_PROC / "self" / "mounts").read_text().splitlines():
        point = line.split()[1].encode().decode("unicode_escape")
        if point == path or point.startswith(f"{path}/"):
            points.append(point)
    return points[::-1]


def _undo_mounts(path: str, _: str) -> None:
    for point in mounts_below(path):
        done = subprocess.run(["umount", point], check=False, capture_output=True, timeout=20)
        if done.returncode != 0:
            subprocess.run(["umount", "--lazy", point], check=True, capture_output=True, timeout=20)


def _undo_cgroup(path: str, _: str) -> None:
    """Kill what is in a control group of ours and remove it from every hierarchy."""
    root = Path("/sys/fs/cgroup")
    hierarchies = [root, *(entry for entry in root.iterdir() if entry.is_dir())]
    groups = [hierarchy / path.strip("/") for hierarchy in hierarchies if (hierarchy / path.strip("/")).is_dir()]
    pids = {int(pid) for group in groups for file in group.rglob("cgroup.procs") for pid in file.read_text().split()}
    end_processes(pids)
    for group in groups:
        for folder in sorted((folder for folder in group.rglob("*") if folder.is_dir()), reverse=True):
            folder.rmdir()
        group.rmdir()


def _undo_shims(socket: str, _: str) -> None:
    """End containerd's helpers, which outlive it on purpose; each names the socket it reports to."""
    end_processes(
        {pid for pid, words in _command_lines() if words[0].endswith("containerd-shim-runc-v2") and socket in words}
    )


def stray_jobs(home: Path) -> set[int]:
    """Processes of a private SLURM that was killed: its daemons and jobs have its directory as their HOME."""
    marker = b"HOME=" + os.fsencode(home)
    found = set()
    for pid in _pids():
        with contextlib.suppress(OSError):
            words = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
            if marker in words:
                found.add(pid)
    return found - {os.getpid()}


def end_processes(pids: set[int]) -> None:
    """Ask processes to end, wait, and force those that did not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + _PATIENCE
        while (pids := {pid for pid in pids if _alive(pid)}) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not pids:
            return


def remove_tree(path: Path) -> None:
    """Remove a directory, but never through a mount that is still there."""
    if mounts_below(str(path)):
        raise OSError(f"{path} still has mounts below it")
    shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for pid in _pids():
        with contextlib.suppress(OSError):
            words = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
            yield pid, words


_UNDO = {
    "sysctl": _undo_sysctl,
    "link": _undo_link,
    "mounts": _undo_mounts,
    "cgroup": _undo_cgroup,
    "shims": _undo_shims,
}
