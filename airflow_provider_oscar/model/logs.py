# SPDX-License-Identifier: Apache-2.0
"""A job's log on its way into Airflow's: harness lines removed, lines not shown yet, nothing hostile.

interLink's SLURM plugin answers with the whole ``job.out`` followed by the whole output of the container,
without time stamps, tail or continuation. So the whole log is read each time, and what was shown is known
by the number of lines that remain after the harness is stripped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_provider_oscar.model.errors import quoted
from airflow_provider_oscar.model.manifest import MARKER

#: Longest line that is shown whole.
LINE_LIMIT = 2_000
#: Most lines shown at once; the rest is named by its number.
LINES_LIMIT = 2_000

# Lines the SLURM plugin's scripts write around a container's own output. Only whole lines are taken,
# so that a payload that happens to print "real" keeps its line unless it looks exactly the same.
_HARNESS = re.compile(
    r"""
    This\ pod\ .*\ has\ been\ submitted\ to\ SLURM\ node\ .*
    | (?:Running|Starting)\ in\ background\ .*
    | Waiting\ for\ container\ .*
    | (?:Init\ )?[Cc]ontainer\ .*\ ended\ with\ status\ \d+.*
    | (?:\S+\ )?.*(?:run|init)-\S+\.out\ .*does\ not\ exist\ yet.*
    | .*does\ not\ exist\ yet[^\w]*
    | (?:real|user|sys)\t\d+m[\d.,]+s
    """,
    re.VERBOSE,
)
_TIMES = re.compile(r"(?:real|user|sys)\t\d+m[\d.,]+s")


def strip_harness(text: str) -> str:
    """Return the log without the lines interLink's SLURM plugin adds around the container's output."""
    kept = [line for line in text.split("\n") if not _HARNESS.fullmatch(line.rstrip("\r"))]
    # bash's `time` puts an empty line before its three.
    if _TIMES.search(text):
        while len(kept) > 1 and not kept[-1].strip() and not kept[-2].strip():
            kept.pop()
    return "\n".join(kept)


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How much of a growing log was shown: complete lines."""

    lines: int = 0

    def after(self, text: str, *, complete: bool = False) -> tuple[list[str], LogPosition]:
        """Return the lines that were not shown yet, fit for a log, and the position behind them.

        :param text: the whole log so far, without harness.
        :param complete: the log has ended, so that a last line without newline counts as well.
        """
        lines = text.split("\n")
        if not complete or not lines[-1]:
            # What follows the last newline may still grow.
            lines.pop()
        fresh = [line for line in lines[self.lines :] if MARKER not in line]
        shown = [printable(line) for line in fresh[:LINES_LIMIT]]
        if len(fresh) > LINES_LIMIT:
            shown.append(f"… {len(fresh) - LINES_LIMIT} more lines are not shown here")
        return shown, LogPosition(max(self.lines, len(lines)))


def printable(line: str) -> str:
    """Return one line without control characters, at most :data:`LINE_LIMIT` characters long.

    A job's output may hold terminal sequences, carriage returns and half a character; none of it may
    start a record of its own or move a reader's cursor.
    """
    # A progress bar overwrites itself; what a terminal would show in the end is enough.
    text = line.rstrip("\r").rpartition("\r")[2]
    cut = text[:LINE_LIMIT]
    safe = "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in cut)
    return safe if len(text) <= LINE_LIMIT else f"{safe}… ({len(text)} characters)"


def tail(text: str, lines: int = 8) -> str:
    """Return the last lines for an error message, quoted; empty if there are none."""
    kept = [line for line in strip_harness(text).split("\n") if line.strip() and MARKER not in line]
    return " | ".join(quoted(line.rstrip("\r"), 160) for line in kept[-lines:])
