# SPDX-License-Identifier: Apache-2.0
"""The page's part on other releases is what was recorded of them; no system runs here."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oscar_testbed.contract import releases, samples

ROOT = samples.PAGE.parents[1]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def test_the_page_shows_what_was_recorded_of_other_releases():
    page = releases.section()
    assert samples.update_page(releases.HEADING, page, write_it="CONFORMANCE_WRITE" in os.environ), (
        "docs/conformance.md is old"
    )


def test_everything_that_differs_between_releases_has_a_reason():
    assert releases.unexplained() == []


@pytest.mark.parametrize("system", sorted(releases.RECORDED_AT))
def test_what_was_recorded_of_another_release_is_of_the_cases_that_there_are(system):
    known = {path.name for path in samples.newest(system).glob("*.json")}
    for column in releases.columns(system):
        assert column["title"], "the whole recording is no column"
        assert {samples.case_name(case) for case in column["cases"]} <= known


def test_scenarios_of_other_releases_are_tests_that_there_are():
    text = "".join(path.read_text() for path in ROOT.glob("tests/*/**/test_*.py"))
    for column in releases.columns("scenarios"):
        for case in column["cases"]:
            assert f"def {case.partition('::')[2]}(" in text, case


@given(JSON, JSON)
def test_changes_are_none_where_two_answers_are_the_same_and_some_where_not(one, other):
    assert releases.changes(one, one) == {}
    # As JSON has them, to which 1 and true are two things.
    assert bool(releases.changes(one, other)) == (one != other)


def test_only_what_differs_is_kept_with_where_it_is():
    before = {"status": 200, "body": [{"a": 1}, {"a": 2}], "gone": "x"}
    after = {"status": 200, "body": [{"a": 1}, {"a": 3}], "new": None}
    assert releases.changes(before, after) == {
        "body[1].a": {"recorded": 2, "here": 3},
        "gone": {"recorded": "x"},
        "new": {"here": None},
    }


def test_a_column_is_named_after_the_releases_that_are_others():
    at = releases.recorded_at("interlink-slurm-plugin")
    assert releases.title("interlink-slurm-plugin", at) == ""
    assert releases.title("interlink-slurm-plugin", {**at, "SLURM": "24.11.5"}) == "SLURM 24.11.5"


def test_a_change_without_a_reason_and_a_failure_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(releases, "FOLDER", tmp_path)
    monkeypatch.setattr(releases, "EXPLAINED", {"oscar": ((r"OSCAR 4\.0\.0: pages: body\.a", "It is older."),)})
    releases.record("oscar", "OSCAR 4.0.0", "pages", {"body.a": {"here": 1}, "body.b": {"here": 2}})
    releases.record("oscar", "OSCAR 4.0.0", "quotas", "it has none")
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="tests.system.test_x" name="test_one[real]"/>'
        '<testcase classname="tests.system.test_x" name="test_one[embedded]"><failure/></testcase>'
        '<testcase classname="tests.system.test_x" name="test_two[real-odd]"><skipped message="no"/></testcase>'
        '<testcase classname="tests.system.test_x" name="test_three[real-1]"><error/></testcase>'
        '<testcase classname="tests.system.test_x" name="test_three[real-2]"/>'
        "</testsuite></testsuites>"
    )
    releases.record_outcomes("SLURM 1.2", report)
    assert releases.unexplained() == [
        "OSCAR 4.0.0: pages: body.b",
        "SLURM 1.2: test_x::test_one embedded",
        "SLURM 1.2: test_x::test_three real",
    ]
    page = releases.section()
    assert "| quotas | not possible: it has none |" in page
    assert "| x: one | FAIL / pass |" in page
    assert "| x: two | not run / skipped |" in page
    assert "1. It is older." in page
