# SPDX-License-Identifier: Apache-2.0
"""The embedded S3 server, started for real."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from oscar_testbed.errors import RejectedError
from oscar_testbed.fakes.s3 import LocalS3, find_weed
from oscar_testbed.process import wait_until

needs_weed = pytest.mark.skipif(find_weed() is None, reason="SeaweedFS (weed) is not installed")


def _listening(pid: int) -> set[tuple[str, int]]:
    """(address, port) of every TCP socket a process listens on, from /proc."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def _content(store: LocalS3) -> bytes | None:
    with contextlib.suppress(ClientError):
        found: bytes = store.client().get_object(Bucket="incoming", Key="a/b c")["Body"].read()
        return found
    return None


@needs_weed
def test_seaweedfs_keeps_data_address_and_credentials_over_a_stop_and_a_crash(tmp_path: Path):
    store = LocalS3(tmp_path / "s3")
    try:
        store.start()
        endpoint, access_key = store.endpoint, store.access_key
        store.create_bucket("incoming")
        store.create_bucket("incoming")
        store.client().put_object(Bucket="incoming", Key="a/b c", Body=b"kept")
        assert store._weed is not None
        assert {address for address, _ in _listening(store._weed.pid or 0)} == {"0100007F"}  # 127.0.0.1 alone
        assert stat.S_IMODE((tmp_path / "s3" / "s3.json").stat().st_mode) == 0o600
        store.stop()
        assert not store.healthy()
        store.start()
        store.kill()
        store.start()
        assert (store.endpoint, store.access_key) == (endpoint, access_key)
        # SeaweedFS takes writes before each volume of a crashed server can be read again.
        wait_until(lambda: _content(store) == b"kept", what="the object can be read again", timeout=60)
        assert store.secret_key not in store.log_path.read_text(errors="replace")
    finally:
        store.stop()
    port = urlsplit(store.endpoint).port
    assert not list(Path("/tmp").glob(f"seaweedfs-*{port}*"))


@needs_weed
def test_two_stores_run_at_once_and_refuse_each_others_credentials(tmp_path: Path):
    one, two = LocalS3(tmp_path / "one"), LocalS3(tmp_path / "two")
    try:
        one.start()
        two.start()
        one.create_bucket("only-in-one")
        assert [each["Name"] for each in two.client().list_buckets()["Buckets"]] == []
        mixed = boto3.client(
            "s3",
            endpoint_url=two.endpoint,
            aws_access_key_id=one.access_key,
            aws_secret_access_key=one.secret_key,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 0}),
        )
        with pytest.raises(ClientError, match="InvalidAccessKeyId|AccessDenied|403"):
            mixed.list_buckets()
    finally:
        one.stop()
        two.stop()


def test_moto_announces_itself(tmp_path: Path):
    store = LocalS3(tmp_path / "s3", mode="moto")
    with pytest.warns(RuntimeWarning, match="moto"):
        store.start()
    try:
        store.create_bucket("incoming")
        store.client().put_object(Bucket="incoming", Key="k", Body=b"x")
        assert store.healthy()
        endpoint = store.endpoint
        store.stop()
        assert not store.healthy()
        with pytest.warns(RuntimeWarning, match="moto"):
            store.start()
        assert store.endpoint == endpoint
    finally:
        store.stop()


def test_an_unknown_server_is_refused(tmp_path: Path):
    with pytest.raises(RejectedError, match="minio"):
        LocalS3(tmp_path, mode="minio")  # type: ignore[arg-type]
