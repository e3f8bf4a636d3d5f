# SPDX-License-Identifier: Apache-2.0
"""A job's log on its way into Airflow's: harness lines removed, lines not shown yet, nothing hostile.

interLink's SLURM plugin answers with the whole ``job.out`` followed by the whole output of the container,
without time stamps, tail or continuation. So the whole log is read each time, and what was shown is known
by the number of lines that remain after the harness is stripped.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from airflow_provider_oscar.core.errors import quoted, without_groups

#: What precedes the one-line JSON of a manifest in a log.
MARKER = "##airflow-oscar-manifest "
#: Longest line that is shown whole.
LINE_LIMIT = 2_000
#: Most lines shown at one look.
LINES_LIMIT = 2_000
#: Characters of a log that are kept at one look: its end.
LOG_LIMIT = 8_000_000

# What `job.out` begins with, in every generation of the SLURM plugin; without it the log is another node's.
_BANNER_WITHIN = 200
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
#: The plugin's lines hold a path or two; a longer line is the job's, and need not be searched.
_HARNESS_LONGEST = 16_384
# What terminals take as colours, erasing, moving the cursor, titles and links.
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
#: The plugin's notice where a container has not begun, which it writes into the stream itself.
_NOT_YET = re.compile(r".*\b(?:run|init)-\S+\.out\b.*does not exist yet.*")


class LogText(str):
    """A log, or the end of one; whoever counts lines begins at ``first_line``.

    :param text: the lines.
    :param first_line: how many lines stand before them that were not kept.
    """

    __slots__ = ("first_line",)
    first_line: int

    def __new__(cls, text: str, first_line: int = 0) -> LogText:
        made = super().__new__(cls, text)
        made.first_line = first_line
        return made


def read_bounded(chunks: Iterable[bytes], limit: int = LOG_LIMIT) -> LogText:
    """Read a log that arrives in pieces, without interLink's lines; what is kept of it is bounded, whatever its length.

    :param chunks: of any size, also of one endless line.
    :param limit: characters that are kept, of the end.
    """
    kept: list[str] = []
    size = first = 0
    for line in _without_harness(decoded_lines(chunks, limit)):
        kept.append(line)
        size += len(line)
        if size > 2 * limit:
            cut = 0
            while size > limit and cut < len(kept) - 1:
                size -= len(kept[cut])
                cut += 1
            first += sum(each.endswith("\n") for each in kept[:cut])
            del kept[:cut]
    return LogText("".join(kept), first)


def strip_harness(text: str) -> str:
    """Return the log without the lines interLink's SLURM plugin adds around the container's output."""
    lines = text.split("\n")
    pieces = [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    return "".join(_without_harness(iter(pieces)))


def decoded_lines(chunks: Iterable[bytes], limit: int) -> Iterator[str]:
    """Cut chunks into lines, newline included; a line longer than the limit is cut into several pieces.

    :param chunks: UTF-8 of any size; what cannot be decoded is replaced.
    :param limit: characters.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    # A line may come in any number of pieces, which are joined once.
    begun: list[str] = []
    size = 0
    for chunk in chunks:
        first, *more = decoder.decode(chunk).split("\n")
        begun.append(first)
        size += len(first)
        if more:
            yield "".join(begun) + "\n"
            yield from (f"{line}\n" for line in more[:-1])
            begun, size = [more[-1]], len(more[-1])
        if size > limit:
            yield "".join(begun)
            begun, size = [], 0
    rest = "".join(begun) + decoder.decode(b"", final=True)
    if rest:
        yield rest


def _without_harness(lines: Iterator[str]) -> Iterator[str]:
    """Leave out the plugin's lines; what comes in one piece may be a line without its newline, the last one."""
    bannered, number = False, 0
    empty = ""
    for piece in lines:
        number += 1
        line = piece.rstrip("\n")
        short = len(line) <= _HARNESS_LONGEST
        bannered = bannered or (short and number <= _BANNER_WITHIN and _BANNER.match(line) is not None)
        dropped = short and (_NOT_YET.fullmatch(line) or (bannered and _HARNESS.fullmatch(line.rstrip("\r"))))
        # bash's `time` puts an empty line before its three.
        if empty and not (dropped and line.startswith("real\t")):
            yield empty
        empty = ""
        if dropped:
            continue
        if bannered and not line.strip():
            empty = piece
        else:
            yield piece
    if empty:
        yield empty


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
        first = text.first_line if isinstance(text, LogText) else 0
        start = max(self.lines - first, 0)
        # What does not fit this look comes at the next one.
        fresh = lines[start : start + LINES_LIMIT]
        shown = [sanitize_line(line) for line in fresh if MARKER not in line]
        if first > self.lines:
            skipped = f"… {first - self.lines} lines are not shown here; the whole log is job.log beside the manifest"
            shown.insert(0, skipped)
        return shown, LogPosition(first + start + len(fresh) if fresh else max(self.lines, first))

    def rest(self, log: str) -> Iterator[str]:
        """Yield the lines of a complete log that were not shown yet.

        :param log: all of it.
        """
        position = self
        while True:
            lines, after = position.after(log, complete=True)
            if after == position:
                return
            position = after
            yield from lines


def progress(text: str) -> str:
    """Return what a progress bar at the end of a growing log shows now; empty if there is none.

    :param text: the log so far. A bar such as tqdm's is one line until it is done, so its states are not lines.
    """
    bar = text.rpartition("\n")[2][-LINE_LIMIT:]
    return sanitize_line(bar).strip() if "\r" in bar else ""


def sanitize_line(line: str) -> str:
    """Return one line without control characters, at most :data:`LINE_LIMIT` characters long.

    A job's output may hold terminal sequences, carriage returns and half a character; none of it may
    start a record of its own, move a reader's cursor, or close a group of ours.
    """
    text = _as_shown(line)
    safe = without_groups(text[:LINE_LIMIT])
    if not safe.isprintable():
        safe = "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in safe)
    return safe if len(text) <= LINE_LIMIT else f"{safe}… ({len(text)} characters)"


def _as_shown(line: str) -> str:
    """Return what a terminal would show of a line in the end; a progress bar overwrites itself."""
    return _TERMINAL.sub("", line).rstrip("\r").rpartition("\r")[2]


#: Lines of OSCAR's supervisor, and ours of what went as it should.
_AROUND = re.compile(
    r"\d{4}-\d\d-\d\d [\d:,]+ - supervisor - (INFO|DEBUG) - |airflow-oscar: (staged in|the command ended)\b"
)


def last_lines(text: str, lines: int = 8) -> str:
    """Return the last lines for an error message, quoted; empty if there are none.

    What the supervisors say around the command is left out where the command itself said something.
    """
    given = (_as_shown(line) for line in strip_harness(text).split("\n") if MARKER not in line)
    kept = [line for line in given if line.strip()]
    kept = [line for line in kept if not _AROUND.match(line)] or kept
    return " | ".join(quoted(line, 160) for line in kept[-lines:])
