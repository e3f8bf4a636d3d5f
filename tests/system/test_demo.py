# SPDX-License-Identifier: Apache-2.0
"""The 3DGAN demo end to end on the stack: what ``make demo BACKEND=system`` runs."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from oscar_testbed.cli import CANNOT
from oscar_testbed.demo import scenario
from oscar_testbed.process import end, spawn
from oscar_testbed.real.cluster import kube_client
from oscar_testbed.real.stack import default_directory

ROOT = Path(__file__).parents[2]
PATIENCE = 900
NAMESPACES = ("default", "oscar-svc")


def demo(directory, log_path):
    """Run the demo; when we are killed, it is told to stop, so that it can clear up."""
    command = [
        sys.executable,
        "-m",
        "oscar_testbed",
        "demo",
        "--backend",
        "system",
        "--stack",
        str(default_directory()),
    ]
    command += ["--directory", str(directory / "run"), "--report", str(directory / "demo-report")]
    with log_path.open("wb") as log:
        process = spawn(command, stdout=log.fileno(), cwd=ROOT, death_signal=signal.SIGTERM)
    try:
        return process.wait(PATIENCE)
    finally:
        if process.poll() is None:
            end(process, patience=60.0)


def pods(site):
    with kube_client(site.kubeconfig) as client:
        items = [client.get(f"/api/v1/namespaces/{name}/pods").json()["items"] for name in NAMESPACES]
    return {pod["metadata"]["name"] for found in items for pod in found}


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE + 120)
def test_every_object_is_processed_once_and_proven(site, tmp_path, capsys):
    if site.slurm is None:
        pytest.skip("the demo brings its own stores and OSCAR, and needs our own stack for them")
    before = pods(site)
    log_path = tmp_path / "demo.log"
    code = demo(tmp_path, log_path)
    output = log_path.read_text()
    with capsys.disabled():
        sys.stdout.write(f"\n{output}")
    if code == CANNOT:
        pytest.skip(output.splitlines()[-1])
    assert code == 0
    report = (tmp_path / "demo-report" / "report.html").read_text()
    assert f"{len(scenario.DROPS) + 1} runs, every one proven by its manifest" in report
    for drop in scenario.DROPS:
        assert quote(drop.name, safe="/~") in report
    jobs = set(re.findall(r">SLURM (\d+)<", report))
    assert len(jobs) == 5, "one for each file on the HPC side, and the run by hand"
    known = site.slurm.jobs()
    assert {known[job].long_state for job in jobs} == {"COMPLETED"}
    assert pods(site) - before == set()
