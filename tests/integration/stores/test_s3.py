# SPDX-License-Identifier: Apache-2.0
"""The S3 hook against SeaweedFS."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, PermanentError, TransientError

HOUR = timedelta(hours=1)
ODD_KEYS = [
    "a b.txt",
    "ü/é.h5",
    "new\nline",
    "x+y%20.bin",
    "q?#&.x",
    "k'\"<>&",
    "a" * 250,
    "tab\t\x01ctl",
    "-rf",
    "$(id)",
    "€",
]


@pytest.mark.parametrize("fast", [True, False], ids=["own reader", "boto3"])
def test_odd_keys_are_listed_as_they_were_written(s3, fast):
    hook, bucket = s3
    for key in ODD_KEYS:
        hook.put_bytes(bucket, key, key.encode())
    if not fast:
        hook._boto_only.set()
    page = hook.list_page(bucket)
    assert {event.key for event in page.events} == set(ODD_KEYS)
    assert hook._boto_only.is_set() is not fast
    assert page.server_time is not None
    assert abs(page.server_time - datetime.now(UTC)) < timedelta(minutes=1)
    for event in page.events:
        seen = hook.head(bucket, event.key)
        assert seen is not None
        assert (seen.id, seen.size) == (event.id, len(event.key.encode()))


def test_pages_prefixes_and_starts_join_up(s3):
    hook, bucket = s3
    for number in range(25):
        hook.put_bytes(bucket, f"in/{number:02}", b"x")
    hook.put_bytes(bucket, "in/sub/a", b"x")
    pages = [hook.list_page(bucket, "in/", page_size=10)]
    while pages[-1].next_token:
        pages.append(hook.list_page(bucket, "in/", page_size=10, token=pages[-1].next_token))
    assert [len(page.events) for page in pages] == [10, 10, 6]
    folded = hook.list_page(bucket, "in/", delimiter="/", start_after="in/20")
    assert [event.key for event in folded.events] == [f"in/{number}" for number in range(21, 25)]
    assert folded.common_prefixes == ["in/sub/"]
    assert sum(len(page.events) for page in hook.list_pages(bucket, "in/")) == 26
    hook.put_bytes(bucket, "top", b"x")
    seen = [event.key for page in hook.list_fan_out(bucket) for event in page.events]
    assert len(seen) == len(set(seen)) == 27


def test_a_job_downloads_one_version_without_credentials(s3):
    hook, bucket = s3
    hook.put_bytes(bucket, "in/a b.h5", b"data")
    event = hook.head(bucket, "in/a b.h5")
    stage_in = hook.stage_in(event, lifetime=HOUR)
    answer = httpx.get(stage_in.url, headers=stage_in.headers)
    assert answer.content == b"data"
    assert answer.headers["etag"].strip('"') == stage_in.etag
    hook.put_bytes(bucket, "in/a b.h5", b"other data")
    with pytest.raises(BadInputError, match="overwritten"):
        hook.stage_in(event, lifetime=HOUR)
    hook.delete(bucket, "in/a b.h5")
    with pytest.raises(BadInputError, match="is gone"):
        hook.stage_in(event, lifetime=HOUR)


def test_a_job_uploads_below_its_prefix_and_nowhere_else(s3):
    hook, bucket = s3
    stage_out = hook.stage_out(f"s3://{bucket}/out/", submission_id="job-1", lifetime=HOUR, max_bytes=1000)

    def post(key, data):
        return httpx.post(stage_out.url, data={**stage_out.fields, "key": key}, files={"file": ("x", data)}).status_code

    assert post(f"{stage_out.prefix}r/1.txt", b"hi") == 204
    assert post("out/other", b"no") == 403
    assert post(f"{stage_out.prefix}big", b"x" * 2000) >= 400
    assert hook.read_bytes(stage_out.uri + "r/1.txt", 10) == b"hi"
    assert not hook.exists(bucket, "out/other")
    assert not hook.exists(bucket, f"{stage_out.prefix}big")


def test_reading_is_bounded_and_absence_is_none(s3):
    hook, bucket = s3
    hook.put_bytes(bucket, "big", b"x" * 100)
    assert hook.read_bytes(f"s3://{bucket}/big", 100) == b"x" * 100
    assert hook.read_bytes(f"s3://{bucket}/none", 100) is None
    with pytest.raises(PermanentError, match="larger than 99 bytes"):
        hook.read_bytes(f"s3://{bucket}/big", 99)


def test_a_missing_bucket_is_not_a_missing_object(s3):
    hook, bucket = s3
    assert hook.head(bucket, "none") is None
    with pytest.raises(DefinitionError, match="bucket 'nobucket' does not exist"):
        hook.head("nobucket", "none")
    with pytest.raises(DefinitionError, match="bucket 'nobucket' does not exist"):
        hook.list_page("nobucket")


def test_wrong_credentials_and_missing_rights_are_told_apart(make_s3, s3):
    _, bucket = s3
    with pytest.raises(DefinitionError, match="secret key is wrong"):
        make_s3(password="wrong").list_page(bucket)
    with pytest.raises(DefinitionError, match="secret key is wrong"):
        make_s3(login="nobody").list_page(bucket)
    with pytest.raises(DefinitionError, match=f"may not do this in bucket '{bucket}'"):
        make_s3(login="reader", password="reader-secret").list_page(bucket)


def test_the_test_button_says_what_is_wrong(make_s3):
    assert make_s3().test_connection()[0]
    ok, text = make_s3(password="wrong").test_connection()
    assert (ok, "secret key is wrong" in text) == (False, True)
    ok, text = make_s3(extra={"endpoint_url": "http://127.0.0.1:9"}).test_connection()
    assert (ok, "not reachable" in text) == (False, True)


def test_an_unreachable_store_is_for_later(make_s3):
    with pytest.raises(TransientError, match="not reachable"):
        make_s3(extra={"endpoint_url": "http://127.0.0.1:9"}).list_page("bucket")
