# SPDX-License-Identifier: Apache-2.0
"""A job's log on its way into Airflow's: harness lines removed, lines not shown yet, nothing hostile.

interLink's SLURM plugin answers with the whole ``job.out`` followed by the whole output of the container,
without time stamps, tail or continuation. So the whole log is read each time, and what was shown is known
by the number of lines that remain after the harness is stripped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_provider_oscar.core.errors import quoted

#: What precedes the one-line JSON of a manifest in a log.
MARKER = "##airflow-oscar-manifest "
#: Longest line that is shown whole.
LINE_LIMIT = 2_000
#: Most lines shown at one look.
LINES_LIMIT = 2_000

# What `job.out` begins with, in every generation of the SLURM plugin; without it the log is another node's.
_BANNER = re.compile(r"This pod \S.* has been submitted to SLURM node ")
# Lines of `job.sh` around a container's own output (a failed init container is said to the reader, so it stays).
_HARNESS = re.compile(
    r"""
    This\ pod\ .*\ has\ been\ submitted\ to\ SLURM\ node\ .*
    | To\ get\ more\ info,\ please\ run:\ scontrol\ show\ job\ .*
    | (?:\d{4}-\d\d-\d\dT\S+\ )?
      (?:
        Checking\ if\ file\ exists:\ .*
        | attempt\ \d+/\d+\ file\ (?:not\ )?found\ .*
        | Running\ (?:in\ background|init\ container)\ .*
        | Waiting\ for\ container\ .*
        | Container\ .*\ ended\ with\ status\ \d+\.?
        | End\ of\ script,\ highest\ exit\ code\ \d+\.*
      )
    | (?:real|user|sys)\t\d+m[\d.,]+s
    """,
    re.VERBOSE,
)
_GROUP = re.compile(r"\s*(?:::|##\[)(?:end)?group")
#: The plugin's notice where a container has not begun, which it writes into the stream itself.
_NOT_YET = re.compile(r".*\b(?:run|init)-\S+\.out\b.*does not exist yet.*")


def strip_harness(text: str) -> str:
    """Return the log without the lines interLink's SLURM plugin adds around the container's output."""
    lines = [line for line in text.split("\n") if not _NOT_YET.fullmatch(line)]
    if any(_BANNER.match(line) for line in lines[:200]):
        kept: list[str] = []
        for line in lines:
            if not _HARNESS.fullmatch(line.rstrip("\r")):
                kept.append(line)
            elif line.startswith("real\t") and kept and not kept[-1].strip():
                # bash's `time` puts an empty line before its three.
                kept.pop()
        lines = kept
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How much of a growing log was shown: complete lines."""

    lines: int = 0

    def after(self, text: str, *, complete: bool = False) -> tuple[list[str], LogPosition]:
        """Return the next lines that were not shown yet, fit for a log, and the position behind them.

        There are at most :data:`LINES_LIMIT` of them; what is left comes when this is called again.

        :param text: the whole log so far, without harness.
        :param complete: the log has ended, so that a last line without newline counts as well.
        """
        lines = text.split("\n")
        if not complete or not lines[-1]:
            # What follows the last newline may still grow.
            lines.pop()
        # What does not fit this look comes at the next one.
        fresh = lines[self.lines : self.lines + LINES_LIMIT]
        return [printable(line) for line in fresh if MARKER not in line], LogPosition(self.lines + len(fresh))


def printable(line: str) -> str:
    """Return one line without control characters, at most :data:`LINE_LIMIT` characters long.

    A job's output may hold terminal sequences, carriage returns and half a character; none of it may
    start a record of its own or move a reader's cursor.
    """
    # A progress bar overwrites itself; what a terminal would show in the end is enough.
    text = line.rstrip("\r").rpartition("\r")[2]
    cut = text[:LINE_LIMIT]
    if _GROUP.match(text):
        # Airflow folds what stands between these markers, and a job's must not close ours.
        cut = f"\\{cut}"
    safe = "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in cut)
    return safe if len(text) <= LINE_LIMIT else f"{safe}… ({len(text)} characters)"


def tail(text: str, lines: int = 8) -> str:
    """Return the last lines for an error message, quoted; empty if there are none."""
    kept = [line for line in strip_harness(text).split("\n") if line.strip() and MARKER not in line]
    return " | ".join(quoted(line.rstrip("\r"), 160) for line in kept[-lines:])
