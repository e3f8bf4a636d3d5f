# SPDX-License-Identifier: Apache-2.0
"""Continuous integration: a test that fails once is unstable, and that is a failure."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / ".ci"
TODAY = datetime.now(UTC).date()


@pytest.mark.parametrize(
    ("second", "listed", "code", "said"),
    [
        pytest.param([], "", 1, "unstable: t::one", id="passes the second time"),
        pytest.param(["t::one"], "", 1, "failed twice: t::one", id="fails twice"),
        pytest.param([], f"{TODAY} t::one\n", 0, "unstable, tolerated for now: t::one", id="tolerated"),
        pytest.param(
            [], f"{TODAY - timedelta(days=1)} t::one\n", 1, "unstable: t::one", id="tolerated until yesterday"
        ),
        pytest.param([], f"{TODAY} t::other\n", 1, "unstable: t::one", id="another is tolerated"),
        pytest.param(["t::one"], f"{TODAY} t::one\n", 1, "failed twice: t::one", id="tolerated, but fails twice"),
    ],
)
def test_a_test_that_fails_once_fails_the_whole_unless_it_is_tolerated_for_now(tmp_path, second, listed, code, said):
    files = [tmp_path / name for name in ("first", "second", "list")]
    texts = [json.dumps({"t::one": True}), json.dumps(dict.fromkeys(second, True)), listed]
    for path, text in zip(files, texts, strict=True):
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, str(CI / "unstable.py"), *map(str, files)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr


def test_no_test_is_tolerated():
    lines = (CI / "unstable.txt").read_text().splitlines()
    assert [line for line in lines if line.strip() and not line.startswith("#")] == []
