# SPDX-License-Identifier: Apache-2.0
"""Which pattern a name matches: as the shell's and Python's own, but in time that names cannot spoil."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.supervisor.destinations import Destination, choose, matches

NAMES = st.text(alphabet="ab/.-]![*?\n", max_size=12)
PATTERNS = st.lists(
    st.sampled_from(["a", "b", "/", ".", "*", "?", "[ab]", "[!a]", "[a-b]", "[]a]", "[!]]", "[", "]", "**"]), max_size=8
).map("".join)


@given(PATTERNS.filter(bool), NAMES)
def test_patterns_mean_what_they_mean_to_fnmatch(pattern, name):
    text = name if "/" in pattern else name.rpartition("/")[2]
    assert matches(pattern, name) is fnmatch.fnmatchcase(text, pattern)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*.png", "deep/er/a.png", True),
        ("*.png", "a.png/readme", False),
        ("plots/*", "plots/a/b.png", True),
        ("plots/*", "other/plots/a", False),
        ("*.PNG", "a.png", False),
        ("[!.]*", ".hidden", False),
        ("ü*", "über", True),
    ],
)
def test_star_crosses_directories_and_a_pattern_without_slash_is_about_the_last_part(pattern, name, expected):
    assert matches(pattern, name) is expected


def test_a_name_made_to_be_slow_is_matched_as_quickly_as_another():
    looks = []

    class Counted(str):
        def __getitem__(self, at):
            looks.append(at)
            return str.__getitem__(self, at)

        def rpartition(self, separator):
            return "", "", self

    assert not matches("a*" * 12 + "b", Counted("a" * 2000))
    assert len(looks) < 3 * 2000 * 24, "an exponential matcher would not have ended"


@given(st.lists(PATTERNS.filter(bool), max_size=6), NAMES)
def test_the_first_pattern_that_matches_counts_and_the_job_has_the_rest(patterns, name):
    main = Destination(object())
    others = [Destination(object() if number % 3 else None, each) for number, each in enumerate(patterns)]
    first = next((each for each in others if matches(each.pattern, name)), main)
    assert choose(name, main, others) is (main if first.store is None else first)
