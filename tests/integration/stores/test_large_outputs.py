# SPDX-License-Identifier: Apache-2.0
"""A large output from the supervisor through a real POST policy to one object, on both embedded stores."""

from __future__ import annotations

import hashlib
import json
import random
from datetime import timedelta

import msgspec
import pytest
from airflow.sdk import Connection
from oscar_testbed.fakes.s3 import LocalS3

from airflow_provider_oscar.core.errors import LostContactError
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.large_outputs import PARTS_PREFIX, finish_outputs
from airflow_provider_oscar.jobs.manifest import Manifest, Output, Parts
from airflow_provider_oscar.supervisor.outputs import StageOut
from airflow_provider_oscar.supervisor.stores import S3Post

MIB = 1024 * 1024
HOUR = timedelta(hours=1)


@pytest.fixture(params=["seaweedfs", "moto"])
def hook(request, tmp_path, s3_server):
    server = s3_server if request.param == "seaweedfs" else request.getfixturevalue("moto_server")
    fields = {"login": server.access_key, "password": server.secret_key}
    extra = json.dumps({"endpoint_url": server.endpoint})
    made = OscarS3Hook("store", connection=Connection(conn_id="store", conn_type="oscar_s3", extra=extra, **fields))
    made.client.create_bucket(Bucket=request.param)
    yield made, request.param
    for page in made.list_pages(request.param):
        for each in page.events:
            made.delete(request.param, each.key)
    made.client.delete_bucket(Bucket=request.param)
    made.close()


@pytest.fixture(scope="module")
def moto_server(tmp_path_factory):
    server = LocalS3(tmp_path_factory.mktemp("moto"), mode="moto")
    with pytest.warns(RuntimeWarning, match="moto"):
        server.start()
    yield server
    server.stop()


def staged_out(hook, bucket, folder, size, monkeypatch):
    """Stage a file out as the supervisor does, and return its content and the manifest."""
    monkeypatch.setenv("OSCAR_SUPERVISOR_PARTS_FROM", "1")
    monkeypatch.setenv("OSCAR_SUPERVISOR_PART_SIZE", str(5 * MIB))
    data = random.Random(3).randbytes(size)
    (folder / "a b").mkdir()
    (folder / "a b" / "größe.bin").write_bytes(data)
    target = hook.stage_out(f"s3://{bucket}/out", submission_id="job-1", lifetime=HOUR)
    out = StageOut(S3Post(msgspec.to_builtins(target)), None)
    out.run(str(folder))
    out.check("fail")
    return data, get_manifest(out.outputs, bucket)


def get_manifest(outputs, bucket, **more):
    at = "2026-11-22T09:00:00+00:00"
    return Manifest.from_dict(
        {
            "version": "1.0",
            "submission_id": "job-1",
            "output_uri": f"s3://{bucket}/out/job-1/",
            "outputs": outputs,
            "exit_code": 0,
            "phases": {"queued": {"start": at, "end": at}},
            **more,
        }
    )


def keys(hook, bucket):
    return [event.key for page in hook.list_pages(bucket) for event in page.events]


def test_parts_become_the_one_object_that_was_written(hook, tmp_path, monkeypatch):
    store, bucket = hook
    data, manifest = staged_out(store, bucket, tmp_path, 12 * MIB + 5, monkeypatch)
    assert keys(store, bucket) == [f"out/job-1/{PARTS_PREFIX}a b/größe.bin/{n:05d}" for n in (1, 2, 3)]
    for _ in range(2):  # a second conclusion of the same job changes nothing
        finish_outputs(store, f"s3://{bucket}/out", "job-1", manifest)
        assert keys(store, bucket) == ["out/job-1/a b/größe.bin"]
    stored = store.read_bytes(f"s3://{bucket}/out/job-1/a%20b/gr%C3%B6%C3%9Fe.bin", len(data))
    assert hashlib.sha256(stored).hexdigest() == manifest.outputs[0].sha256
    assert store.client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_a_part_somebody_replaced_is_noticed(hook, tmp_path, monkeypatch):
    store, bucket = hook
    _, manifest = staged_out(store, bucket, tmp_path, 12 * MIB, monkeypatch)
    if bucket == "moto":
        assert manifest.outputs[0].parts.etag == "", "moto says no tag when it takes a POST, so nobody knows"
        return
    part = next(each for each in keys(store, bucket) if each.endswith("00002"))
    store.put_bytes(bucket, part, bytes(5 * MIB))
    with pytest.raises(LostContactError, match="somebody wrote to the output prefix"):
        finish_outputs(store, f"s3://{bucket}/out", "job-1", manifest)


def test_a_part_that_is_gone_leaves_no_open_upload(hook, tmp_path, monkeypatch):
    store, bucket = hook
    _, manifest = staged_out(store, bucket, tmp_path, 12 * MIB, monkeypatch)
    store.delete(bucket, next(each for each in keys(store, bucket) if each.endswith("00002")))
    with pytest.raises(LostContactError, match="1 of its 3 parts are not there"):
        finish_outputs(store, f"s3://{bucket}/out", "job-1", manifest)
    assert store.client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_a_job_that_is_given_up_leaves_no_parts(hook, tmp_path, monkeypatch):
    store, bucket = hook
    staged_out(store, bucket, tmp_path, 12 * MIB, monkeypatch)
    store.put_bytes(bucket, "out/job-1/kept", b"1")
    finish_outputs(store, f"s3://{bucket}/out", "job-1", None)
    assert keys(store, bucket) == ["out/job-1/kept"]


def test_log_and_checkpoint_of_a_failed_job_become_whole_as_well(hook):
    store, bucket = hook
    entries = []
    for name in ("job.log.gz", "checkpoint/state"):
        store.put_bytes(bucket, f"out/job-1/{PARTS_PREFIX}{name}/00001", name.encode())
        entries.append(msgspec.to_builtins(Output(name, len(name), "0" * 64, Parts(5 * MIB, 1))))
    manifest = get_manifest([], bucket, exit_code=1, log=entries[0], checkpoint=entries[1:])
    finish_outputs(store, f"s3://{bucket}/out", "job-1", manifest)
    assert sorted(keys(store, bucket)) == ["out/job-1/checkpoint/state", "out/job-1/job.log.gz"]
    assert store.read_bytes(f"s3://{bucket}/out/job-1/checkpoint/state", 99) == b"checkpoint/state"


def test_a_manifest_cut_to_fit_the_log_does_not_pass_for_one_without_parts(hook):
    store, bucket = hook
    with pytest.raises(LostContactError, match="2 of its outputs are in parts"):
        finish_outputs(store, f"s3://{bucket}/out", "job-1", get_manifest([], bucket, truncated=True, in_parts=2))
