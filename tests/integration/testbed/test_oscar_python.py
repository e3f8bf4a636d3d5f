# SPDX-License-Identifier: Apache-2.0
"""OSCAR's own Python client against the embedded OSCAR: every method that it has (``make clients`` installs it)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.integration.testbed.test_oscar import cluster

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
#: No success, as 4.1.2 answers an administrator without Kueue, and for a service without secrets.
REFUSED = {
    "get_own_quota": "401",
    "get_user_quota": "500",
    "update_user_quota": "503",
    "add_federation_members": "500",
    "update_federation_members": "500",
}

__all__ = ["cluster"]


@pytest.mark.skipif(not PYTHON.exists(), reason="oscar-python 2.2.0 is not installed; make clients")
def test_every_method_of_oscar_python_is_answered_as_oscar_answers_it(cluster, tmp_path):
    program = ROOT / "tests" / "support" / "oscar_python_calls.py"
    command = [PYTHON, program, cluster.oscar.url, cluster.oscar.username, cluster.oscar.password, tmp_path]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("answer") == "moo hello"
    assert found.pop("log").endswith("moo hello")
    assert json.loads(found.pop("storage")) == ["in/", "in/cow.sh"]
    assert {name: status for name, status in found.items() if not status.startswith("2")} == REFUSED
