# SPDX-License-Identifier: Apache-2.0
"""What of a manifest goes into XCom."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from airflow_provider_oscar.jobs.manifest import Manifest, Output
from airflow_provider_oscar.jobs.summary import SUMMARY_LIMIT, storable, summarize
from tests.support.fakes import manifest


def test_a_short_manifest_is_whole():
    found = manifest("j")
    assert summarize(found) == found.to_dict()


def test_of_a_hundred_thousand_outputs_the_first_remain_and_the_rest_is_counted():
    outputs = tuple(Output(f"file-{number:06}", number, "0" * 64) for number in range(100_000))
    found = summarize(replace(manifest("j"), outputs=outputs))
    assert len(json.dumps(found)) <= SUMMARY_LIMIT + 1000
    assert found["outputs"][0]["key"] == "file-000000"
    assert len(found["outputs"]) + found["outputs_omitted"] == 100_000
    assert len(found["outputs"]) > 100


def test_large_metrics_go_before_outputs():
    found = summarize(replace(manifest("j"), metrics={str(number): "x" * 100 for number in range(2000)}))
    assert (found["metrics"], found["metrics_omitted"]) == ({}, 2000)


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=3),
    max_leaves=10,
)


@given(anything)
def test_what_comes_out_fits_json_and_postgresql(value):
    text = json.dumps(storable(value), allow_nan=False, ensure_ascii=False)
    assert "\0" not in text
    text.encode("utf-8")
    msgspec.msgpack.encode(storable(value))  # as tasks and triggers send it


@pytest.mark.parametrize("number", [2**64, -(2**64), 10**4000])
def test_a_number_of_more_than_64_bits_becomes_text(number):
    """Airflow's messages cannot hold it, so that a job that succeeded would fail by its metrics."""
    assert isinstance(storable(number), str)
    assert storable(2**64 - 1) == 2**64 - 1


@pytest.mark.parametrize("depth", [50, 500, 900])
def test_what_is_nested_deeply_becomes_text(depth):
    text = json.dumps(manifest("j").to_dict() | {"metrics": {"a": "@"}}).replace('"@"', "[" * depth + "]" * depth)
    found = json.dumps(summarize(Manifest.from_json(text)))
    assert "nested too deeply" in found
    assert found.count("[") < 60


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_becomes_none(number):
    assert summarize(replace(manifest("j"), metrics={"loss": number}))["metrics"] == {"loss": None}


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_stored_manifest_with_such_a_number_is_read(word):
    text = json.dumps(manifest("j").to_dict() | {"metrics": {"loss": "@"}}).replace('"@"', word)
    assert Manifest.from_json(text).metrics == {"loss": None}
