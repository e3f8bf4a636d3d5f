# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin of the test bed: what the machine lacks skips every test that needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest
from oscar_testbed.errors import MissingPrerequisite


@pytest.fixture(scope="module")
def gateway():
    raise MissingPrerequisite("no gateway on this machine", part="gateway")


def test_first(gateway): pass
def test_second(gateway): pass
def test_late(request): request.getfixturevalue("gateway")
def test_itself(): raise MissingPrerequisite("no gateway either", part="gateway")
"""


@pytest.mark.parametrize(("words", "ends"), [((), "4 skipped"), (("--require", "gateway"), "2 failed, 2 errors")])
def test_each_test_that_needs_what_is_not_there_is_skipped_or_fails_where_it_is_required(
    tmp_path: Path, words: tuple[str, ...], ends: str
):
    (tmp_path / "test_gateway.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-n", "0", *words]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"{ends} in" in found.stdout.splitlines()[-1], found.stdout
    assert "no gateway on this machine" in found.stdout
