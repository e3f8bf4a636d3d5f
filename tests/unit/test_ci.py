# SPDX-License-Identifier: Apache-2.0
"""Continuous integration: a test that fails once is unstable, and that is a failure."""

from __future__ import annotations

import json
import runpy
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
def test_a_test_that_fails_once_fails_the_whole_unless_it_is_tolerated_for_now(
    tmp_path, monkeypatch, capsys, second, listed, code, said
):
    files = [tmp_path / name for name in ("first", "second", "list")]
    texts = [json.dumps({"t::one": True}), json.dumps(dict.fromkeys(second, True)), listed]
    for path, text in zip(files, texts, strict=True):
        path.write_text(text)
    monkeypatch.setattr(sys, "argv", ["unstable.py", *map(str, files)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(CI / "unstable.py"), run_name="__main__")
    out, err = capsys.readouterr()
    assert (ended.value.code, said in out) == (code, True), out + err


def test_no_test_is_tolerated():
    lines = (CI / "unstable.txt").read_text().splitlines()
    assert [line for line in lines if line.strip() and not line.startswith("#")] == []
