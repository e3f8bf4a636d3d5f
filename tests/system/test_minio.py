# SPDX-License-Identifier: Apache-2.0
"""MinIO itself tells of new objects: to the receiver, to a watcher that listens, and to OSCAR."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oscar_testbed.real.upstream.minio import MinIO

from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.services import ServiceDefinition, StoragePath
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.watch.arguments.s3 import S3Arguments
from airflow_provider_oscar.watch.sources.notified import NotifiedSource
from tests.integration.notifications.conftest import following
from tests.support import receiver as receiving
from tests.system.backends import IMAGE, NODE, Backend, real_oscar
from tests.system.scenarios import until

ASSET = "received-from-minio"
SECRET = "the-secret-of-MinIO"
WEBHOOK = "AIRFLOW"
BUCKET = "incoming"
HOSTILE = "in/sp ace+%20ü'$(x);&<>\".h5"


def open_store(minio: MinIO, monkeypatch: pytest.MonkeyPatch) -> OscarS3Hook:
    """The hook on a MinIO, which has the bucket."""
    monkeypatch.setenv("AIRFLOW_CONN_MINIO", json.dumps(minio.connection()))
    hook = OscarS3Hook("minio")
    hook.client.create_bucket(Bucket=BUCKET)
    return hook


def upload_in_parts(hook: OscarS3Hook, key: str) -> None:
    """Put an object of two parts."""
    place = {"Bucket": BUCKET, "Key": key}
    upload = hook.client.create_multipart_upload(**place)["UploadId"]
    parts = [
        {"PartNumber": n, "ETag": hook.client.upload_part(**place, UploadId=upload, PartNumber=n, Body=body)["ETag"]}
        for n, body in ((1, b"x" * 5 * 1024**2), (2, b"y"))
    ]
    hook.client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})


class TestReceiver:
    """MinIO posts to the receiver in Airflow's API server."""

    @pytest.fixture(scope="class")
    def port(self, airflow_db: Path) -> Iterator[int]:
        """The receiver's port."""
        with receiving.receiver(ASSET) as port:
            yield port

    @pytest.fixture
    def store(self, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OscarS3Hook]:
        """A MinIO that keeps what it could not deliver, and tells of objects ending in ``.h5``."""
        name = f"MINIO_NOTIFY_WEBHOOK_{{}}_{WEBHOOK}"
        settings = {
            name.format("ENABLE"): "on",
            name.format("ENDPOINT"): f"http://127.0.0.1:{port}/notifications/{ASSET}",
            name.format("AUTH_TOKEN"): SECRET,
            name.format("QUEUE_DIR"): str(tmp_path / "events"),
        }
        minio = MinIO(tmp_path / "minio", settings)
        try:
            minio.start()
            hook = open_store(minio, monkeypatch)
            target: dict[str, Any] = {
                "QueueArn": f"arn:minio:sqs::{WEBHOOK}:webhook",
                "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"],
                "Filter": {"Key": {"FilterRules": [{"Name": "suffix", "Value": ".h5"}]}},
            }
            hook.client.put_bucket_notification_configuration(
                Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": [target]}
            )
            yield hook
        finally:
            minio.stop()

    def allow(self, monkeypatch: pytest.MonkeyPatch, secret: str = SECRET) -> None:
        """Set the receiver up."""
        extra = {"assets": {ASSET: {"conn_id": "minio", "buckets": [BUCKET], "prefix": "in/"}}}
        connection = {"conn_type": "generic", "password": secret, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_OSCAR_NOTIFICATIONS", json.dumps(connection))

    def keys(self) -> set[str]:
        """Keys of what was registered."""
        return {event.key for event in receiving.registered(ASSET)}

    def test_what_minio_tells_is_registered_as_a_listing_shows_it(self, store, monkeypatch):
        self.allow(monkeypatch)
        for key in ("in/a.h5", HOSTILE, "elsewhere/b.h5", "in/notes.txt"):
            store.put_bytes(BUCKET, key, b"abc")
        upload_in_parts(store, "in/large.h5")
        store.client.delete_object(Bucket=BUCKET, Key="in/a.h5")
        store.put_bytes(BUCKET, "in/a.h5", b"abcd")
        wanted = {"in/a.h5", HOSTILE, "in/large.h5"}
        until(lambda: self.keys() >= wanted, 60, "all are registered")
        listed = {event.key: event.id for event in store.list_page(BUCKET).events}
        found = receiving.registered(ASSET)
        assert {event.key for event in found} == wanted
        # An object that was replaced at once may have been seen in both of its lives.
        assert {event.id for event in found} >= {listed[key] for key in wanted}
        assert len(found) <= len(wanted) + 1

    def test_what_was_refused_is_delivered_when_the_receiver_is_set_up(self, store, monkeypatch):
        self.allow(monkeypatch, "another-secret")
        store.put_bytes(BUCKET, "in/early.h5", b"abc")
        with pytest.raises(AssertionError, match="never did"):
            until(lambda: "in/early.h5" in self.keys(), 5, "a wrong secret is let in")
        self.allow(monkeypatch)
        store.put_bytes(BUCKET, "in/late.h5", b"abc")
        wanted = {"in/early.h5", "in/late.h5"}
        until(lambda: self.keys() >= wanted, 90, "both are registered")


class TestListening:
    """A watcher follows MinIO's stream."""

    @pytest.fixture
    def minio(self, tmp_path: Path) -> Iterator[MinIO]:
        """A MinIO without any configuration."""
        minio = MinIO(tmp_path / "minio")
        try:
            minio.start()
            yield minio
        finally:
            minio.stop()

    def source(self, **arguments: Any) -> NotifiedSource:
        """A watcher that hears, and lists seldom."""
        told = {"kind": "minio-listen", "reconcile_interval": 600}
        defaults = {"asset_name": "inbox", "conn_id": "minio", "bucket": BUCKET, "prefix": "in/", "poll_interval": 300}
        source = S3Arguments(**defaults | arguments, notifications=told).source()
        assert isinstance(source, NotifiedSource)
        return source

    async def test_objects_are_heard_of_between_listings(self, minio, monkeypatch):
        store = open_store(minio, monkeypatch)
        store.put_bytes(BUCKET, "in/there", b"x")
        async with following(self.source()) as watch:
            await watch.until(lambda: watch.connected)
            for key in ("in/a.h5", HOSTILE, "elsewhere/b.h5"):
                await asyncio.to_thread(store.put_bytes, BUCKET, key, b"abc")
            await asyncio.to_thread(upload_in_parts, store, "in/large.h5")
            wanted = {"in/there": "listed", "in/a.h5": "created", HOSTILE: "created", "in/large.h5": "created"}
            await watch.until(lambda: watch.heard.keys() >= wanted.keys())
            assert (watch.heard, watch.listings) == (wanted, 1)

    async def test_a_quiet_stream_stays_open(self, minio, monkeypatch):
        monkeypatch.setattr("airflow_provider_oscar.hooks.s3.notifications.SILENCE", 5.0)
        store = open_store(minio, monkeypatch)
        async with following(self.source()) as watch:
            await watch.until(lambda: watch.connected)
            await asyncio.sleep(15)
            assert watch.listings == 1
            await asyncio.to_thread(store.put_bytes, BUCKET, "in/late", b"abc")
            await watch.until(lambda: "in/late" in watch.heard)
            assert (watch.heard["in/late"], watch.listings) == ("created", 1)

    async def test_what_came_while_minio_was_away_is_found(self, minio, monkeypatch):
        store = open_store(minio, monkeypatch)
        async with following(self.source(poll_interval=1)) as watch:
            await watch.until(lambda: watch.connected)
            await asyncio.to_thread(minio.stop)
            await watch.until(lambda: not watch.connected)
            await asyncio.to_thread(minio.start)
            await asyncio.to_thread(store.put_bytes, BUCKET, "in/between", b"abc")
            await watch.until(lambda: "in/between" in watch.heard)
            await watch.until(lambda: watch.connected)
            await asyncio.to_thread(store.put_bytes, BUCKET, "in/after", b"abc")
            await watch.until(lambda: "in/after" in watch.heard)

    async def test_wrong_keys_are_told_and_no_crash(self, minio, monkeypatch, caplog):
        open_store(minio, monkeypatch)
        wrong = {**minio.connection(), "password": "wrong-password"}
        monkeypatch.setenv("AIRFLOW_CONN_MINIO", json.dumps(wrong))
        task = asyncio.create_task(self._first_listing())
        try:
            async with asyncio.timeout(30):
                while "listen" not in caplog.text and "refused" not in caplog.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
        finally:
            task.cancel()
        assert minio.secret_key not in caplog.text
        assert "wrong-password" not in caplog.text

    async def _first_listing(self) -> None:
        async with following(self.source(poll_interval=1)):
            pass


class TestOscar:
    """MinIO posts to OSCAR, which starts a job."""

    @pytest.fixture
    def backend(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
        """OSCAR with MinIO, over interLink."""
        with real_oscar(tmp_path_factory.mktemp("mo")) as backend:
            for name, value in backend.environment().items():
                monkeypatch.setenv(name, value)
            yield backend

    @pytest.mark.timeout(600)
    def test_upload_starts_a_job_whose_output_is_uploaded(self, backend):
        hook, store = OscarHook(), OscarS3Hook()
        loud = ServiceDefinition(
            name="loud",
            image=f"docker://{IMAGE}",
            script='#!/bin/sh\ntr a-z A-Z < "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/loud.txt"\n',
            cpu="1",
            memory="256Mi",
            interlink_node_name=NODE,
            annotations=SlurmOptions(time="10", memory_mib=256).to_annotations(),
            inputs=(StoragePath(storage_provider="minio.default", path="voices/in"),),
            outputs=(StoragePath(storage_provider="minio.default", path="voices/out"),),
        )
        hook.run(hook.apply_service(loud))
        store.put_bytes("voices", "in/a b+ü.txt", b"hello")
        jobs = until(lambda: hook.run(hook.list_jobs("loud")), 60, "OSCAR has a job")
        (name,) = jobs
        assert name.startswith("loud-")
        until(
            lambda: hook.run(hook.list_jobs("loud"))[name].phase is JobPhase.SUCCEEDED, backend.patience * 2, "it ends"
        )
        log = hook.run(hook.job_log("loud", name))
        assert store.read_bytes("s3://voices/out/loud.txt", 100) == b"HELLO", log
        assert hook.run(hook.delete_service("loud"))
