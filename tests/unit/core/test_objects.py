# SPDX-License-Identifier: Apache-2.0
"""The identity of an object version, and how it travels."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.fsspec_urls import FsspecUrl
from airflow_provider_oscar.core.objects import PARTITION_KEY_LIMIT, ObjectEvent, Reason, StoreType, split_uri, utf8

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOSTILE = [
    "in/a b.h5", "in/a+b%2F.h5", "../../etc/passwd", "/abs", "a//b", "in/'quote\".h5", "line\nbreak", "ünï/日本", "😀",
    "x" * 1024, "-rf", "#?&=", "a\\b", "tab\t", "bytes\udcff",
]  # fmt: skip


def placed(source, **fields) -> ObjectEvent:
    container = {"s3": "bucket", "dcache": "/data/in", "fsspec": "gs://bucket/in", "oscar": "service"}[source]
    return ObjectEvent(source=source, container=container, **fields)


events = st.builds(
    placed,
    source=st.sampled_from(StoreType),
    conn_id=st.sampled_from(["oscar_s3_default", "other"]),
    key=st.text(alphabet=st.characters(), min_size=1),
    size=st.none() | st.integers(0, 2**60),
    etag=st.text(max_size=40),
    version_id=st.text(max_size=40),
    modified=st.datetimes(timezones=st.just(UTC)),
    reason=st.sampled_from(Reason),
)


def made(**changes) -> ObjectEvent:
    fields = {
        "source": "s3", "conn_id": "c", "container": "bucket", "key": "in/a.h5", "size": 1, "etag": "e",
        "version_id": "", "modified": NOON,
    }  # fmt: skip
    return ObjectEvent(**(fields | changes))


@given(events)
def test_an_event_survives_json(event):
    assert ObjectEvent.from_dict(json.loads(json.dumps(event.to_dict()))) == event


@given(events)
def test_any_key_has_a_uri_an_id_and_a_partition_key_airflow_takes(event):
    assert event.uri.isascii()
    assert len(event.id) == 64
    assert len(event.partition_key) <= PARTITION_KEY_LIMIT
    assert event.partition_key.isascii()
    assert event.partition_key.endswith(event.id[:16])


@given(events)
def test_a_uri_leads_back_to_the_object(event):
    assume(event.source is not StoreType.OSCAR)  # a job is not an object that a store has
    assume(not any("\ud800" <= character <= "\udfff" for character in event.key))
    if event.source is StoreType.FSSPEC:
        url = FsspecUrl.parse(event.uri, encoded=True)
        assert (url.conn_id, url.authority) == (event.conn_id, "bucket")
        assert event.uri == f"gs://{event.conn_id}@bucket/in/{quote(utf8(event.key), safe='/~')}"
        return
    source, authority, path = split_uri(event.uri)
    assert source is event.source
    if source is StoreType.S3:
        assert (authority, path) == (event.container, event.key)
    else:
        assert (authority, path) == (event.conn_id, f"{event.container.rstrip('/')}/{event.key}")


@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_keys_travel_unharmed(key):
    assert split_uri(made(key=key).uri)[2] == key


PNFSID = "0000A1B2C3D4E5F60718293A4B5C6D7E8F90"
NO_TAG = {"etag": ""}


@pytest.mark.parametrize("change", [{"key": "b"}, {"etag": "f"}, {"version_id": "v"}, {"size": 2}])
def test_another_version_has_another_id(change):
    assert made(**change).id != made().id


@pytest.mark.parametrize(
    "change",
    [
        {"reason": "created"}, {"modified": NOON + timedelta(days=1)}, {"etag": 'W/"e"'}, {"etag": "e-gzip"},
    ],
)  # fmt: skip
def test_the_same_version_seen_differently_has_the_same_id(change):
    assert made(**change).id == made().id


def test_a_hexadecimal_tag_is_the_same_in_either_case_and_another_is_not():
    digest = "d41d8cd98f00b204e9800998ecf8427e"
    assert made(etag=digest).id == made(etag=digest.upper()).id == made(etag=f'"{digest}-gzip"').id
    assert made(etag=f"{digest}-2").id != made(etag=digest).id
    assert made(etag="Tag").id != made(etag="tag").id


def test_without_a_tag_the_whole_second_tells_versions_apart():
    assert made(**NO_TAG, modified=NOON + timedelta(milliseconds=999)).id == made(**NO_TAG).id
    assert made(**NO_TAG, modified=NOON + timedelta(seconds=1)).id != made(**NO_TAG).id


@pytest.mark.parametrize("tag", [PNFSID, f"{PNFSID}_542495256", f"{PNFSID}_1", PNFSID.lower(), f'"{PNFSID}_7"'])
def test_dcache_tells_the_same_file_at_its_door_and_its_frontend(tag):
    shown = made(source="dcache", container="/in", etag=PNFSID, size=5)
    assert (
        made(source="dcache", container="/in", etag=tag, size=None, modified=NOON + timedelta(hours=1)).id == shown.id
    )
    other = made(source="dcache", container="/in", etag=f"0{PNFSID[:-1]}_542495256", size=5)
    assert other.id != shown.id


def test_a_version_id_outranks_the_entity_tag():
    assert made(version_id="v", etag="e").id == made(version_id="v", etag="f").id


def test_time_is_kept_in_utc():
    assert made(modified=NOON.astimezone(timezone(timedelta(hours=5)))).modified.tzinfo is UTC


def test_a_time_without_zone_is_refused():
    with pytest.raises(DefinitionError, match="has no time zone"):
        made(modified=NOON.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("source", "container"),
    [("s3", ""), ("s3", "/b"), ("dcache", ""), ("dcache", "data"), ("fsspec", "data"), ("s3", "gs://b")],
)
def test_a_container_of_the_other_kind_is_refused(source, container):
    with pytest.raises(DefinitionError, match="expected a bucket name for S3, an absolute path for dCache, a URL"):
        made(source=source, container=container)


def test_the_root_of_dcache_may_be_watched():
    assert made(source="dcache", container="/", key="a").uri == "dcache://c/a"


@pytest.mark.parametrize(
    "damage",
    [{"modified": "yesterday"}, {"source": "ftp"}, {"size": "big"}, {"reason": "guess"}, {"modified": "2026-01-01"}],
    ids=str,
)
def test_a_damaged_event_is_a_clear_error(damage):
    with pytest.raises(DefinitionError):
        ObjectEvent.from_dict(made().to_dict() | damage)


def test_a_missing_field_is_named():
    with pytest.raises(DefinitionError, match="not an ObjectEvent.*key"):
        ObjectEvent.from_dict({"source": "s3", "conn_id": "c", "container": "b"})


@pytest.mark.parametrize("uri", ["", "bucket/key", "http://host/x", "s3:///key", "dcache:/x", "s3://b/k?version=1"])
def test_what_is_no_object_uri_is_refused(uri):
    with pytest.raises(DefinitionError, match="cannot read the object URI"):
        split_uri(uri)


def test_names_that_are_no_text_have_bytes():
    assert utf8("\udcff") == b"\xff"
    assert utf8("\ud800") == b"\xed\xa0\x80"


def test_a_dcache_uri_without_a_connection_means_the_default_one():
    assert split_uri("dcache:///data/a.h5") == (StoreType.DCACHE, "dcache_default", "/data/a.h5")
    with pytest.raises(DefinitionError):
        split_uri("s3:///a.h5")
