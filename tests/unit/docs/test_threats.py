# SPDX-License-Identifier: Apache-2.0
"""Each row of the threat model is kept true by tests that carry its number; none carries a number that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| (T\d+) \|", re.MULTILINE)
CARRIED = re.compile(r"^Keeps rows? (T\d+(?:(?:, | and )T\d+)*) of the threat model true", re.MULTILINE)


def test_each_row_is_carried_by_a_test_module():
    rows = ROW.findall((ROOT / "docs" / "security.md").read_text())
    assert rows == [f"T{number}" for number in range(1, len(rows) + 1)]
    carried = {
        row
        for path in (ROOT / "tests").rglob("test_*.py")
        for found in CARRIED.findall(path.read_text())
        for row in re.findall(r"T\d+", found)
    }
    assert carried == set(rows)
