# SPDX-License-Identifier: Apache-2.0
"""What a killed platform left behind is found by whose it is, and ended; nobody else's processes are."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from oscar_testbed import background, strays
from oscar_testbed.errors import PlatformError
from oscar_testbed.lock import hold, owner
from oscar_testbed.process import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@contextlib.contextmanager
def stray(directory: Path, script: str = "exec sleep 300") -> Iterator[subprocess.Popen[bytes]]:
    """A process of a platform in a directory, as if its platform had been killed."""
    environment = {**os.environ, strays.VARIABLE: str(directory)}
    process = subprocess.Popen(["sh", "-c", script], env=environment, start_new_session=True)
    try:
        wait_until(lambda: process.pid in strays.find(directory), what="it is found", timeout=120)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks of a test end with it."""
    monkeypatch.setenv(strays.VARIABLE, "")


def test_processes_of_a_directory_are_ended_and_others_are_not(tmp_path: Path):
    with stray(tmp_path / "one") as one, stray(tmp_path / "one-more") as other:
        assert strays.end(tmp_path / "one") == 1
        assert one.wait(120) != 0
        assert other.poll() is None


def test_a_process_that_does_not_want_to_end_is_killed(tmp_path: Path):
    ready = tmp_path / "ready"
    with stray(tmp_path, f"trap '' TERM; touch {ready}; while :; do sleep 0.05; done") as process:
        wait_until(ready.exists, what="it ignores the signal", timeout=120)
        assert strays.end(tmp_path, patience=0.2) >= 1
        assert process.wait(120) == -9


def test_a_process_never_ends_itself_or_who_started_it(tmp_path: Path):
    strays.mark(tmp_path)
    code = f"from oscar_testbed import strays; from pathlib import Path; print(strays.end(Path({str(tmp_path)!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_down_ends_what_was_left_behind(tmp_path: Path):
    assert background.stop(tmp_path) == "nothing is up"
    with stray(tmp_path) as process:
        assert background.stop(tmp_path) == "nothing is up; ended 1 processes that were left behind"
        assert process.wait(120) != 0


def test_the_next_platform_ends_what_was_left_behind(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with stray(tmp_path) as process:
        with background.only_one(tmp_path):
            assert process.wait(120) != 0
            assert owner(tmp_path / "lock") == os.getpid()
        assert "ended 1 processes" in capfd.readouterr().err
    assert owner(tmp_path / "lock") is None


def test_a_second_platform_is_refused_with_the_first_one_s_process_and_what_to_do(tmp_path: Path):
    with (
        hold(tmp_path / "lock", "busy", "wait"),
        pytest.raises(PlatformError, match=rf"already runs in .* \(process {os.getpid()}\); .*oscar-testbed down"),
        background.only_one(tmp_path),
    ):
        pass


def test_a_directory_is_emptied_but_for_its_lock_and_the_log(tmp_path: Path):
    for name in ("lock", "up.log", "state.json"):
        (tmp_path / name).touch()
    (tmp_path / "airflow").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    background.empty(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "up.log"]
    assert Path("/etc/passwd").exists()


def test_what_does_not_come_up_is_reported_with_its_log(tmp_path: Path):
    with pytest.raises(PlatformError, match=r"exit code 3; see .*up\.log"):
        background.detach(["sh", "-c", "echo no luck; exit 3"], tmp_path)
    assert (tmp_path / "up.log").read_text() == "no luck\n"


def test_the_background_is_left_running_once_it_says_that_it_is_up(tmp_path: Path):
    script = f"echo starting; echo $$ > {tmp_path}/pid; echo '{{}}' > {tmp_path}/state.json; exec sleep 300"
    code = (
        "import pathlib; from oscar_testbed import background\n"
        f"background.detach(['sh', '-c', {script!r}], pathlib.Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=True)
    pid = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{pid}").exists()
    os.kill(pid, 9)
    assert "starting" in done.stderr
