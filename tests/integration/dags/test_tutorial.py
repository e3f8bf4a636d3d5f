# SPDX-License-Identifier: Apache-2.0
"""The tutorial, word for word: its files are written, its commands run in a shell, and what it promises is there.

Also the newcomer's three DAGs: words counted on OSCAR, a numpy function on SLURM, and a sensor before a SLURM job whose
result the next task reads.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([\w/-]+\.(?:py|yaml))`")
#: A busy machine; nothing waits that long elsewhere.
PATIENCE = 600.0

pytestmark = pytest.mark.timeout(1800)


class Newcomer:
    """Somebody with an empty directory, a shell, and this page.

    :param directory: the empty one; also the home directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.prologue = "set -eu\n"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "THREEDGAN"))}
        path = os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", os.defpath)))
        self.environment = {**kept, "HOME": str(directory), "PATH": path, "NO_COLOR": "1"}

    def follow(self, page: str) -> None:
        """Write each file that the page shows under the name said before it, and run each command."""
        begin = 0
        for block in BLOCK.finditer(page):
            before, begin = page[begin : block.start()], block.end()
            if block[1] == "console":
                self.run(block[2])
            else:
                path = self.directory / FILE.findall(before)[-1]
                path.write_text(block[2])

    def run(self, code: str) -> None:
        """Run the lines of a block in a shell; what it has read by ``.`` holds for later ones."""
        # Installed already, as whatever runs this test.
        lines = [line for line in code.splitlines() if not line.startswith("pip install")]
        for line in lines:
            if found := re.match(r"airflow dags trigger (\w+)", line):
                self.wait(lambda found=found: self.get(f"dags/{found[1]}").is_success)
        script = self.prologue + "\n".join(lines)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{code}{done.stdout}{done.stderr}"
        self.prologue += "".join(f"{line}\n" for line in lines if line.startswith(". "))

    def get(self, path: str, **query: str) -> httpx.Response:
        """Ask Airflow's API."""
        state = json.loads((self.directory / ".platform" / "state.json").read_text())
        login = {"username": state["user"], "password": state["password"]}
        token = httpx.post(f"{state['airflow']}/auth/token", json=login, timeout=60).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(f"{state['airflow']}/api/v2/{path}", params=query, headers=headers, timeout=60)

    def run_of(self, dag_id: str) -> dict[str, Any]:
        """Return the DAG's only run, once it has ended."""
        found: list[dict[str, Any]] = []

        def ended() -> bool:
            found[:] = self.get(f"dags/{dag_id}/dagRuns").json()["dag_runs"]
            return bool(found) and found[0]["state"] in ("success", "failed")

        self.wait(ended)
        (run,) = found
        assert run["state"] == "success", run
        return run

    def xcom(self, run: dict[str, Any], task: str) -> Any:
        """Return what a task of a run returned."""
        path = f"dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}/taskInstances/{task}/xcomEntries/return_value"
        return self.get(path, stringify="false").json()["value"]

    @staticmethod
    def wait(condition: Callable[[], bool]) -> None:
        """Return once it is so."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(1)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """A newcomer who has done all of the page but the last step."""
    page, _, rest = PAGE.partition("## 6. Stop")
    found = Newcomer(tmp_path_factory.mktemp("newcomer"))
    try:
        found.follow(page)
        yield found
    finally:
        found.follow(rest)


def test_words_are_counted_on_oscar(newcomer):
    manifest = newcomer.xcom(newcomer.run_of("count_words"), "count")
    (output,) = manifest["outputs"]
    assert output["key"].endswith("words.txt")
    uri = f"{manifest['output_uri'].rstrip('/')}/{output['key']}"
    imported = "from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook"
    newcomer.run(f"python -c \"{imported}; assert OscarS3Hook().read_bytes('{uri}', 100).split() == [b'6']\"")


def test_a_numpy_function_runs_on_slurm_and_its_value_comes_back(newcomer):
    numbers = np.random.default_rng(seed=1).normal(size=(200, 200))
    run = newcomer.run_of("solve_on_slurm")
    assert newcomer.xcom(run, "largest_eigenvalue") == pytest.approx(np.linalg.eigvalsh(numbers + numbers.T).max())


def test_the_result_of_a_slurm_job_after_a_sensor_is_read_by_the_next_task(newcomer):
    run = newcomer.run_of("measure_on_slurm")
    assert newcomer.xcom(run, "read") == 3.5
    assert newcomer.xcom(run, "measure")["slurm_job_id"]


def test_the_dropped_sample_has_a_run_of_its_own(newcomer):
    newcomer.wait(
        lambda: any(
            run["state"] == "success" and "mine.h5" in json.dumps(run)
            for run in newcomer.get("dags/threedgan_inference/dagRuns").json()["dag_runs"]
        )
    )
