# SPDX-License-Identifier: Apache-2.0
"""``kill -9`` of what ``make up`` and ``make demo`` run: nothing is left, or ``make down`` ends it and says so."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from oscar_testbed import keeper, strays
from oscar_testbed.process import wait_until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's"),
    pytest.mark.timeout(900),
]
TESTBED = [sys.executable, "-m", "oscar_testbed"]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where it runs; whatever a failed test leaves there is ended."""
    monkeypatch.setenv(strays.VARIABLE, "")
    found = tmp_path / "up"
    yield found
    strays.end(found)


def commands(directory: Path) -> dict[int, str]:
    """What runs that was started in a directory, by process id."""
    found = {}
    for pid in strays.find(directory):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if words:  # a zombie has none
                found[pid] = words
    return found


def parts(found: dict[int, str]) -> set[str]:
    """Which of the programs a user would look for are among them."""
    words = ("scheduler", "dag-processor", "triggerer", "api_server", "api-server", "weed", "slurmctld", "slurmd")
    return {word for word in words if any(word in command for command in found.values())}


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def start(directory: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a command that runs in the directory, and wait until Airflow's scheduler and triggerer do."""
    log = directory.with_suffix(".log").open("wb")
    with log:
        process = subprocess.Popen(
            [*TESTBED, *words, "--directory", str(directory)], stdout=log, stderr=log, start_new_session=True
        )

    def runs() -> bool:
        assert process.poll() is None, directory.with_suffix(".log").read_text()
        return {"scheduler", "triggerer"} <= parts(commands(directory))

    wait_until(runs, what="Airflow runs", timeout=600)
    return process


@pytest.mark.parametrize("words", [("up", "--airflow"), ("demo",)], ids=" ".join)
def test_nothing_is_left_of_a_platform_with_airflow_that_is_killed(directory: Path, tmp_path: Path, words):
    report = ["--report", str(tmp_path / "report")] if words == ("demo",) else []
    process = start(directory, *words, *report)
    kill(process.pid)
    process.wait()
    wait_until(lambda: not commands(directory), what="everything has ended", timeout=300)
    done = subprocess.run([*TESTBED, "down", "--directory", str(directory)], capture_output=True, text=True, check=True)
    assert done.stderr == "nothing is up\n"


def test_down_ends_what_is_left_when_the_keepers_are_killed_too(directory: Path):
    process = start(directory, "up", "--airflow")
    # Nobody is left who could end the others: first those that hold them, then the platform.
    for pid, words in commands(directory).items():
        if keeper.__file__ in words:
            kill(pid)
    kill(process.pid)
    process.wait()
    left = commands(directory)
    assert "scheduler" in parts(left)
    done = subprocess.run([*TESTBED, "down", "--directory", str(directory)], capture_output=True, text=True, check=True)
    assert "nothing is up; ended" in done.stderr
    assert "left behind" in done.stderr
    assert commands(directory) == {}
