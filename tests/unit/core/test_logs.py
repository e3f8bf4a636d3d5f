# SPDX-License-Identifier: Apache-2.0
"""A job's log on its way into Airflow's."""

from __future__ import annotations

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import quoted
from airflow_provider_oscar.core.logs import (
    LINE_LIMIT,
    LINES_LIMIT,
    MARKER,
    LogPosition,
    decoded_lines,
    last_lines,
    progress,
    read_bounded,
    sanitize_line,
    strip_harness,
)

# As interLink's SLURM plugin 0.6.3 answers: job.out, then run-job.out.
JOB_OUT = """\
This pod train/0b5e has been submitted to SLURM node c1.
To get more info, please run: scontrol show job 17.
2026-11-22T10:00:00+00:00 Running in background job pid 41...
2026-11-22T10:00:00+00:00 Waiting for container job pid 41...
"""
JOB_OUT_END = """\

real\t0m1.204s
user\t0m0.031s
sys\t0m0.011s
2026-11-22T10:00:02+00:00 Container job pid 41 ended with status 0.
2026-11-22T10:00:02+00:00 Checking if file exists: /x/run-job.status ...
2026-11-22T10:00:02+00:00 attempt 1/60 file found /x/run-job.status
2026-11-22T10:00:02+00:00 End of script, highest exit code 0...
"""


def test_only_the_containers_own_lines_remain():
    assert strip_harness(JOB_OUT + JOB_OUT_END + "showers: 4\n\nreal work done\n") == "showers: 4\n\nreal work done\n"


def test_a_log_without_the_banner_is_left_alone():
    text = "Waiting for container job...\nreal\t0m1.0s\n"
    assert strip_harness(text) == text


def test_notices_of_a_container_that_has_not_begun_are_removed():
    assert strip_harness("File /x/run-job.out does not exist yet\nFile /x/run-job.out does not exist yet\n") == ""


def test_what_slurm_says_about_a_killed_job_stays():
    line = "slurmstepd: error: *** JOB 17 ON c1 CANCELLED AT 2026-11-22T10:00:02 DUE TO TIME LIMIT ***\n"
    assert strip_harness(JOB_OUT + line) == line


def test_lines_are_shown_once_although_the_log_grows_in_its_middle():
    shown, position = LogPosition().after(strip_harness(JOB_OUT + "one\ntw"))
    assert shown == ["one"]
    shown, position = position.after(strip_harness(JOB_OUT + JOB_OUT_END + "one\ntwo\nthree"))
    assert shown == ["two"]
    shown, _ = position.after(strip_harness(JOB_OUT + JOB_OUT_END + "one\ntwo\nthree"), complete=True)
    assert shown == ["three"]


def test_a_log_that_became_shorter_shows_nothing_twice():
    _, position = LogPosition().after("a\nb\nc\n")
    shown, position = position.after("a\n")
    assert (shown, position) == ([], LogPosition(3))


def test_the_marker_line_is_not_shown():
    shown, _ = LogPosition().after(f"done\n{MARKER}{{}}\n")
    assert shown == ["done"]


def test_of_a_flood_the_next_look_shows_what_this_one_did_not():
    text = "".join(f"{number}\n" for number in range(LINES_LIMIT + 5))
    shown, position = LogPosition().after(text)
    assert (len(shown), position.lines) == (LINES_LIMIT, LINES_LIMIT)
    shown, position = position.after(text)
    assert shown == [str(number) for number in range(LINES_LIMIT, LINES_LIMIT + 5)]
    assert position.after(text) == ([], position)


@pytest.mark.parametrize(
    "line", ["::endgroup::", "  ::group::x", "x ::endgroup:: y", "\x1b[1m::\x1b[0mgroup::", "a::b"]
)
def test_a_group_marker_is_shown_as_text(line):
    # Airflow's page looks for these two anywhere in a line.
    for shown in (sanitize_line(line), quoted(line), last_lines(f"{line}\n")):
        assert "::group::" not in shown
        assert "::endgroup::" not in shown
    assert sanitize_line(line).replace("\\", "") == re.sub(r"\x1b\[.m", "", line)


@pytest.mark.parametrize("line", ["##[endgroup]", "x ##[group]y"])
def test_so_is_one_of_github(line):
    assert sanitize_line(line) == line.replace("##[", "#\\#[")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2K\x1b[1Gdone", "done"),
        ("\x1b[38;2;1;2;3mtrue colour\x1b[m", "true colour"),
        ("\x1b]8;;https://x\x07link\x1b]8;;\x07", "link"),
        ("\x1b]0;title\x1b\\rest", "rest"),
        ("half \x1b[", "half \\x1b["),
        ("10 %\r\x1b[Kdone\r", "done"),
    ],
)
def test_what_only_terminals_understand_is_left_out(line, shown):
    assert sanitize_line(line) == shown


