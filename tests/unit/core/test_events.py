# SPDX-License-Identifier: Apache-2.0
"""What an asset event says of objects: as others write it, and as job operators write their results."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.events import MOST_TOLD, ProducedObject, describe_outputs, parse_outputs, result_key
from airflow_provider_oscar.core.objects import split_uri

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_any_name_of_an_output_comes_back_as_it_was(key):
    (told,) = parse_outputs(
        {"job_id": "j", "objects": json.loads(json.dumps(describe_outputs("s3://out/x/", "c", [(key, "d")])))}
    )
    assert urlsplit(told.uri).netloc == "out"
    assert split_uri(told.uri)[2] == f"x/{key}"
    assert told.conn_id == "c"


def test_an_event_tells_of_a_bounded_number():
    assert len(describe_outputs("s3://out/", "c", [("k", "d")] * (MOST_TOLD + 1))) == MOST_TOLD
    assert len(parse_outputs({"objects": [{"uri": "s3://b/k"}] * (MOST_TOLD + 1)})) == MOST_TOLD


@pytest.mark.parametrize(
    ("extra", "key", "told"),
    [
        ({"uri": "s3://b/k", "conn_id": "c"}, None, [ProducedObject("s3://b/k", "c")]),
        ({"bucket": "b", "key": "a b"}, None, [ProducedObject("s3://b/a%20b")]),
        ({}, "dcache://c/p", [ProducedObject("dcache://c/p")]),
        ({"objects": []}, "s3://b/k", []),
        ({"objects": [{"uri": "file:///etc/passwd"}, 7, {"uri": "s3://b/k"}]}, None, [ProducedObject("s3://b/k")]),
        ({"objects": "s3://b/k"}, None, []),
        (None, None, []),
    ],
)
def test_objects_are_told_by_uri(extra, key, told):
    assert parse_outputs(extra, partition_key=key) == told


def test_a_result_is_known_by_its_job_and_its_files():
    def result(job: str, digest: str) -> dict[str, object]:
        return {"job_id": job, "objects": describe_outputs("s3://out/", "c", [("a", digest)])}

    assert result_key(result("j", "1")) == result_key(result("j", "1"))
    assert len({result_key(result(job, digest)) for job in "jk" for digest in "12"}) == 4
    assert result_key({"job_id": "j"}) is None
    assert result_key({"objects": []}) is None


@given(JSON)
def test_whatever_an_event_says_is_read_without_an_error(extra):
    for given_ in (extra, {"objects": extra, "job_id": extra}, {"job_id": "j", "objects": [extra]}):
        parse_outputs(given_, partition_key="x")
        key = result_key(given_)
        assert key is None or len(key) <= 250
