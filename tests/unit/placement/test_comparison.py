# SPDX-License-Identifier: Apache-2.0
"""The same work at several targets, side by side."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.placement.comparison import Measured, figure, markdown, measure, rows

START = datetime(2026, 11, 22, tzinfo=UTC)


def manifest(target, seconds):
    end = START + timedelta(seconds=seconds)
    return {"placement": target, "phases": {"run": {"start": START.isoformat(), "end": end.isoformat()}}}


def test_each_target_is_compared_with_the_first_by_its_median():
    found = measure([manifest("cloud", 10), manifest("cloud", 12), manifest("cloud", 11), manifest("gpu", 2.2)])
    cloud, gpu = rows(found, {"gpu": 80.0})
    assert (cloud["jobs"], cloud["median"], cloud["faster"]) == (3, 11.0, 0.0)
    assert (gpu["median"], gpu["faster"], gpu["reference"]) == (2.2, 80.0, 80.0)


@pytest.mark.parametrize("broken", [None, "x", {}, {"phases": None}, {"phases": {"run": {"start": "soon", "end": ""}}}])
def test_what_is_no_manifest_of_a_job_that_ran_is_left_out(broken):
    assert [each.target for each in measure([broken, manifest("cloud", 1)])] == ["cloud"]


def test_the_reference_is_named_as_what_it_is():
    table = markdown([Measured(target="gpu", seconds=(1.0,))], {"gpu": 80.0}, source="the talk, other machines")
    assert "reference (the talk, other machines), %" in table
    assert table.splitlines()[2].startswith("| gpu | 1 | 1.0 |")


@given(
    st.lists(
        st.tuples(st.text(max_size=20), st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=20)),
        max_size=5,
    )
)
def test_the_figure_is_well_formed_and_shows_every_repetition(found):
    printable = [("".join(filter(str.isprintable, name)), tuple(seconds)) for name, seconds in found]
    measured = [Measured(target=name, seconds=seconds) for name, seconds in printable]
    drawn = ElementTree.fromstring(figure(measured, "<title> & more"))
    circles = [each for each in drawn.iter() if each.tag.endswith("circle")]
    assert len(circles) == sum(len(each.seconds) for each in measured)


@pytest.mark.parametrize(
    ("seconds", "marks"),
    [
        ((3.19, 0.5), ["0 s", "1 s", "2 s", "3 s", "4 s"]),
        ((0.034,), ["0 s", "0.01 s", "0.02 s", "0.03 s", "0.04 s"]),
        ((600.0,), ["0 s", "100 s", "200 s", "300 s", "400 s", "500 s", "600 s"]),
        ((0.0,), ["0 s", "1 s"]),
    ],
)
def test_the_axis_has_round_marks(seconds, marks):
    drawn = figure([Measured(target="a", seconds=seconds)], "t" * 200)
    assert re.findall(r">([0-9.]+ s)<", drawn) == marks
    assert "t" * 63 + "…<" in drawn
