# SPDX-License-Identifier: Apache-2.0
"""The exception tree and the quoting of foreign text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core import errors


@pytest.mark.parametrize(
    ("kind", "parents"),
    [
        (errors.DefinitionError, (errors.OscarProviderError, ValueError)),
        (errors.TransientError, (errors.OscarProviderError,)),
        (errors.PermanentError, (errors.OscarProviderError,)),
        (errors.BadInputError, (errors.PermanentError,)),
        (errors.JobFailedError, (errors.PermanentError,)),
        (errors.LostContactError, (errors.OscarProviderError,)),
    ],
)
def test_errors_are_sorted_by_what_the_caller_does_next(kind, parents):
    assert all(issubclass(kind, parent) for parent in parents)


def test_a_lost_contact_is_neither_permanent_nor_transient():
    assert not issubclass(errors.LostContactError, (errors.PermanentError, errors.TransientError))


def test_a_transient_error_says_how_long_to_wait_if_the_server_did():
    assert errors.TransientError("busy").delay is None
    assert errors.TransientError("busy", delay=5.0).delay == 5.0


def test_a_short_text_is_quoted_whole():
    assert errors.quoted("in/a b") == "'in/a b'"
    assert errors.quoted(7) == "'7'"


def test_a_long_text_is_cut_and_its_length_told():
    assert errors.quoted("x" * 300).endswith("… (300 characters)")


@given(st.text())
def test_quoted_text_never_breaks_a_line(text):
    assert len(errors.quoted(text).splitlines()) == 1
    assert errors.quoted(text).isprintable()
