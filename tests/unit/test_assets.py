# SPDX-License-Identifier: Apache-2.0
"""Asset URIs: what is accepted, what is refused, and that one thing has one spelling."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.assets import (
    dcache_asset,
    oscar_asset,
    s3_asset,
    sanitize_dcache_uri,
    sanitize_oscar_uri,
    sanitize_s3_uri,
)


@pytest.mark.parametrize(
    ("sanitize", "uri", "expected"),
    [
        (sanitize_s3_uri, "s3://bucket/in/a b", "s3://bucket/in/a%20b"),
        (sanitize_s3_uri, "s3://bucket/%C3%A9", "s3://bucket/%C3%A9"),
        (sanitize_s3_uri, "s3://bucket/%c3%a9", "s3://bucket/%C3%A9"),
        (sanitize_s3_uri, "s3://bucket", "s3://bucket/"),
        (sanitize_s3_uri, "s3://bucket/../x//y", "s3://bucket/../x//y"),
        (sanitize_dcache_uri, "dcache://dc//in/a b", "dcache://dc/in/a%20b"),
        (sanitize_dcache_uri, "dcache://dc", "dcache://dc/"),
        (sanitize_oscar_uri, "oscar://oscar_default/threedgan", "oscar://oscar_default/threedgan"),
    ],
)
def test_accepted_uris_get_one_spelling(sanitize, uri, expected):
    assert urlunsplit(sanitize(urlsplit(uri))) == expected


@pytest.mark.parametrize(
    ("sanitize", "uri"),
    [
        (sanitize_s3_uri, "s3:///key"),
        (sanitize_s3_uri, "s3://user@bucket/key"),
        (sanitize_s3_uri, "s3://bucket:80/key"),
        (sanitize_s3_uri, "s3://bucket/key?versionId=1"),
        (sanitize_dcache_uri, "dcache:///path"),
        (sanitize_dcache_uri, "dcache://dc/in/../x"),
        (sanitize_dcache_uri, "dcache://dc/in/%2e%2e/x"),
        (sanitize_dcache_uri, "dcache://dc/a%00"),
        (sanitize_oscar_uri, "oscar://dc"),
        (sanitize_oscar_uri, "oscar://dc/Not_A_Service"),
        (sanitize_oscar_uri, "oscar://dc/a/b"),
    ],
)
def test_other_uris_are_refused(sanitize, uri):
    with pytest.raises(ValueError, match=r"expected|cannot be"):
        sanitize(urlsplit(uri))


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_the_spelling_is_stable_for_any_key(key):
    once = sanitize_s3_uri(urlsplit(s3_asset(bucket="bucket", key=key).uri))
    assert sanitize_s3_uri(once) == once


def test_assets_are_made_from_raw_names():
    assert s3_asset(bucket="data", key="in/a b").uri.startswith("s3://data/in/a%20b")
    assert dcache_asset(conn_id="dc", path="/in/ü").uri.startswith("dcache://dc/in/%C3%BC")
    assert oscar_asset(conn_id="o", service="svc", name="n").uri.startswith("oscar://o/svc")
