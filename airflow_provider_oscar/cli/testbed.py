# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar up`` and ``demo``: the test bed, as a program of its own."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec


def platform_up(options: argparse.Namespace) -> None:
    """Run the embedded platform in the foreground."""
    _run_testbed("up", "--directory", options.directory)


def demo(options: argparse.Namespace) -> None:
    """Run the demo."""
    _run_testbed("demo", "--report", options.report)


def _run_testbed(*arguments: str) -> None:
    # A program of its own: it must set its Airflow up before Airflow is imported, which has happened here.
    if find_spec("oscar_testbed") is None:
        raise SystemExit("the test bed is not installed; pip install 'airflow-provider-oscar[testbed]'")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    os.execve(sys.executable, [sys.executable, "-m", "oscar_testbed", *arguments], clean)
