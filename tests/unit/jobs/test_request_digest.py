# SPDX-License-Identifier: Apache-2.0
"""A retry is recognised by the digest of what it asks for, in whichever process it is computed."""

from __future__ import annotations

from airflow_provider_oscar.jobs.signing import request_digest


def test_a_set_counts_whatever_its_order():
    one, other = {8, 0}, {0, 8}
    assert list(one) != list(other)
    assert request_digest({"a": one}) == request_digest({"a": other}) != request_digest({"a": {8}})
    assert request_digest({"a": frozenset(one)}) == request_digest({"a": frozenset(other)})
