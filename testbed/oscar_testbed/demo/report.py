# SPDX-License-Identifier: Apache-2.0
"""The demo's results for eyes: a table in the terminal and one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oscar_testbed.demo.learning import Choice
from oscar_testbed.demo.results import PHASES, Findings, Row, mean_seconds

_COLOURS = ("#9aa5b1", "#5b8def", "#1f9d76", "#e0a03c")


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print one line per run; text from outside is shown literally, never as markup."""
    table = Table(show_lines=False, header_style="bold")
    for heading, least in (("object", 24), ("placement", 9), ("why", 16)):
        table.add_column(heading, overflow="fold", min_width=least)
    for phase in PHASES:
        table.add_column(f"{phase}\n(s)", justify="right", no_wrap=True)
    for heading, least in (("job", 12), ("showers", 7), ("result", 8)):
        table.add_column(heading, overflow="fold", min_width=least)
    for row in rows:
        cells = [f"{row.object}{' (by hand)' if row.forced else ''}", row.placement, row.why]
        cells += [f"{row.seconds[phase]:.2f}" if phase in row.seconds else "–" for phase in PHASES]
        cells += [row.job, "–" if row.showers is None else str(row.showers), row.result]
        table.add_row(*(Text(cell) for cell in cells), style="" if row.succeeded else "red")
    console.print(table)


def print_choices(choices: Sequence[Choice], console: Console) -> None:
    """Print what placement learnt, a line for each step; foreign text is shown literally."""
    table = Table(show_lines=False, header_style="bold", title="What placement learnt", title_justify="left")
    for heading in ("what had happened", "where the work went", "in the decision's own words"):
        table.add_column(heading, overflow="fold")
    for each in choices:
        table.add_row(*(Text(cell) for cell in (each.step.title, each.summary, "; ".join(each.words))))
    console.print(table)


def write_report(
    path: Path, rows: Sequence[Row], findings: Findings, facts: Sequence[str], choices: Sequence[Choice] = ()
) -> None:
    """Write the page; it needs no other file and no network."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["b64"] = lambda data: base64.b64encode(data).decode()
    page = environment.get_template("report.html.jinja").render(
        rows=rows, findings=findings, facts=facts, choices=choices, phases=PHASES, chart=run_time_chart(rows)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def run_time_chart(rows: Sequence[Row]) -> str:
    """Return an SVG with the mean seconds of every phase, one bar per target."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib.figure import Figure

    targets = sorted({row.placement for row in rows if row.succeeded})
    figure = Figure(figsize=(9, 0.7 * len(targets) + 1.3), layout="constrained")
    axes: Any = figure.subplots()
    left = [0.0] * len(targets)
    for phase, colour in zip(PHASES, _COLOURS, strict=True):
        widths = [
            mean_seconds(rows, phase, lambda row, target=target: row.succeeded and row.placement == target)  # type: ignore[misc]
            for target in targets
        ]
        axes.barh(targets, widths, left=left, color=colour, label=phase)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for target, total in zip(targets, left, strict=True):
        runs = sum(row.succeeded and row.placement == target for row in rows)
        axes.annotate(f" {total:.1f} s, {runs} run(s)", (total, target), va="center", fontsize=9)
    axes.set_xlabel("mean seconds per run")
    axes.margins(x=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=len(PHASES), frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg")
    return drawn.getvalue().partition("?>")[2].partition(">")[2]  # without XML declaration and DOCTYPE
