# SPDX-License-Identifier: Apache-2.0
"""A user's regular expression means what Python says, and ends whatever the name is."""

from __future__ import annotations

import contextlib
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core import patterns
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.patterns import SlowPatternError, UserPattern

#: Expressions of exponential time, for a name of one letter repeated and then another.
BACKTRACKING = ("(a+)+$", r"(\w+\s?)*$", "(a|aa)+$", r"^(([a-z])+.)+[A-Z]([a-z])+$")
NAME = "a" * 1000 + "!"


@pytest.mark.parametrize("expression", BACKTRACKING)
def test_a_search_without_end_is_an_error_that_names_expression_and_key(
    expression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "SEARCH_SECONDS", 0.01)
    with pytest.raises(SlowPatternError) as raised:
        UserPattern(expression, "regex").search(NAME)
    assert str(raised.value).startswith(f"regex {expression!r} takes more than 0.01 s of computing for 'aaaa")


class _BusyProcess:
    """The engine in a process whose other threads compute: its time is over before anything was searched."""

    def __init__(self, pattern: UserPattern, times: int) -> None:
        self._search, self._left = pattern._compiled.search, times

    def search(self, text: str, timeout: float) -> object:
        self._left -= 1
        if self._left >= 0:
            raise TimeoutError
        return self._search(text, timeout=timeout)


def test_a_name_is_not_to_blame_for_what_other_threads_compute() -> None:
    pattern = UserPattern(r"\.h5$", "regex")
    pattern._compiled = _BusyProcess(pattern, times=3)  # type: ignore[assignment]
    assert pattern.search("in/a.h5")


def test_other_threads_run_while_a_name_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SEARCH_SECONDS", 0.2)
    pattern, begun, ended = UserPattern(BACKTRACKING[0], "regex"), threading.Event(), threading.Event()

    def search() -> None:
        begun.set()
        with contextlib.suppress(SlowPatternError):
            pattern.search(NAME)
        ended.set()

    thread = threading.Thread(target=search)
    thread.start()
    begun.wait()
    steps = 0
    while not ended.wait(0.001):
        steps += 1
    thread.join()
    assert steps >= 5


@pytest.mark.filterwarnings("ignore:Possible nested set")
@pytest.mark.parametrize("expression", ["part-{uuid}", "a{e<=1}", "[[:alpha:]]", "{}", "[^[:digit:]x]"])
def test_what_engines_read_differently_is_refused_with_the_way_to_write_it(expression: str) -> None:
    with pytest.raises(DefinitionError, match="of which engines think differently; write"):
        UserPattern(expression, "regex")


@pytest.mark.parametrize("expression", ["(((a{1000}){1000}){1000})", "[ab]{4000000}", "(?:ab?){60000,60000}"])
def test_an_expression_that_takes_gigabytes_to_prepare_is_refused(expression: str) -> None:
    with pytest.raises(DefinitionError, match="asks for more than 50000 repetitions"):
        UserPattern(expression, "regex")


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        (r"part-\{uuid\}", "part-{uuid}"),
        (r"[{}]", "a{b"),
        (r"[\[:x]", "["),
        (r"[]x]", "]"),
        (r"\d{4}-\d{2,}[^]]", "2026-11-"),
        (r"\N{LATIN SMALL LETTER A}{2}", "xaa"),
        (r"(?P<run>run_\d+)/(?!tmp)[^/]+\.h5$", "raw/run_7/x.h5"),
        (r"(?i)\.H5\Z", "a.h5"),
        (r"(?x) a # a comment ( of the writer's", "a"),
        (r"(?<=in/)(\w)\1", "in/aab"),
        (r"([0-9a-f]{8})-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", "01234567-89ab-4def-8123-456789abcdef"),
    ],
)
def test_expressions_as_people_write_them_find_what_python_finds(expression: str, name: str) -> None:
    ours, pythons = UserPattern(expression, "regex").search(name), re.search(expression, name)
    assert ours is not None
    assert pythons is not None
    assert (ours.span(), ours.groups()) == (pythons.span(), pythons.groups())


_PARTS = st.sampled_from(
    [r"\d", r"\w", "[^/]", "[a-c]", "a", "b", "/", r"\.", ".", "(a|b)", "(?:ab)", "(?!a)", "^", "$", r"\b"]
)
_REPEATED = st.sampled_from(["", "", "*", "+", "?", "*?", "{2}", "{1,2}", "{2,}"])


@given(st.lists(st.tuples(_PARTS, _REPEATED), min_size=1, max_size=4), st.text("ab/.1", min_size=1, max_size=12))
def test_any_expression_of_the_common_kind_finds_what_python_finds(parts: list[tuple[str, str]], name: str) -> None:
    expression = "".join(part + ("" if part in ("^", "$", r"\b", "(?!a)") else times) for part, times in parts)
    ours, pythons = UserPattern(expression, "regex").search(name), re.search(expression, name)
    assert (ours and ours.span()) == (pythons and pythons.span())
