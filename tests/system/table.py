# SPDX-License-Identifier: Apache-2.0
"""The table that ends every run of the system tests: each scenario at each back end, with its result and seconds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parent
_PROPERTY = "back end"
_RESULTS = {"passed": "pass", "failed": "FAIL"}


class Table:
    """Gathers results; a pytest plugin."""

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note of each test where it runs, for its reports."""
        for item in items:
            if item.path.is_relative_to(_FOLDER):
                item.user_properties.append((_PROPERTY, back_end(item)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a result: a test's own, or that of a set-up or tear-down that went wrong."""
        place = dict(report.user_properties).get(_PROPERTY)
        if place is None or (report.when != "call" and report.passed):
            return
        row = self.cells.setdefault(scenario(report.nodeid, str(place)), {})
        where = "" if report.when == "call" else f" in {report.when}"
        row[str(place)] = "skip" if report.skipped else f"{_RESULTS[report.outcome]}{where} {report.duration:.0f} s"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print it."""
        if self.cells:
            terminalreporter.section("scenarios")
            for line in lines(self.cells):
                terminalreporter.write_line(line)


def back_end(item: pytest.Item) -> str:
    """Where a test runs: the parameter of its fixture ``running``, else the stack, else upstream's programs."""
    callspec = getattr(item, "callspec", None)
    if callspec is not None and "running" in callspec.params:
        return str(callspec.params["running"])
    return "stack" if "site" in getattr(item, "fixturenames", ()) else "real"


def scenario(nodeid: str, place: str) -> str:
    """A test's name without its folder and its back end, the same at every back end."""
    path, _, name = nodeid.partition("::")
    name, _, parameters = name.replace("::", ": ").partition("[")
    rest = [part for part in parameters.removesuffix("]").split("-") if part and part != place]
    words = re.sub(r"\btest_", "", name).replace("_", " ")
    case = f" [{'-'.join(rest)}]" if rest else ""
    return f"{Path(path).stem.removeprefix('test_')}: {words}{case}"


def lines(cells: dict[str, dict[str, str]]) -> list[str]:
    """The table as text, scenarios in the order they ran."""
    places = sorted({place for row in cells.values() for place in row})
    rows = [["scenario", *places], *([name, *(row.get(place, "") for place in places)] for name, row in cells.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(places) + 1)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
