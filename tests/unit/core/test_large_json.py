# SPDX-License-Identifier: Apache-2.0
"""Large JSON is read as ``json.loads`` reads it, or refused, and other threads get their turn."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core import large_json
from airflow_provider_oscar.core.shapes import parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.sampled_from('a",[]{}:\\é\0 ')),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.sampled_from('a",}\\')), inner),
    max_leaves=40,
)


@given(value=VALUES, at_once=st.integers(0, 8), ascii_only=st.booleans(), as_bytes=st.booleans())
def test_it_is_read_as_json_loads_reads_it(value: object, at_once: int, ascii_only: bool, as_bytes: bool):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert large_json.load(text.encode() if as_bytes else text, at_once=at_once) == json.loads(text)


@given(
    text=st.text(st.sampled_from('a"\\,[]{}:1 nul'), max_size=40)
    | VALUES.map(json.dumps).flatmap(lambda whole: st.integers(0, len(whole)).map(lambda cut: whole[:cut])),
    at_once=st.integers(0, 3),
)
def test_what_is_broken_is_refused_as_json_loads_refuses_it(text: str, at_once: int):
    def outcome(read: object) -> object:
        try:
            return repr(read(text))  # type: ignore[operator]
        except ValueError:
            return ValueError

    assert outcome(lambda each: large_json.load(each, at_once=at_once)) == outcome(json.loads)


@pytest.mark.parametrize("part", ["1,", "[],", '{"a": 1},', '"a",', "[[", "{"])
def test_more_values_than_any_answer_has_are_refused(part: str):
    with pytest.raises(ValueError, match="more than 1000 values"):
        large_json.load("[" + part * 2000, at_once=10, most_values=1000)


def test_values_within_strings_do_not_count():
    text = json.dumps({"log": "[,{" * 5000})
    assert large_json.load(text, at_once=10, most_values=1000) == json.loads(text)


@pytest.mark.parametrize("letter", ["x", '\\"', "\\\\"])
def test_a_string_that_is_too_long_is_refused(letter: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(large_json, "LONGEST_STRING", 1000)
    with pytest.raises(ValueError, match="more than 1000 characters"):
        large_json.load('["' + letter * 1000 + '"]', at_once=0)


def test_a_text_of_many_objects_and_one_of_none_are_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch):
    ways: list[str] = []
    monkeypatch.setattr(large_json, "_give_way", lambda pairs: ways.append("objects") or dict(pairs))
    slow = large_json._Slow.decode
    monkeypatch.setattr(large_json._Slow, "decode", lambda self, text: ways.append("values") or slow(self, text))
    assert parse_json("[" + "1," * 60_000 + "1]") == [1] * 60_001
    assert ways == ["values"]
    assert parse_json(json.dumps([{"a": 1, "b": 2}] * 30_000)) == [{"a": 1, "b": 2}] * 30_000
    assert ways == ["values"] + ["objects"] * 30_000


def test_nesting_that_is_too_deep_is_refused():
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 70_000 + "]" * 70_000)
