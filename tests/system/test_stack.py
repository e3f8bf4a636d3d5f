# SPDX-License-Identifier: Apache-2.0
"""The stack as a tool: it refuses politely, and leaves nothing on the machine, also after a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.slurm import real as slurm_programs
from oscar_testbed.real import debian, kubelet, kubernetes_build, slurm
from oscar_testbed.real.stack import only_one, owner
from oscar_testbed.real.undo_log import UndoLog, mounts_below

ROOT = Path(__file__).parents[2]


@pytest.fixture
def short_directory():
    """A directory whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="stack-") as name:
        yield Path(name)


def command(*words, **settings):
    return subprocess.run(
        [sys.executable, "-m", "oscar_testbed.real", *words],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=280, **settings,
    )  # fmt: skip


def processes_with(text):
    found = subprocess.run(["pgrep", "-f", text], capture_output=True, text=True, check=False)
    return set(found.stdout.split())


def test_second_stack_in_a_directory_is_refused(tmp_path):
    with only_one(tmp_path):
        assert owner(tmp_path) == os.getpid()
        with pytest.raises(MissingPrerequisite, match="already runs"), only_one(tmp_path):
            pass
    assert owner(tmp_path) is None


def test_ledger_is_undone_up_to_the_half_line_of_a_crash(tmp_path):
    undo_log = UndoLog(tmp_path)
    undo_log.note("mounts", str(tmp_path / "nothing"))
    undo_log.note("link", "no-such-link0")
    with undo_log.path.open("a") as file:
        file.write('["sysctl", "kernel.pa')
    assert undo_log.undo() == []
    assert not undo_log.path.exists()


def test_ledger_keeps_what_it_could_not_undo(tmp_path):
    undo_log = UndoLog(tmp_path)
    undo_log.note("unheard-of", "x")
    assert undo_log.undo() == ["unheard-of x: 'unheard-of'"]
    assert undo_log.path.exists()


def test_absent_programs_are_named_with_their_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("OSCAR_STACK_DEBIAN", raising=False)
    monkeypatch.setattr(slurm_programs, "missing_programs", lambda: ("slurmctld",))
    monkeypatch.setattr(kubernetes_build, "_GO_NAMES", ())
    with pytest.raises(MissingPrerequisite, match="golang-1.19-go"):
        kubernetes_build.find_go()
    with pytest.raises(MissingPrerequisite, match="slurmctld not found.; install"):
        slurm.Slurm(tmp_path / "slurm").start()
    with pytest.raises(MissingPrerequisite, match="OSCAR_STACK_DEBIAN"):
        debian.mirror()
    assert kubelet.missing() in ("a kubelet needs root",) or "containerd" in kubelet.missing()


def test_down_of_what_is_not_there_is_fine(tmp_path):
    done = command("down", "--directory", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (0, "nothing runs there\n")


@pytest.mark.slow
@pytest.mark.skipif(bool(kubernetes_build.missing_programs()), reason="Kubernetes has not been built")
def test_down_cleans_up_after_a_crash(short_directory, site):
    """The keeper is killed, as by the machine's memory watchdog; with a node only if none runs already."""
    words = [] if not Path("/sys/class/net/oscar-stack0").exists() else ["--no-node"]
    up = command("up", "--directory", str(short_directory), *words)
    assert up.returncode == 0, up.stdout
    assert "KUBECONFIG=" in up.stdout
    state = json.loads((short_directory / "stack.json").read_text())
    before = processes_with(f"{short_directory}/")
    assert before
    os.kill(state["pid"], signal.SIGKILL)
    down = command("down", "--directory", str(short_directory))
    assert down.returncode == 0, down.stdout
    assert processes_with(f"{short_directory}/") == set()
    assert mounts_below(str(short_directory)) == []
    assert not any(short_directory.parent.glob(f"{short_directory.name}/*"))
