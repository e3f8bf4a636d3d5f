# SPDX-License-Identifier: Apache-2.0
"""The demo's Airflow, and a headless browser that is logged in to it. Needs Debian's chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oscar_testbed import lock
from oscar_testbed.standalone import VIEWER

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def airflow() -> Iterator[dict[str, Any]]:
    """``make up``: address and login of a running Airflow with one sample being processed.

    One that runs already is used as it is and left running, so that a test may be run again without waiting for it.
    """
    directory = ROOT / ".demo" / "up"
    running = lock.owner(directory / "lock") is not None and (directory / "state.json").exists()
    if not running:
        _testbed("up", "--airflow", "--detach")
    try:
        yield json.loads((directory / "state.json").read_text())
    finally:
        if not running:
            _testbed("down")


def _testbed(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "oscar_testbed", *words, "--directory", ".demo/up"], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; each page of it is a visitor of its own."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser: Any, airflow: dict[str, Any]) -> Any:
    """A page of the admin."""
    return _logged_in(browser, airflow["airflow"], airflow["user"], airflow["password"])


@pytest.fixture(scope="module")
def viewer(browser: Any, airflow: dict[str, Any]) -> Any:
    """A page of a user who may look at everything but connections, and change nothing."""
    return _logged_in(browser, airflow["airflow"], VIEWER, airflow["viewer_password"])


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core from npm, which finds what keeps people from using a page."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    directory = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "install", "--silent", "--no-save", "axe-core@4"], cwd=directory, check=True, timeout=300)
    return (directory / "node_modules" / "axe-core" / "axe.min.js").read_text()


def _logged_in(browser: Any, url: str, user: str, password: str) -> Any:
    """Return a logged-in page that collects what goes wrong in it."""
    page = browser.new_page(viewport={"width": 1500, "height": 950}, base_url=url)
    page.set_default_timeout(45_000)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto("/", timeout=240_000)  # a busy machine takes minutes for Airflow's first page
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/(home|dags)?$"))
    return page
