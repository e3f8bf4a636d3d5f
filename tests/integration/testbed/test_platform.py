# SPDX-License-Identifier: Apache-2.0
"""The embedded platform as a whole: up together, down together, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from airflow.models.connection import Connection
from oscar_testbed import LocalPlatform
from oscar_testbed.errors import PlatformError
from oscar_testbed.fakes.s3 import LocalS3


def _processes_below(directory: Path) -> list[int]:
    """Processes whose command line or working directory names the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            running = (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            continue
        if str(directory) in command and running:
            found.append(int(entry.name))
    return found


def _eventually(check: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    directory = tmp_path_factory.mktemp("platform")
    with LocalPlatform(directory, slurm="builtin") as platform:
        yield platform
    assert _eventually(lambda: not _processes_below(directory), 5)


def test_every_component_answers(platform: LocalPlatform):
    assert platform.unhealthy() == []
    assert set(platform.timings) == {"S3", "dCache", "Kubernetes", "SLURM", "interLink", "OSCAR"}


def test_the_connections_are_ones_airflow_can_read(platform: LocalPlatform):
    environment = platform.environment()
    assert set(environment) == {
        "AIRFLOW_CONN_OSCAR_DEFAULT",
        "AIRFLOW_CONN_DCACHE_DEFAULT",
        "AIRFLOW_CONN_OSCAR_S3_DEFAULT",
        "AIRFLOW_CONN_INTERLINK_DEFAULT",
    }
    for name, value in environment.items():
        connection = Connection.from_json(value, conn_id=name)
        assert connection.conn_type in ("oscar", "dcache", "oscar_s3", "interlink")


def test_the_stores_take_files(platform: LocalPlatform):
    platform.s3.create_bucket("incoming")
    platform.s3.client().put_object(Bucket="incoming", Key="a", Body=b"x")
    platform.dcache.put("/incoming/a", b"x")
    listing = httpx.get(
        f"{platform.dcache.frontend_url}/api/v1/namespace/incoming?children=true",
        auth=(platform.dcache.user, platform.dcache.password),
    )
    assert [each["fileName"] for each in listing.json()["children"]] == ["a"]


def test_starting_twice_is_fine(platform: LocalPlatform):
    before = platform.connections
    platform.start()
    assert platform.connections == before


def test_a_component_that_cannot_start_takes_the_others_down_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(self: LocalS3) -> None:
        raise PlatformError("no store today")

    monkeypatch.setattr(LocalS3, "start", fail)
    platform = LocalPlatform(tmp_path, slurm="builtin")
    with pytest.raises(PlatformError, match="no store today"):
        platform.start()
    assert platform.unhealthy() == []
    assert not platform.dcache.healthy()
    with pytest.raises(PlatformError, match="call start"):
        _ = platform.connections
    platform.stop()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "oscar_testbed", "up", "--slurm", "builtin"]
    process = subprocess.Popen(
        [*command, "--directory", str(tmp_path / "p")], stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


def _until_up(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "the platform is up" in line:
            return
    raise AssertionError("".join(said))


def test_up_writes_private_files_and_down_removes_everything(tmp_path: Path, program: subprocess.Popen[str]):
    _until_up(program)
    directory = tmp_path / "p"
    for name in ("environment", "connections.json"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    connections = json.loads((directory / "connections.json").read_text())
    shell = f'. {directory}/environment && printf %s "$AIRFLOW_CONN_DCACHE_DEFAULT"'
    sourced = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    assert json.loads(sourced.stdout) == connections["dcache_default"]
    second = subprocess.run(
        [sys.executable, "-m", "oscar_testbed", "up", "--directory", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (second.returncode, "already runs" in second.stderr) == (1, True)
    down = [sys.executable, "-m", "oscar_testbed", "down", "--directory", str(directory)]
    assert subprocess.run(down, check=False).returncode == 0
    assert program.wait(20) == 0
    assert not (directory / "environment").exists()
    assert _eventually(lambda: not _processes_below(directory), 5)
    assert subprocess.run(down, check=False).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_a_platform_that_is_killed_leaves_no_process(tmp_path: Path, program: subprocess.Popen[str]):
    _until_up(program)
    assert len(_processes_below(tmp_path / "p")) > 1
    program.send_signal(signal.SIGKILL)
    program.wait()
    assert _eventually(lambda: not _processes_below(tmp_path / "p"), 10)


def test_a_platform_interrupted_while_it_starts_stops_what_it_began(tmp_path: Path, program: subprocess.Popen[str]):
    assert program.stderr is not None
    while "starting S3" not in program.stderr.readline():
        assert program.poll() is None
    program.send_signal(signal.SIGINT)
    assert program.wait(70) == 0
    assert _eventually(lambda: not _processes_below(tmp_path / "p"), 5)
