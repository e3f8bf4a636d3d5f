# SPDX-License-Identifier: Apache-2.0
"""A real SeaweedFS posts to the receiver, in its own words; each object gets one partition."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from oscar_testbed.fakes.s3 import LocalS3

from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from tests.support import receiver as receiving

TOML = """
[notification.webhook]
enabled = true
endpoint = "http://127.0.0.1:{port}/notifications/received-from-seaweedfs"
bearer_token = "the secret of SeaweedFS"
timeout_seconds = 20
max_retries = 5
backoff_seconds = 1
max_backoff_seconds = 2
workers = 2
buffer_size = 1000
"""
ASSET = "received-from-seaweedfs"


@pytest.fixture
def receiver(airflow_db: Path) -> Iterator[int]:
    """The receiver's port."""
    with receiving.receiver(ASSET) as port:
        yield port


@pytest.fixture
def store(receiver: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalS3]:
    """A SeaweedFS that tells the receiver."""
    (tmp_path / "weed").mkdir()
    (tmp_path / "weed" / "notification.toml").write_text(TOML.format(port=receiver))
    extra = {"assets": {ASSET: {"conn_id": "weed", "buckets": ["incoming"], "suffix": ".h5"}}}
    connection = {"conn_type": "generic", "password": "the secret of SeaweedFS", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_NOTIFICATIONS", json.dumps(connection))
    with LocalS3(tmp_path / "weed", mode="seaweedfs") as server:
        monkeypatch.setenv("AIRFLOW_CONN_WEED", json.dumps(server.connection()))
        yield server


def test_what_seaweedfs_tells_is_registered_as_a_listing_would_show_it(store: LocalS3) -> None:
    client = store.client()
    client.create_bucket(Bucket="incoming")
    client.create_bucket(Bucket="others")
    client.put_object(Bucket="others", Key="in/secret.h5", Body=b"x")
    names = {"in/a.h5", "in/sp ace+%20\u00fc.h5", "in/large.h5"}
    for key in sorted(names - {"in/large.h5"}) + ["in/notes.txt"]:
        client.put_object(Bucket="incoming", Key=key, Body=b"abc")
    upload = client.create_multipart_upload(Bucket="incoming", Key="in/large.h5")["UploadId"]
    parts = []
    for number in (1, 2):
        part = client.upload_part(
            Bucket="incoming", Key="in/large.h5", UploadId=upload, PartNumber=number, Body=b"x" * 5 * 1024**2
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    client.complete_multipart_upload(
        Bucket="incoming", Key="in/large.h5", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    deadline = time.monotonic() + 120
    while {event.key for event in receiving.registered(ASSET)} != names:
        assert time.monotonic() < deadline, [event.key for event in receiving.registered(ASSET)]
        time.sleep(0.2)
    listed = {event.key: event.id for event in OscarS3Hook("weed").list_page("incoming").events}
    found = receiving.registered(ASSET)
    assert len(found) == len(names)
    assert {event.key: event.id for event in found} == {key: listed[key] for key in names}
