# SPDX-License-Identifier: Apache-2.0
"""The table of what may happen to a job on SLURM: each row names tests that are there, each scenario has a row."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
HEADING = "## What may happen to a job on SLURM"
SCENARIOS = "tests/integration/jobs/test_scenarios.py"
#: A test as the table names it: `path::name`, or `name` of the module above.
TEST = re.compile(r"`(?:(?P<path>tests/[\w/]+\.py)::)?(?P<name>test_\w+)`")
PROOF = re.compile(r"pass: .*|not run: .+|not possible: .+")


def _rows() -> list[list[str]]:
    page = (ROOT / "docs" / "conformance.md").read_text().partition(f"{HEADING}\n")[2].partition("\n## ")[0]
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def _named(cell: str) -> set[tuple[str, str]]:
    return {(found["path"] or SCENARIOS, found["name"]) for found in TEST.finditer(cell)}


def _is_there(path: str, name: str) -> bool:
    file = ROOT / path
    return file.exists() and re.search(rf"^\s*(?:async )?def {name}\(", file.read_text(), re.MULTILINE) is not None


def test_each_row_says_what_the_task_says_and_how_it_was_proven():
    rows = _rows()
    assert len(rows) >= 25
    for row in rows:
        assert len(row) == 4, row
        what, verdict, embedded, real = row
        assert what, row
        assert verdict, row
        for cell in (embedded, real):
            assert PROOF.fullmatch(cell), row
            assert cell.startswith("not ") or _named(cell), row


def test_each_test_of_the_table_is_there():
    named = set().union(*(_named(cell) for row in _rows() for cell in row[2:]))
    assert sorted(each for each in named if not _is_there(*each)) == []


def test_each_scenario_has_its_row():
    names = set(re.findall(r"^def (test_\w+)\(", (ROOT / SCENARIOS).read_text(), re.MULTILINE))
    in_table = {name for row in _rows() for path, name in _named(row[2]) if path == SCENARIOS}
    assert names == in_table
