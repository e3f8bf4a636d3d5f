# SPDX-License-Identifier: Apache-2.0
"""What unit tests do without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

#: Modules that measure what a new Python loads.
FRESH = ("test_imports.py", "test_provider_info.py", "test_public_names.py")


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Refused here: to make the database takes each process longer than a hundred unit tests."""
    pytest.fail("a test of the metadata database belongs to tests/integration", pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def no_other_python() -> Iterator[None]:
    """Refuse to start another Python, which takes as long as a hundred unit tests."""
    started = subprocess.Popen.__init__

    def start(self: Any, args: Any, *rest: Any, **options: Any) -> None:
        words = [args] if isinstance(args, str | bytes) else list(args)
        program = str(words[-1] if os.path.basename(str(words[0])) in ("sh", "bash") else words[0])
        python = "python3" in program or sys.executable in program
        test = os.environ.get("PYTEST_CURRENT_TEST", "")
        if python and test.startswith("tests/unit/") and not any(name in test for name in FRESH):
            pytest.fail("a test that starts a Python belongs to tests/integration", pytrace=False)
        started(self, args, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", start)
        yield
