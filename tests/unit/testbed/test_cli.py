# SPDX-License-Identifier: Apache-2.0
"""The test bed's command line: what it refuses, and what it drops into a platform's stores."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest
from oscar_testbed.cli import main
from oscar_testbed.fakes.dcache import LocalDCache
from oscar_testbed.fakes.s3 import LocalS3

pytestmark = pytest.mark.filterwarnings("ignore:the embedded S3 is moto")


@pytest.fixture
def platform(tmp_path):
    """S3 and dCache with the file that tells where they are, as `up` writes it."""
    dcache = LocalDCache(tmp_path / "dcache")
    with LocalS3(tmp_path / "s3", mode="moto") as s3, ExitStack() as stack:
        dcache.start()
        stack.callback(dcache.stop)
        connections = {
            "oscar_s3_default": {"host": s3.endpoint, "login": s3.access_key, "password": s3.secret_key},
            "dcache_default": {"host": dcache.webdav_url, "login": dcache.user, "password": dcache.password},
        }
        (tmp_path / "connections.json").write_text(json.dumps(connections))
        yield s3, dcache


@pytest.fixture
def put(tmp_path, capsys):
    """Run ``put`` with a file; returns exit code, output and error."""
    file = tmp_path / "a b.txt"
    file.write_bytes(b"to be")

    def run(uri, path=file):
        code = main(["put", "--directory", str(tmp_path), str(path), uri])
        return code, *capsys.readouterr()

    return run


def test_a_file_is_put_into_s3_and_its_bucket_is_made(platform, put):
    s3, _ = platform
    for _ in range(2):
        assert put("s3://incoming/")[:2] == (0, "s3://incoming/a%20b.txt\n")
    assert put("s3://incoming/x/y.txt")[:2] == (0, "s3://incoming/x/y.txt\n")
    assert s3.client().get_object(Bucket="incoming", Key="a b.txt")["Body"].read() == b"to be"
    assert s3.client().get_object(Bucket="incoming", Key="x/y.txt")["Body"].read() == b"to be"


def test_a_file_is_put_into_dcache_below_directories_that_are_made(platform, put):
    _, dcache = platform
    assert put("dcache:///data/new/")[:2] == (0, "dcache://dcache_default/data/new/a%20b.txt\n")
    assert dcache.namespace.stat("/data/new/a b.txt").size == 5


def test_what_cannot_be_put_is_said_in_one_line(platform, put, tmp_path):
    for uri in ("incoming/a.txt", "s3:///a.txt", "file:///tmp/a"):
        code, _, error = put(uri)
        assert (code, error.count("\n")) == (1, 1)
        assert "expected s3://bucket/key or dcache:///path" in error
    assert "No such file" in put("s3://incoming/", tmp_path / "missing")[2]
    assert "the S3 store did not take" in put("s3://no bucket/a")[2]


def test_without_a_platform_put_says_how_to_start_one(put):
    code, _, error = put("s3://incoming/")
    assert code == 1
    assert "oscar-testbed up" in error


def test_dags_need_an_airflow(tmp_path, capsys):
    assert main(["up", "--directory", str(tmp_path), "--dags", str(tmp_path)]) == 1
    assert "add --airflow" in capsys.readouterr().err