def test_a_progress_bar_that_is_not_done_has_a_state():
    assert progress("begun\n  5%|#   | 1/20\r 10%|##  | 2/20") == "10%|##  | 2/20"
    assert progress("begun\nno bar") == ""
    assert progress("begun\n 100%|####|\r100%\n") == ""
    assert progress("x" * 10_000_000 + "\r42 %") == "42 %"


@given(st.text())
def test_a_printable_line_holds_no_control_character(text):
    shown = sanitize_line(text)
    assert all(character.isprintable() or character == "\t" for character in shown)


def test_a_long_line_is_cut():
    assert len(sanitize_line("y" * 10_000)) < LINE_LIMIT + 40


def test_of_a_progress_bar_the_last_state_is_shown():
    assert sanitize_line("10 %\r50 %\r100 %\r") == "100 %"


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n"), max_size=20), max_size=30), st.data())
def test_every_complete_line_is_shown_exactly_once_in_order(lines, data):
    text = "".join(f"{line}\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    position, shown = LogPosition(), []
    for cut in [*cuts, len(text)]:
        fresh, position = position.after(text[:cut])
        shown += fresh
    assert shown == [sanitize_line(line) for line in lines if MARKER not in line]


def test_the_tail_quotes_the_last_lines_without_marker_and_blanks():
    assert last_lines(f"a\nb\n\n{MARKER}{{}}\n", lines=1) == "'b'"
    assert last_lines("") == ""


def test_the_tail_quotes_what_a_terminal_shows_of_colours_and_progress_bars():
    bar = "\r".join(f"{percent}%|{'#' * 80}" for percent in range(0, 101, 10))
    log = f"{bar}\n\x1b[31mValueError\x1b[0m: no events\r\n\x1b[0m\n"
    assert last_lines(log) == f"'100%|{'#' * 80}' | 'ValueError: no events'"


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_of_a_long_log_the_end_is_kept_and_the_lines_before_it_are_counted(size):
    whole = b"".join(b"line %d\n" % number for number in range(5_000))
    log = read_bounded((whole[at : at + size] for at in range(0, len(whole), size)), limit=1_000)
    assert len(log) <= 2_100
    first = int(log.partition("\n")[0].removeprefix("line "))
    assert first == log.first_line > 0
    assert log.endswith("line 4998\nline 4999\n")
    shown, after = LogPosition(10).after(log, complete=True)
    assert shown[0].startswith(f"… {first - 10} lines are not shown here")
    assert shown[1:] == [f"line {number}" for number in range(first, 5_000)]
    assert after == LogPosition(5_000)


def test_one_endless_line_is_bounded_as_well():
    log = read_bounded((b"x" * 1_000 for _ in range(1_000)), limit=1_000)
    assert len(log) <= 4_000


def test_a_line_without_end_needs_no_memory_of_its_length():
    tracemalloc.start()
    try:
        log = read_bounded((b"x" * 65_536 for _ in range(1_024)), limit=100_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(log) <= 400_000
    assert peak < 4_000_000, "of 64 MiB"


@given(st.lists(st.text(alphabet="a\nü", max_size=9)), st.integers(1, 5), st.integers(1, 30))
def test_lines_are_the_same_however_they_arrive_and_none_is_longer_than_the_limit_and_a_piece(parts, size, limit):
    whole = "".join(parts)
    raw = whole.encode()
    lines = list(decoded_lines((raw[at : at + size] for at in range(0, len(raw), size)), limit))
    assert "".join(lines) == whole
    assert all(line.count("\n") <= 1 and "\n" not in line[:-1] and len(line) <= limit + size + 1 for line in lines)


@given(st.lists(st.text(alphabet="a\n\r ü", max_size=9)), st.integers(1, 5))
def test_a_short_log_is_kept_whole_however_it_arrives(parts, size):
    whole = "".join(parts).encode()
    log = read_bounded(whole[at : at + size] for at in range(0, len(whole), size))
    assert (str(log), log.first_line) == ("".join(parts), 0)


def test_the_tail_is_what_the_command_said_if_it_said_anything():
    around = "2026-11-28 16:59:39,008 - supervisor - INFO - Found input\nairflow-oscar: staged in 's3://b/k'\n"
    after = "airflow-oscar: the command ended with exit code 65\n2026-11-28 16:59:43,520 - supervisor - INFO - End\n"
    assert last_lines(f"{around}threedgan: not an HDF5 file\n{after}") == "'threedgan: not an HDF5 file'"
    assert "Found" in last_lines(around)
