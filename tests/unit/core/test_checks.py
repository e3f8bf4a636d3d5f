# SPDX-License-Identifier: Apache-2.0
"""Values of other types than an annotation says are refused, with what was expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Literal, Protocol

import pytest

from airflow_provider_oscar.core.checks import check_command, check_environment, check_value
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.slurm import SlurmOptions


class Decides(Protocol):
    def decide(self) -> str: ...


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("x", str),
        (3, float),
        (timedelta(1), timedelta | float | None),
        (None, str | None),
        (True, bool),
        ("a", Literal["a", "b"]),
        (["x"], Sequence[str]),
        (("x",), Sequence[str] | str),
        ({"a": "b"}, Mapping[str, str]),
        (SlurmOptions(), SlurmOptions | None),
        (len, Callable[[str], int]),
        (object(), object),
        (3, Decides),
    ],
)
def test_what_fits_is_taken(given, hint):
    check_value(given, hint, "it")


@pytest.mark.parametrize(
    ("given", "hint", "expected"),
    [
        (5, str, "it is 5; expected str"),
        ("soon", timedelta | float | None, "it is 'soon'; expected timedelta or float or None"),
        (float("nan"), float, "it is nan; expected float"),
        (True, float, "it is True; expected float"),
        (1, bool, "it is 1; expected bool"),
        ("c", Literal["a", "b"], "it is 'c'; expected one of 'a', 'b'"),
        ("python3 x.py", Sequence[str] | None, r"expected a list or None, such as \['python3', 'x.py'\]"),
        (["x"], Mapping[str, str], "expected Mapping"),
        ({"a": 1}, SlurmOptions, "expected SlurmOptions"),
        ("len", Callable[[str], int], "expected Callable"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_expected(given, hint, expected):
    with pytest.raises(DefinitionError, match=expected):
        check_value(given, hint, "it")


@pytest.mark.parametrize("given", [None, {}, {"A": "x", "B": 1, "C": True, "_d": ""}, "{{ params.variables }}"])
def test_variables_that_a_process_can_have_are_taken(given):
    check_environment(given, "environment of task 'infer'")


@pytest.mark.parametrize("given", [{"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {1: "x"}, {"A": None}])
def test_variables_that_no_process_can_have_are_refused(given):
    with pytest.raises(DefinitionError, match="^environment of task 'infer' has "):
        check_environment(given, "environment of task 'infer'")


@pytest.mark.parametrize("given", [None, ["run"], ("run", 5, 1.5), "{{ params.command }}"])
def test_words_that_a_program_can_be_given_are_taken(given):
    check_command(given, "command of task 'infer'")


@pytest.mark.parametrize("word", [None, ["a"], {"a": 1}])
def test_words_that_would_be_passed_as_python_shows_them_are_refused(word):
    with pytest.raises(DefinitionError, match="as word 2; expected a text"):
        check_command(["run", word], "command of task 'infer'")
