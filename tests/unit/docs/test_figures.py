# SPDX-License-Identifier: Apache-2.0
"""The documents carry the figures of the last run of the bench, and the bench computes ratios as it says."""

from __future__ import annotations

import pytest

from tests.bench.growth import BEGIN, END, PAGE, read_figures, tables, written


def rows(*costs: float) -> dict[str, object]:
    found = [
        {"objects": 1000 * 10**number, "seconds": cost, "rate": 40.0, "last_to_first": 1.1}
        for number, cost in enumerate(costs)
    ]
    return {"bursts": {"date": "2026-11-28", "cores": 2, "load": 0.5, "rows": found}}


def test_the_page_carries_the_figures_that_were_kept():
    page = PAGE.read_text()
    assert written(page, read_figures()) == page, "run: python -m tests.bench.growth --write"


def test_linear_growth_has_the_ratio_one_and_quadratic_growth_ten():
    assert "| 10 000 | 20 (1.00) | 40 | 1.10 |" in tables(rows(2, 20))
    assert "| 10 000 | 200 (10.00) |" in tables(rows(2, 200))


def test_a_page_without_marks_is_refused():
    with pytest.raises(RuntimeError, match="lacks the marks"):
        written("no marks", {})
    assert written(f"a {BEGIN} old {END} b", rows(2)).startswith(f"a {BEGIN}\n\n| Objects of a burst")
