# SPDX-License-Identifier: Apache-2.0
"""One real S3 store and one real WebDAV server for all tests of this folder."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import Connection
from oscar_testbed.fakes.s3 import LocalS3

from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from tests.support import servers

#: A user who may only look, and only into one bucket.
READER = {
    "name": "reader",
    "credentials": [{"accessKey": "reader", "secretKey": "reader-secret"}],
    "actions": ["Read:readable", "List:readable"],
}


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    with LocalS3(tmp_path_factory.mktemp("seaweedfs"), mode="seaweedfs", identities=[READER]) as server:
        yield server


@pytest.fixture(scope="session")
def dav_server(tmp_path_factory):
    with servers.apache_webdav(tmp_path_factory.mktemp("apache")) as server:
        yield server


@pytest.fixture
def make_s3(s3_server):
    """Return a function that makes a hook; keyword arguments replace fields of the connection."""
    hooks = []

    def make(**fields) -> OscarS3Hook:
        extra = {"endpoint_url": s3_server.endpoint} | fields.pop("extra", {})
        base = {
            "conn_id": "store",
            "conn_type": "oscar_s3",
            "login": s3_server.access_key,
            "password": s3_server.secret_key,
        }
        hooks.append(OscarS3Hook("store", connection=Connection(**base | fields, extra=json.dumps(extra))))
        return hooks[-1]

    yield make
    for hook in hooks:
        hook.close()


@pytest.fixture
def s3(make_s3, request):
    """A hook and a bucket of the test's own, named ``hook.bucket`` here."""
    hook = make_s3()
    bucket = f"b{abs(hash(request.node.nodeid)):x}"[:40]
    hook.client.create_bucket(Bucket=bucket)
    return hook, bucket


@pytest.fixture
def make_dav(dav_server):
    """Return a function that makes a hook; keyword arguments replace fields of the connection."""
    hooks = []

    def make(**fields) -> DCacheHook:
        extra = fields.pop("extra", {})
        base = {"conn_id": "dav", "conn_type": "dcache", "host": dav_server.url}
        base |= {"login": dav_server.user, "password": dav_server.password}
        hooks.append(DCacheHook("dav", connection=Connection(**base | fields, extra=json.dumps(extra))))
        return hooks[-1]

    yield make
    for hook in hooks:
        hook.close()
