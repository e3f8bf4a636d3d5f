# SPDX-License-Identifier: Apache-2.0
"""The inference as a job runs it: a script in a process of its own, told everything by environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from threedgan.cli import main

from tests.support.showers import showers_in

SCRIPT = Path(__file__).parents[3] / "docker" / "threedgan" / "bin" / "threedgan"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """One run of the script in a process of its own, told everything by environment."""
    directory = tmp_path_factory.mktemp("run")
    assert main(["make-input", "--showers", "3", "--seed", "2", "--output", str(directory / "a b.h5")]) == 0
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(directory / "home"),
        "TMPDIR": str(directory),
        "INPUT_FILE_PATH": str(directory / "a b.h5"),
        "TMP_OUTPUT_DIR": str(directory / "out"),
        "SUPERVISOR_METRICS_FILE": str(directory / "metrics.json"),
        "ACCELERATOR": "gpu",
        "BATCH_SIZE": "2",
        "MAX_DATA_SAMPLES": "2",
    }
    done = subprocess.run([SCRIPT, "infer"], env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done, directory


def test_script_runs_in_place_from_environment_alone(finished):
    done, directory = finished
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (directory / "out").iterdir()) == [
        "a b.metrics.json",
        "a b.png",
        "a b.showers.h5",
    ]
    assert len(showers_in(directory / "out" / "a b.showers.h5")["energy"]) == 2


def test_supervisor_gets_the_metrics_with_the_device_really_used(finished):
    _, directory = finished
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics == json.loads((directory / "out" / "a b.metrics.json").read_text())
    assert metrics["requested"] == "gpu"
    assert metrics["device"] == "gpu" or metrics["warnings"]
    assert metrics["showers"] == 2
    assert metrics["seconds"]["wall"] > metrics["seconds"]["generate"] > 0
    assert metrics["seconds"]["cpu"] > 0
    assert metrics["node"]
    assert len(json.dumps(metrics)) < 4000


def test_nothing_is_left_outside_the_output(finished):
    _, directory = finished
    assert {path.name for path in directory.iterdir()} == {"a b.h5", "metrics.json", "out"}


def test_picture_is_a_png_of_decent_size(finished):
    _, directory = finished
    picture = (directory / "out" / "a b.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000
