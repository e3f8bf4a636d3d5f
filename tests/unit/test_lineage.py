# SPDX-License-Identifier: Apache-2.0
"""What a job read and wrote, as datasets that other tools name the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.lineage import OUTPUTS_NAMED, input_datasets, operator_lineage, output_datasets

MANIFEST = {
    "input": {"uri": "s3://in/a%20b.h5", "size": 3},
    "output_uri": "dcache://site/results/",
    "outputs": [{"key": "infer-1/x.h5"}, {"key": "infer-1/x.png"}],
}


def test_input_and_outputs_are_named_as_openlineage_names_object_stores():
    assert input_datasets(MANIFEST) == [("s3://in", "a b.h5")]
    assert output_datasets(MANIFEST) == [
        ("dcache://site", "/results/infer-1/x.h5"),
        ("dcache://site", "/results/infer-1/x.png"),
    ]


def test_outputs_at_the_top_of_a_bucket_have_their_key_as_name():
    found = output_datasets({**MANIFEST, "output_uri": "s3://out/"})
    assert found == [
        ("s3://out", "infer-1/x.h5"),
        ("s3://out", "infer-1/x.png"),
    ]


def test_outputs_that_went_elsewhere_are_named_where_they_are():
    outputs = [{"key": "a"}, {"key": "p/b.png", "uri": "s3://pictures/x/infer-1/"}, {"key": "c", "uri": "nowhere"}]
    assert output_datasets({**MANIFEST, "outputs": outputs}) == [
        ("dcache://site", "/results/a"),
        ("s3://pictures", "x/infer-1/p/b.png"),
        ("dcache://site", "/results/c"),
    ]


def test_of_many_outputs_their_place_is_the_dataset():
    many = {**MANIFEST, "outputs": [{"key": f"infer-1/{number}"} for number in range(OUTPUTS_NAMED + 1)]}
    assert output_datasets(many) == [("dcache://site", "/results")]


@pytest.mark.parametrize("broken", [{}, {"input": {"uri": "http://x"}}, {"outputs": [3], "output_uri": "?"}])
def test_what_is_not_known_is_left_out(broken):
    assert input_datasets(broken) == []
    assert output_datasets(broken) == []


@given(
    st.dictionaries(
        st.sampled_from(["input", "output_uri", "outputs"]), st.none() | st.text() | st.lists(st.integers())
    )
)
def test_a_manifest_of_any_kind_is_no_error(manifest):
    assert isinstance(input_datasets(manifest) + output_datasets(manifest), list)


def test_airflows_provider_gets_its_own_classes():
    pytest.importorskip("airflow.providers.openlineage.extractors")
    found = operator_lineage(MANIFEST)
    assert [(each.namespace, each.name) for each in found.inputs] == [("s3://in", "a b.h5")]
    assert len(found.outputs) == 2
