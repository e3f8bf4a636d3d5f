# SPDX-License-Identifier: Apache-2.0
"""The table that ends every run of the system tests."""

from __future__ import annotations

import pytest

from tests.system.table import Table, lines, scenario


def report(nodeid: str, place: str, when: str, outcome: str, seconds: float) -> pytest.TestReport:
    properties = [("back end", place)] if place else []
    return pytest.TestReport(nodeid, ("", 1, ""), {}, outcome, None, when, user_properties=properties, duration=seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nodeid", "place", "name"),
    [
        ("tests/system/test_oscar.py::test_a_job[real]", "real", "oscar: a job"),
        ("tests/system/test_oscar.py::test_a_job[embedded]", "embedded", "oscar: a job"),
        ("tests/system/test_x.py::TestMore::test_it[real-odd case]", "real", "x: TestMore: it [odd case]"),
        ("tests/system/test_x.py::test_it[two words]", "real", "x: it [two words]"),
        ("test_x.py::test_it", "stack", "x: it"),
    ],
)
def test_scenario_has_one_name_at_every_back_end(nodeid, place, name):
    assert scenario(nodeid, place) == name


def test_results_of_a_scenario_stand_side_by_side():
    table = Table()
    for seen in (
        report("test_a.py::test_one[real]", "real", "setup", "passed", 9),
        report("test_a.py::test_one[real]", "real", "call", "failed", 3.4),
        report("test_a.py::test_one[embedded]", "embedded", "call", "passed", 1),
        report("test_a.py::test_two[embedded]", "embedded", "setup", "skipped", 0),
        report("test_a.py::test_three[real]", "real", "setup", "failed", 2),
        report("elsewhere.py::test_four", "", "call", "passed", 1),
    ):
        table.pytest_runtest_logreport(seen)
    assert [line.split("  ")[0] for line in lines(table.cells)] == ["scenario", "a: one", "a: two", "a: three"]
    assert [line.split() for line in lines(table.cells)] == [
        ["scenario", "embedded", "real"],
        ["a:", "one", "pass", "1", "s", "FAIL", "3", "s"],
        ["a:", "two", "skip"],
        ["a:", "three", "FAIL", "in", "setup", "2", "s"],
    ]
