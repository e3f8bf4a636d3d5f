# SPDX-License-Identifier: Apache-2.0
"""A program with descendants in sessions of their own: nothing of it is left, however it or its parent ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from oscar_testbed.errors import PlatformError
from oscar_testbed.process import Program, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")
#: Two generations that leave the process group; both ignore being asked to end.
FAMILY = (
    "trap '' TERM; setsid sh -c 'trap \"\" TERM; setsid sleep 300 & echo $! > {0}/grandchild; wait' & "
    "echo $! > {0}/child; echo $$ > {0}/self; wait"
)


def family(directory: Path) -> list[int]:
    """Process ids, once all of them run."""
    files = [directory / name for name in ("self", "child", "grandchild")]
    wait_until(lambda: all(f.exists() and f.read_text().strip() for f in files), what="all run", timeout=60)
    return [int(f.read_text()) for f in files]


def gone(pids: list[int]) -> Callable[[], bool]:
    return lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids)


def start(directory: Path, script: str, patience: float) -> Program:
    program = Program(
        "family", ["sh", "-c", script], log_path=directory / "log", patience=patience, with_descendants=True
    )
    program.start()
    return program


def test_nothing_is_left_when_the_program_is_stopped(tmp_path: Path):
    program = start(tmp_path, FAMILY.format(tmp_path), 0.1)
    pids = family(tmp_path)
    program.stop()
    assert gone(pids)()


def test_nothing_is_left_when_the_program_is_killed(tmp_path: Path):
    program = start(tmp_path, FAMILY.format(tmp_path), 60)
    pids = family(tmp_path)
    program.kill()
    assert gone(pids)()


def test_nothing_is_left_when_the_program_ends_by_itself(tmp_path: Path):
    program = start(tmp_path, f"setsid sleep 300 & echo $! > {tmp_path}/pid; exit 7", 1)
    wait_until(lambda: not program.running, what="it ended", timeout=60)
    assert gone([int((tmp_path / "pid").read_text())])()
    with pytest.raises(PlatformError, match="exit code 7"):
        program.require_running()
    program.stop()


def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path):
    code = (
        "import pathlib, signal\n"
        "from oscar_testbed.process import Program\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        f"p = Program('x', ['sh', '-c', {FAMILY.format(tmp_path)!r}], log_path=here / 'log', patience=0.1,\n"
        "            with_descendants=True)\n"
        "p.start(); signal.pause()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    pids = family(tmp_path)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(gone(pids), what="all are gone", timeout=60)


def test_a_program_that_starts_itself_again_ends_with_its_parent(tmp_path: Path):
    """As MinIO does, from a thread of its own, by which Linux forgets whom to tell of the parent's end."""
    again = "import os, pathlib, signal; pathlib.Path('again').write_text(str(os.getpid())); signal.pause()"
    first = (
        "import os, sys, threading\n"
        f"threading.Thread(target=os.execv, args=(sys.executable, [sys.executable, '-c', {again!r}])).start()\n"
        "threading.Event().wait()\n"
    )
    code = (
        "import pathlib, signal, sys\n"
        "from oscar_testbed.process import Program\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        f"p = Program('x', [sys.executable, '-c', {first!r}], log_path=here / 'log', cwd=here, patience=0.1,\n"
        "            with_descendants=True)\n"
        "p.start(); signal.pause()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    started = tmp_path / "again"
    wait_until(lambda: started.exists() and bool(started.read_text()), what="it has started itself again", timeout=60)
    parent.kill()
    parent.wait()
    wait_until(gone([int(started.read_text())]), what="it is gone", timeout=60)


def test_the_program_is_asked_before_it_is_killed(tmp_path: Path):
    program = start(tmp_path, f"trap 'echo asked > {tmp_path}/asked; exit 0' TERM; echo > {tmp_path}/ready; "
                    "while :; do sleep 0.05; done", 60)  # fmt: skip
    wait_until((tmp_path / "ready").exists, what="it is ready", timeout=60)
    program.stop()
    assert (tmp_path / "asked").read_text() == "asked\n"
