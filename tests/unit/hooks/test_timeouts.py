# SPDX-License-Identifier: Apache-2.0
"""The time-outs of a connection: where they may be said, and what is refused."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import Connection

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook


def hook(kind: str, **extra: object) -> OscarS3Hook | DCacheHook:
    found = Connection(conn_id="c", conn_type=kind, host="https://store.example", extra=json.dumps(extra))
    return DCacheHook("c", connection=found) if kind == "dcache" else OscarS3Hook("c", connection=found)


@pytest.mark.parametrize(
    ("kind", "extra", "expected"),
    [
        pytest.param("oscar_s3", {}, (10, 60), id="s3 by default"),
        pytest.param("dcache", {}, (10, 150), id="dcache by default"),
        pytest.param("oscar_s3", {"connect_timeout": 2, "read_timeout": "5.5"}, (2, 5.5), id="s3"),
        pytest.param("dcache", {"connect_timeout": 2, "read_timeout": ""}, (2, 150), id="dcache"),
        pytest.param("aws", {"config_kwargs": {"read_timeout": 7}}, (10, 7), id="as the Amazon provider says it"),
    ],
)
def test_time_outs_are_those_of_the_connection(kind, extra, expected):
    found = hook(kind, **extra)
    assert (found.settings.connect_timeout, found.settings.read_timeout) == expected
    assert found.call_deadline == sum(expected)


@pytest.mark.parametrize("kind", ["oscar_s3", "dcache"])
@pytest.mark.parametrize("value", [0, -1, "soon", True, "nan", 1e9, [1]], ids=str)
def test_what_is_no_time_is_refused_by_name(kind, value):
    with pytest.raises(DefinitionError, match="connection 'c': extra 'read_timeout' is .* expected seconds above 0"):
        _ = hook(kind, read_timeout=value).settings


def test_both_clients_of_a_store_take_them():
    s3, dcache = hook("oscar_s3", connect_timeout=3, read_timeout=4), hook("dcache", connect_timeout=3, read_timeout=4)
    assert (s3.client.meta.config.connect_timeout, s3.client.meta.config.read_timeout) == (3, 4)
    timeout = dcache.client_options()["timeout"]
    assert (timeout.connect, timeout.read) == (3, 4)
