# SPDX-License-Identifier: Apache-2.0
"""Ceph's RADOS gateway: an S3 store of other habits, and notifications whose keys are not encoded."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from airflow.sdk import Asset, AssetWatcher
from oscar_testbed.real.ceph import CephGateway

from airflow_provider_oscar.core.errors import BadInputError, DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.builder import JobBuilder
from airflow_provider_oscar.jobs.result_store import ResultStore
from airflow_provider_oscar.triggers.objects import S3NewObjectTrigger
from tests.integration.watch.conftest import Triggerer
from tests.support import receiver
from tests.support.supervised import command_line
from tests.system.scenarios import COPY

ASSET = "received-from-ceph"
HOUR = timedelta(hours=1)
#: Names that stores of this kind take and that a careless program mangles: encodings, paths, controls, lengths.
HOSTILE_KEYS = [
    "in/a.h5",
    "in/sp ace+ü.h5",
    "in/a%20b%2Fc+d.h5",
    "in/%.h5",
    "in/q?#&;=.h5",
    "in/'\"<>`$(touch x).h5",
    "in/new\nline\r.h5",
    "in/tab\t\x01\x1b[31m.h5",
    "in/日本😀.h5",
    "in/e\u0301 and \u00e9.h5",
    "in/-rf",
    "in/*[a-z]{x,y}~.h5",
    "in/\\..\\evil.h5",
    "in/../../evil",
    "in/./dot",
    "in//double//slash",
    "../evil",
    "/absolute",
    " leading and trailing ",
    "in/" + "x" * (1024 - 3),
    "in/" + "ü" * ((1024 - 3) // 2),
]
#: An object like any other, which watcher and receiver take for a folder nevertheless.
FOLDER = "in/folder/"


@pytest.fixture(scope="module")
def ceph(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephGateway]:
    gateway = CephGateway(tmp_path_factory.mktemp("ceph"))
    start(gateway)
    yield gateway
    gateway.stop()
    assert not gateway.healthy()


@pytest.fixture
def hook(ceph: CephGateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[OscarS3Hook]:
    monkeypatch.setenv("AIRFLOW_CONN_CEPH", json.dumps(ceph.connection()))
    hook = OscarS3Hook("ceph")
    yield hook
    hook.close()


@pytest.fixture
def bucket(ceph: CephGateway) -> str:
    name = f"b{uuid.uuid4().hex[:12]}"
    ceph.client().create_bucket(Bucket=name)
    return name


def put(ceph: CephGateway, bucket: str, keys: list[str]) -> None:
    client = ceph.client()
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())


@pytest.mark.parametrize("fast", [True, False], ids=["own reader", "boto3"])
def test_hostile_keys_are_listed_as_they_were_written(ceph, hook, bucket, fast):
    put(ceph, bucket, [*HOSTILE_KEYS, FOLDER])
    if not fast:
        hook._boto_only.set()
    page = hook.list_page(bucket)
    assert sorted(event.key for event in page.events) == sorted([*HOSTILE_KEYS, FOLDER])
    assert hook._boto_only.is_set() is not fast
    assert page.server_time is not None
    assert abs(page.server_time - datetime.now(UTC)) < timedelta(minutes=1)
    for event in page.events:
        seen = hook.head(bucket, event.key)
        assert (seen.id, seen.size) == (event.id, len(event.key.encode()))


def test_pages_prefixes_and_starts_join_up(ceph, hook, bucket):
    put(ceph, bucket, [f"in/{number:02}" for number in range(25)] + ["in/sub/a", "top"])
    pages = [hook.list_page(bucket, "in/", page_size=10)]
    while pages[-1].next_token:
        pages.append(hook.list_page(bucket, "in/", page_size=10, token=pages[-1].next_token))
    keys = [event.key for page in pages for event in page.events]
    assert (len(keys), len(set(keys))) == (26, 26)
    folded = hook.list_page(bucket, "in/", delimiter="/", start_after="in/20")
    assert [event.key for event in folded.events] == [f"in/{number}" for number in range(21, 25)]
    assert folded.common_prefixes == ["in/sub/"]
    seen = [event.key for page in hook.list_fan_out(bucket) for event in page.events]
    assert len(seen) == len(set(seen)) == 27


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_a_job_turns_an_object_of_a_hostile_key_into_output(ceph, hook, bucket, key, tmp_path):
    """The supervisor itself, with nothing but a presigned URL to read from and a POST policy to write with."""
    put(ceph, bucket, [key])
    supervisor = JobBuilder()
    job = supervisor.build(
        submission_id="job-1",
        event=hook.head(bucket, key),
        command=COPY,
        output_conn_id="ceph",
        output_uri=f"s3://{bucket}/out",
    )
    specification = tmp_path / "job.json"
    specification.write_text(job.secret["job.json"])
    done = subprocess.run(
        command_line(tmp_path, specification),
        cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = ResultStore().read_manifest("ceph", f"s3://{bucket}/out", "job-1")
    assert manifest is not None
    assert (manifest.succeeded, manifest.input.uri) == (True, hook.head(bucket, key).uri)
    (output,) = manifest.outputs
    assert hook.read_bytes(f"{manifest.output_uri}{quote(output.key)}", 2000) == key.encode()


def test_a_job_downloads_one_version_only(ceph, hook, bucket):
    put(ceph, bucket, ["in/a.h5"])
    event = hook.head(bucket, "in/a.h5")
    hook.put_bytes(bucket, "in/a.h5", b"other data")
    with pytest.raises(BadInputError, match="overwritten"):
        hook.stage_in(event, lifetime=HOUR)
    hook.delete(bucket, "in/a.h5")
    with pytest.raises(BadInputError, match="is gone"):
        hook.stage_in(event, lifetime=HOUR)


def test_a_job_uploads_below_its_prefix_and_nowhere_else(hook, bucket):
    stage_out = hook.stage_out(f"s3://{bucket}/out/", submission_id="job-1", lifetime=HOUR, max_bytes=1000)

    def post(key: str, data: bytes) -> int:
        fields = {**stage_out.fields, "key": key}
        return httpx.post(stage_out.url, data=fields, files={"file": ("x", data)}).status_code

    assert post(f"{stage_out.prefix}sp ace+ü/1.txt", b"hi") == 204
    assert post("out/other", b"no") == 403
    assert post(f"{stage_out.prefix}big", b"x" * 2000) >= 400
    assert hook.read_bytes(stage_out.uri + "sp%20ace+%C3%BC/1.txt", 10) == b"hi"
    assert not hook.exists(bucket, "out/other")
    assert not hook.exists(bucket, f"{stage_out.prefix}big")


def test_what_is_wrong_is_told_apart(ceph, hook, bucket, monkeypatch):
    assert hook.head(bucket, "none") is None
    with pytest.raises(DefinitionError, match="bucket 'nobucket' does not exist"):
        hook.head("nobucket", "none")
    with pytest.raises(DefinitionError, match="bucket 'nobucket' does not exist"):
        hook.list_page("nobucket")
    monkeypatch.setenv("AIRFLOW_CONN_CEPH", json.dumps(ceph.connection() | {"password": "wrong"}))
    with pytest.raises(DefinitionError, match="secret key is wrong"):
        OscarS3Hook("ceph").list_page(bucket)


@pytest.fixture
def told(ceph: CephGateway, airflow_db: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket whose notifications go to the receiver, which knows its sender by the endpoint's password."""
    asset = f"{ASSET}-{bucket}"
    secret = secrets.token_hex(16)
    extra = {"assets": {asset: {"conn_id": "ceph", "buckets": [bucket], "ignore": []}}}
    connection = {"conn_type": "generic", "password": secret, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_NOTIFICATIONS", json.dumps(connection))
    with receiver.receiver(asset) as port:
        ceph.notify(bucket, f"topic-{bucket}", f"http://store:{secret}@127.0.0.1:{port}/notifications/{asset}")
        yield asset


def until_registered(asset: str, keys: set[str], seconds: float = 60) -> list[ObjectEvent]:
    deadline = time.monotonic() + seconds
    while (found := {event.key for event in receiver.registered(asset)}) != keys:
        assert time.monotonic() < deadline, {"missing": keys - found, "too many": found - keys}
        time.sleep(0.2)
    return receiver.registered(asset)


def test_what_ceph_tells_is_registered_as_a_listing_would_show_it(ceph, hook, bucket, told):
    put(ceph, bucket, [FOLDER, *HOSTILE_KEYS])
    client: Any = ceph.client()
    large = {"Bucket": bucket, "Key": "in/large+%20.h5"}
    upload = {**large, "UploadId": client.create_multipart_upload(**large)["UploadId"]}
    parts = []
    for number in (1, 2):
        part = client.upload_part(**upload, PartNumber=number, Body=b"x" * 5 * 1024**2)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    found = until_registered(told, {*HOSTILE_KEYS, large["Key"]})
    listed = {event.key: event.id for event in hook.list_page(bucket).events if event.key != FOLDER}
    assert len(found) == len(listed)
    assert {event.key: event.id for event in found} == listed


def test_an_overwrite_is_told_again_and_a_deletion_is_not(ceph, hook, bucket, told):
    put(ceph, bucket, ["in/twice.h5", "in/gone.h5"])
    until_registered(told, {"in/twice.h5", "in/gone.h5"})
    hook.delete(bucket, "in/gone.h5")
    ceph.client().put_object(Bucket=bucket, Key="in/twice.h5", Body=b"other data")
    put(ceph, bucket, ["in/last.h5"])
    found = until_registered(told, {"in/twice.h5", "in/gone.h5", "in/last.h5"})
    assert sorted(event.key for event in found) == ["in/gone.h5", "in/last.h5", "in/twice.h5", "in/twice.h5"]


@pytest.fixture
def triggerer(airflow_db: Path) -> Triggerer:
    return Triggerer()


def test_a_watcher_reports_every_hostile_key_once(ceph, hook, bucket, triggerer):
    trigger = S3NewObjectTrigger(
        asset_name=f"watched-{bucket}", conn_id="ceph", bucket=bucket, start="all", poll_interval=0.5, ignore=()
    )
    inbox = Asset(f"watched-{bucket}", watchers=[AssetWatcher(name=f"watched-{bucket}", trigger=trigger)])
    triggerer.watch(inbox)
    put(ceph, bucket, [FOLDER, *HOSTILE_KEYS])
    with triggerer.running() as until:
        until(lambda: len(triggerer.reported(inbox)) >= len(HOSTILE_KEYS))
        ceph.client().put_object(Bucket=bucket, Key="in/a.h5", Body=b"again")
        until(lambda: triggerer.reported(inbox).count("in/a.h5") == 2)
    assert sorted(triggerer.reported(inbox)) == sorted([*HOSTILE_KEYS, "in/a.h5"])
