# SPDX-License-Identifier: Apache-2.0
"""Programs are started, watched and ended without anything left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from oscar_testbed.errors import PlatformError
from oscar_testbed.process import LOOPBACK, Program, free_ports, spawn, wait_until


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _eventually(check: Callable[[], bool], seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def sleeper(tmp_path: Path):
    program = Program("sleeper", ["sleep", "300"], log_path=tmp_path / "log")
    yield program
    program.stop()


def test_ports_are_free_and_never_handed_out_twice():
    ports = free_ports(20) + free_ports(20)
    assert len(set(ports)) == 40
    for port in ports:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, port))


def test_a_program_stops_and_stopping_twice_is_fine(sleeper: Program):
    sleeper.start()
    pid = sleeper.pid
    assert pid is not None
    sleeper.stop()
    sleeper.stop()
    assert _gone(pid)
    assert not sleeper.running


def test_a_program_started_by_a_thread_outlives_the_thread(sleeper: Program):
    thread = threading.Thread(target=sleeper.start)
    thread.start()
    thread.join()
    wait_until(lambda: "sleep" in Path(f"/proc/{sleeper.pid}/cmdline").read_text(), what="exec", timeout=120)
    assert sleeper.running


def test_the_children_of_a_program_are_ended_with_it(tmp_path: Path):
    script = f"sleep 300 & echo $! > {tmp_path}/child; wait"
    program = Program("parent", ["sh", "-c", script], log_path=tmp_path / "log")
    program.start()
    wait_until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text() != "", what="x", timeout=120)
    child = int((tmp_path / "child").read_text())
    program.stop()
    assert _eventually(lambda: _gone(child))


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path):
    program = Program(
        "stubborn",
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"],
        log_path=tmp_path / "log",
        patience=0.2,
    )
    program.start()
    wait_until(lambda: "ready" in program.log_tail(), what="it is ready", timeout=120)
    pid = program.pid
    program.stop()
    assert pid is not None
    assert _gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_a_program_dies_with_a_platform_that_is_killed(tmp_path: Path):
    code = (
        "import time, sys, pathlib\n"
        "from oscar_testbed.process import Program\n"
        f"p = Program('x', ['sleep', '300'], log_path=pathlib.Path({str(tmp_path / 'log')!r}))\n"
        "p.start(); print(p.pid, flush=True); time.sleep(300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert not _gone(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert _eventually(lambda: _gone(child))


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_a_program_hears_its_death_signal_although_a_shell_in_the_background_ignores_it(tmp_path: Path):
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)"
    script = (
        "import signal, sys\n"
        "from oscar_testbed.process import spawn\n"
        f"sys.exit(spawn([sys.executable, '-c', {code!r}], stdout=None, death_signal=signal.SIGINT).wait())\n"
    )
    shell = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-c", script]
    assert subprocess.run(shell, capture_output=True, text=True, check=True, timeout=60).stdout == "True\n"


def test_waiting_reports_a_dead_program_with_its_last_words(tmp_path: Path):
    program = Program("loser", ["sh", "-c", "echo no such luck; exit 3"], log_path=tmp_path / "log")
    program.start()
    with pytest.raises(PlatformError, match=r"loser ended by itself with exit code 3.*no such luck"):
        wait_until(lambda: False, what="never", timeout=20, program=program)
    program.stop()


def test_waiting_ends_after_the_timeout_with_growing_pauses():
    now = [0.0]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    with pytest.raises(PlatformError, match="waited 10 s until the moon is blue"):
        wait_until(lambda: False, what="the moon is blue", timeout=10, interval=0.5, clock=lambda: now[0], sleep=sleep)
    assert sum(pauses) == pytest.approx(10)
    assert pauses[0] == 0.5
    assert max(pauses) == 1.0


def test_an_error_at_the_start_reaches_the_caller():
    with pytest.raises(NotADirectoryError):
        spawn(["true"], cwd=Path("/dev/null"))


def test_the_environment_is_the_one_given(tmp_path: Path):
    program = Program("env", ["sh", "-c", "echo $GIVEN"], log_path=tmp_path / "log", env={**os.environ, "GIVEN": "42"})
    program.start()
    wait_until(lambda: "42" in program.log_tail(), what="it printed", timeout=120)
    program.stop()
