# SPDX-License-Identifier: Apache-2.0
"""The container runtime stand-in, run as the program it is."""

from __future__ import annotations

import subprocess

import pytest
from oscar_testbed.fakes.interlink.containers import install_runtime
from oscar_testbed.images import LocalImage


@pytest.fixture
def run(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    tool = tools / "greet"
    tool.write_text("#!/bin/sh\necho hello $1\n")
    tool.chmod(0o755)
    image = LocalImage("tools:1", [tools], {"FROM_IMAGE": "yes"})
    program = install_runtime(tmp_path / "bin", {image.name: image})

    def call(*words, **environment):
        return subprocess.run(
            [str(program), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "workingPath": str(tmp_path), **environment},
        )

    return call


def test_command_sees_the_image_and_nothing_of_the_caller(run):
    done = run("exec", "--containall", "--nv", "docker://tools:1", "env", HOST_SECRET="x", SINGULARITYENV_JOB="7")
    lines = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert lines["FROM_IMAGE"] == "yes"
    assert lines["JOB"] == "7"
    assert "HOST_SECRET" not in lines
    assert lines["HOME"].startswith(lines["CONTAINER_SANDBOX_MOUNT_POINT"])


def test_programs_of_the_image_come_first(run):
    assert run("exec", "tools:1", "greet", "you").stdout == "hello you\n"


def test_mounts_appear_below_the_sandbox(run, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "key").write_text("k")
    binds = ["--bind", f"{tmp_path}/shared:/data:rw", "--bind", f"{tmp_path}/key:/var/run/x/key:ro"]
    script = 'cat "$CONTAINER_SANDBOX_MOUNT_POINT/var/run/x/key" > "$CONTAINER_SANDBOX_MOUNT_POINT/data/copy"'
    done = run("exec", *binds, "tools:1", "/bin/sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "shared" / "copy").read_text() == "k"


def test_exit_code_is_the_commands(run):
    assert run("exec", "tools:1", "/bin/sh", "-c", "exit 42").returncode == 42


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        pytest.param(["exec", "nobody:1", "true"], 255, "image 'nobody:1' is not known", id="image"),
        pytest.param(["exec", "tools:1", "no-such-program"], 127, "executable file not found", id="command"),
        pytest.param(["run", "tools:1"], 255, "no command of its own", id="entrypoint"),
        pytest.param(["exec", "--bind", "/nowhere/at/all:/x", "tools:1", "true"], 255, "does not exist", id="source"),
        pytest.param(["exec", "--bind", "/tmp:/../../x", "tools:1", "true"], 255, "leads out", id="target"),
        pytest.param(["start", "tools:1"], 255, "usage", id="verb"),
    ],
)
def test_what_cannot_start_says_why(run, words, code, message):
    done = run(*words)
    assert done.returncode == code
    assert message in done.stderr
