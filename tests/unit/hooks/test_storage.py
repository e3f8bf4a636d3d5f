# SPDX-License-Identifier: Apache-2.0
"""Which hook is chosen for a URI, an event or a connection."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.hooks.storage import storage_hook

EVENT = ObjectEvent(StoreType.S3, "store", "bucket", "key", 1, "e", "", datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("arguments", "kind", "conn_id"),
    [
        ((EVENT,), OscarS3Hook, "store"),
        (("s3://bucket/key",), OscarS3Hook, "oscar_s3_default"),
        (("s3://bucket/key", "mine"), OscarS3Hook, "mine"),
        (("dcache://dc/path",), DCacheHook, "dc"),
        (("dcache://dc/path", "mine"), DCacheHook, "mine"),
    ],
    ids=["event", "s3", "s3 with connection", "dcache", "dcache with connection"],
)
def test_the_hook_follows_from_the_target(arguments, kind, conn_id):
    hook = storage_hook(*arguments)
    assert type(hook) is kind
    assert getattr(hook, kind.conn_name_attr) == conn_id


@pytest.mark.parametrize(
    ("conn_type", "kind"), [("aws", OscarS3Hook), ("oscar_s3", OscarS3Hook), ("dcache", DCacheHook)]
)
def test_the_hook_follows_from_the_type_of_a_connection(monkeypatch, conn_type, kind):
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": conn_type}))
    assert type(storage_hook("store")) is kind


def test_a_connection_of_another_type_is_refused(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": "http"}))
    with pytest.raises(DefinitionError, match="'http'"):
        storage_hook("store")


def test_another_scheme_is_refused():
    with pytest.raises(DefinitionError, match="gs://x/y"):
        storage_hook("gs://x/y")
