# SPDX-License-Identifier: Apache-2.0
"""Notifications of eight sources, each with its own decoding of keys (shapes as documented or recorded)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import unquote, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core import notification_formats as formats
from airflow_provider_oscar.core import notification_pointers as pointers_of
from airflow_provider_oscar.core import notifications as n
from airflow_provider_oscar.core import oscar_events
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.notifications import NotificationFormat
from airflow_provider_oscar.core.objects import ObjectEvent, Reason, StoreType
from airflow_provider_oscar.watch.notifications.listener import new_keys
from tests.support.notification_shapes import OTHERS

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
READERS = {
    "aws": n.from_aws_s3,
    "minio-webhook": n.from_minio_webhook,
    "minio-listen": n.from_minio_listen,
    "ceph": n.from_ceph,
    "eventbridge": n.from_eventbridge,
    "seaweedfs": n.from_seaweedfs,
    "dcache-sse": lambda payload: n.from_dcache_sse(payload, directory="/data/in"),
    "dcache-kafka": lambda payload: n.from_dcache_kafka(payload, directory="/data/in"),
    "detect": lambda payload: formats.detect(payload, directory="/data/in"),
}
every_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["Records", "s3", "bucket", "object", "name", "key", "size", "eventName", "eventSource", "Message", "event",
             "mask", "detail", "detail-type", "event_type", "message", "new_entry", "attributes", "extended", "mtime",
             "subscription", "msgType", "transferPath", "status", "date", "Key", "new_parent_path"]
        ),
        inner,
        max_size=6,
    ),
    max_leaves=20,
)  # fmt: skip


WORDS = [
    "Records", "records", "messages", "message", "Message", "data", "body", "value", "detail", "details", "events",
    "content", "attributes", "s3", "cos", "oss", "obs", "bucket", "Bucket", "bucketName", "bucket_id", "container",
    "object", "objects", "keys", "Key", "key", "name", "objectName", "object_id", "uri", "uris", "subject", "source",
    "specversion", "type", "eventName", "EventName", "cosBucket", "cosObject", "appid", "event", "filename", "path",
    "absolute.path", "s3.bucket", "s3.key", "gcs.bucket", "requestParameters", "resourceName", "additionalDetails",
    "bucketId", "objectId", "eventType", "transferPath", "msgType", "detail-type", "x",
]  # fmt: skip
SAID = [
    "a/b c", "a%20b+c", "/12/b/k", "b", "s3://b/k%20y", "dcache:///d/f", "12", "Object Created",
    "cos:ObjectCreated:Put",
    "/blobServices/default/containers/b/blobs/a%2Fb", "ObjectRemoved:Delete", "./", "/data/in/f", "transfer",
]  # fmt: skip
nested = st.recursive(
    st.sampled_from(SAID) | st.none() | st.integers(-1, 9) | st.text(max_size=4) | st.sampled_from([*OTHERS.values()]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS), inner, max_size=7)
        | inner.map(json.dumps)
        | inner.map(lambda value: base64.b64encode(json.dumps(value).encode()).decode())
    ),
    max_leaves=25,
)

messages = st.dictionaries(st.sampled_from(WORDS), nested, min_size=1, max_size=5) | st.lists(nested, max_size=4)


def texts_of(value: object) -> Iterator[str]:
    """All texts of a document, also those of documents that are texts in it."""
    if isinstance(value, str):
        yield value
        inner = n.decode_json(value)
        if isinstance(inner, (dict, list)) or (isinstance(inner, str) and inner != value):
            yield from texts_of(inner)
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts_of(each)


def records(source: str, key: str, name: str = "ObjectCreated:Put", **item) -> dict:
    record = {
        "eventSource": source,
        "eventName": name,
        "eventTime": "2026-01-01T12:00:00.000Z",
        "s3": {"bucket": {"name": "bucket"}, "object": {"key": key, **item}},
    }
    return {"Records": [record]}


def only(found: list) -> n.Notification:
    assert len(found) == 1
    return found[0]


def written(key: str, **changes) -> ObjectEvent:
    fields = {
        "source": StoreType.S3, "conn_id": "c", "container": "bucket", "key": key, "size": 7, "etag": "e",
        "version_id": "", "modified": NOON,
    }  # fmt: skip
    return ObjectEvent(**(fields | changes))


class TestKeys:
    def test_aws_keys_are_decoded(self):
        assert only(n.from_aws_s3(records("aws:s3", "in/sp+ace%2B%C3%BC.bin"))).key == "in/sp ace+ü.bin"

    def test_moto_also_encodes_the_slash(self):
        assert only(n.from_aws_s3(records("aws:s3", "in%2Fa+b"))).key == "in/a b"

    def test_minio_webhook_keys_are_decoded(self):
        assert only(n.from_minio_webhook(records("minio:s3", "in%2Fa+b"))).key == "in/a b"

    def test_minio_listen_keys_are_raw(self):
        assert only(n.from_minio_listen(records("minio:s3", "in/a+b%2F"))).key == "in/a+b%2F"

    def test_ceph_keys_are_raw(self):
        assert only(n.from_ceph(records("ceph:s3", "in/sp ace+ü%.bin"))).key == "in/sp ace+ü%.bin"

    def test_bytes_that_are_no_text_are_kept(self):
        assert only(n.from_aws_s3(records("aws:s3", "a%FF"))).key == "a\udcff"

    @pytest.mark.parametrize("read", [n.from_aws_s3, n.from_minio_webhook, n.from_ceph])
    def test_a_record_of_another_store_is_not_decoded_wrongly(self, read):
        assert read(records("other:s3", "a+b")) == []


class TestS3Records:
    def test_everything_told_is_kept(self):
        body = records("aws:s3", "a", size=5, eTag='W/"abc"', versionId="v1", sequencer="0A")
        assert only(n.from_aws_s3(json.dumps(body).encode())) == n.Notification(
            source_format=NotificationFormat.AWS_S3, container="bucket", key="a", size=5, etag="abc", version_id="v1",
            event_time=NOON, sequencer="0A", reason=Reason.CREATED,
        )  # fmt: skip

    def test_what_is_not_told_stays_empty(self):
        body = {"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": "a"}}}]}
        found = only(n.from_aws_s3(body))
        assert (found.size, found.etag, found.event_time, found.reason) == (None, "", None, Reason.CREATED)

    def test_an_sns_delivery_is_unwrapped(self):
        body = {"Type": "Notification", "Message": json.dumps(records("aws:s3", "a+b"))}
        assert only(n.from_aws_s3(body)).key == "a b"
        assert only(formats.detect(json.dumps(body))).key == "a b"

    def test_an_sns_delivery_of_something_else_gives_nothing(self):
        assert n.from_aws_s3({"Message": "hello"}) == []

    @pytest.mark.parametrize(
        "name", ["ObjectRemoved:Delete", "s3:ObjectRemoved:DeleteMarkerCreated", "LifecycleExpiration:Delete"]
    )
    def test_deletions_give_nothing(self, name):
        assert n.from_aws_s3(records("aws:s3", "a", name=name)) == []

    def test_the_test_event_gives_nothing(self):
        assert formats.detect({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}) == []
        assert n.from_aws_s3({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}) == []

    def test_other_words_are_told_without_a_reason(self):
        found = only(n.from_minio_webhook(records("minio:s3", "a", name="s3:ObjectAccessed:Get")))
        assert found.reason is None

    @pytest.mark.parametrize("size", [-1, "5", True, 1.5, None])
    def test_a_size_that_is_no_number_is_not_believed(self, size):
        assert only(n.from_aws_s3(records("aws:s3", "a", size=size))).size is None

    def test_one_broken_record_does_not_stop_the_others(self):
        body = records("aws:s3", "a")
        body["Records"] = [None, {"s3": 5}, *body["Records"]]
        assert only(n.from_aws_s3(body)).key == "a"

    def test_sequencers_of_different_length_compare_as_numbers(self):
        made = [
            n.Notification(source_format=NotificationFormat.CEPH, container="b", key="a", sequencer=text)
            for text in ("FF", "100")
        ]
        assert made[0].order < made[1].order

    def test_a_blank_line_of_the_listen_stream_is_a_sign_of_life(self):
        assert n.from_minio_listen(" \n") == n.from_minio_listen(b"") == n.from_minio_listen({"Records": None}) == []


class TestEventBridge:
    body = {
        "detail-type": "Object Created",
        "time": "2026-01-01T12:00:00Z",
        "detail": {"bucket": {"name": "b"}, "object": {"key": "a+b%2F", "size": 3, "etag": "e", "version-id": "v"}},
    }

    def test_keys_are_raw(self):
        found = only(n.from_eventbridge(self.body))
        assert (found.key, found.size, found.etag, found.version_id) == ("a+b%2F", 3, "e", "v")
        assert (found.event_time, found.reason) == (NOON, Reason.CREATED)

    def test_deletions_give_nothing_and_tags_no_reason(self):
        assert n.from_eventbridge(self.body | {"detail-type": "Object Deleted"}) == []
        assert only(n.from_eventbridge(self.body | {"detail-type": "Object Tags Added"})).reason is None


class TestSeaweedFS:
    @staticmethod
    def body(key="/buckets/b/in/a+b", event_type="create", **entry) -> dict:
        etag = base64.b64encode(b'"abc"').decode()
        new = {
            "name": "a", "attributes": {"file_size": 4, "mtime": 1767268800},
            "extended": {"Seaweed-X-Amz-ETag": etag}, **entry,
        }  # fmt: skip
        return {"event_type": event_type, "key": key, "message": {"new_entry": new, "new_parent_path": "/buckets/b/to"}}

    def test_a_created_file(self):
        found = only(n.from_seaweedfs(self.body()))
        assert (found.container, found.key, found.size, found.etag) == ("b", "in/a+b", 4, "abc")
        assert (found.event_time, found.reason) == (NOON, Reason.CREATED)

    def test_a_renamed_file_is_known_by_its_new_name(self):
        found = only(n.from_seaweedfs(self.body(event_type="rename")))
        assert (found.key, found.reason) == ("to/a", Reason.MOVED)

    @pytest.mark.parametrize(
        "key", ["/buckets/b", "/buckets/.system/x", "/buckets/b/.uploads/1/x", "/buckets/b/a.versions/v1", "/etc/x"]
    )
    def test_bookkeeping_gives_nothing(self, key):
        assert n.from_seaweedfs(self.body(key=key)) == []

    def test_directories_and_deletions_give_nothing(self):
        assert n.from_seaweedfs(self.body(is_directory=True)) == []
        assert n.from_seaweedfs({"event_type": "delete", "key": "/buckets/b/a", "message": {"old_entry": {}}}) == []

    def test_an_unreadable_entity_tag_is_left_out(self):
        assert only(n.from_seaweedfs(self.body(extended={"Seaweed-X-Amz-ETag": "*"}))).etag == ""


class TestDCache:
    @staticmethod
    def sse(name="a.h5", *mask) -> list:
        body = {"event": {"name": name, "mask": list(mask)}, "subscription": "https://door/x"}
        return n.from_dcache_sse(body, directory="/data/in")

    @pytest.mark.parametrize(
        ("mask", "reason"),
        [(["IN_CLOSE_WRITE"], Reason.CREATED), (["IN_MOVED_TO"], Reason.MOVED), (["IN_CREATE"], None),
         (["IN_NEW"], None), (["IN_ISDIR", "IN_MOVED_TO"], None)],
        ids=str,
    )  # fmt: skip
    def test_only_closed_and_moved_files_may_be_complete(self, mask, reason):
        found = only(self.sse("a.h5", *mask))
        assert (found.container, found.key, found.reason) == ("/data/in", "a.h5", reason)

    @pytest.mark.parametrize("mask", ["IN_DELETE", "IN_MOVED_FROM"])
    def test_what_went_gives_nothing(self, mask):
        assert self.sse("a", mask) == []

    @pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b"])
    def test_a_name_that_leads_elsewhere_gives_nothing(self, name):
        assert self.sse(name, "IN_CLOSE_WRITE") == []

    def test_overflow_and_self_events_give_nothing(self):
        body = {"event": {"mask": ["IN_Q_OVERFLOW"]}, "subscription": "x"}
        assert n.from_dcache_sse(body, directory="/d") == []
        assert only(n.from_dcache_sse({"event": {"name": "a", "mask": "IN_CREATE"}}, directory="/d")).reason is None

    @staticmethod
    def kafka(**changes) -> list:
        body = {
            "msgType": "transfer", "isWrite": "write", "isP2p": False, "transferPath": "/data/in/x/a+b", "fileSize": 9,
            "date": "2026-01-01T13:00:00+01:00", "status": {"code": 0, "msg": ""},
        }  # fmt: skip
        return n.from_dcache_kafka(body | changes, directory="/data/in")

    def test_a_finished_transfer(self):
        found = only(self.kafka())
        assert (found.key, found.size, found.event_time, found.reason) == ("x/a+b", 9, NOON, Reason.CREATED)

    @pytest.mark.parametrize(
        "change", [{"isWrite": "read"}, {"isP2p": True}, {"status": {"code": 666}}, {"msgType": "request"}], ids=str
    )
    def test_other_transfers_have_no_reason(self, change):
        assert only(self.kafka(**change)).reason is None

    def test_paths_of_a_connection_begin_where_it_does(self):
        """The message names a path from dCache's root, the connection one below its own base."""
        body = {"msgType": "transfer", "isWrite": "write", "isP2p": False, "status": {"code": 0}}
        body["transferPath"] = "/site/dö/data/in/x/a"
        for found in (
            n.from_dcache_kafka(body, directory="/data/in", base="/site/dö"),
            formats.detect(body, directory="/data/in/", base="/site/dö"),
        ):
            assert (only(found).key, only(found).container.rstrip("/")) == ("x/a", "/data/in")
        assert n.from_dcache_kafka(body, directory="/data/in") == []
        assert n.from_dcache_kafka(body, directory="/data/in", base="/site") == []

    @pytest.mark.parametrize(
        "change", [{"msgType": "remove"}, {"transferPath": "/data/inside/a"}, {"transferPath": "/data/in/"}], ids=str
    )
    def test_removals_and_strangers_files_give_nothing(self, change):
        assert self.kafka(**change) == []


RECORD = records("aws:s3", "in/a+b")["Records"][0]
UNKNOWN = [
    {}, [], None, 5, {"a": 1}, [[{}]], {"message": {"data": "x"}}, {"Records": [5]}, {"Records": {"s3": {}}},
    {"Records": [{"eventSource": "qcs::cos", "cos": {"cosBucket": {"name": "b"}}}]},
    {"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": ""}}}]},
    {"detail-type": "AWS API Call via CloudTrail", "detail": {"eventName": "PutObject"}},
    {"Type": "Notification", "Message": "hello"}, {"bucket": "b"}, {"bucket": "b", "key": 7}, {"uri": "s3://b"},
    {"uri": 5}, {"specversion": "1.0", "type": "x", "source": "y", "data_base64": "AAAA"},
]  # fmt: skip


class TestDetect:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (records("aws:s3", "a"), "aws-s3"),
            (records("ceph:s3", "a"), "ceph"),
            (records("minio:s3", "a"), "minio-listen"),
            (records("minio:s3", "a") | {"EventName": "s3:ObjectCreated:Put"}, "minio-webhook"),
            (TestEventBridge.body, "eventbridge"),
            (TestSeaweedFS.body(), "seaweedfs"),
            ({"event": {"name": "a", "mask": ["IN_CREATE"]}, "subscription": "x"}, "dcache-sse"),
            ({"msgType": "transfer", "transferPath": "/data/in/a"}, "dcache-kafka"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_each_format_is_recognised(self, body, expected):
        assert only(formats.detect(json.dumps(body), directory="/data/in")).source_format == expected

    def test_dcache_formats_need_the_directory(self):
        assert formats.detect({"event": {"name": "a"}, "subscription": "x"}) == []
        assert formats.detect({"msgType": "transfer", "transferPath": "/a"}) == []

    @pytest.mark.parametrize(
        "body",
        [
            {"Records": []},
            {"Records": None},
            {"Event": "s3:TestEvent"},
            {"events": [{"eventType": "b2:TestEvent", "bucketName": "b"}]},
        ],
        ids=str,
    )
    def test_a_known_form_that_says_nothing_gives_nothing(self, body):
        assert formats.detect(json.dumps(body)) == []

    @pytest.mark.parametrize("body", UNKNOWN, ids=str)
    def test_an_unknown_form_is_said(self, body):
        with pytest.raises(formats.UnknownFormatError, match="has no form that is known"):
            formats.detect(json.dumps(body))

    @pytest.mark.parametrize("source", ["sgws:s3", "rustfs:s3", "scality:s3", "", "anything"])
    def test_records_of_any_store_are_read_by_their_shape(self, source):
        found = only(formats.detect(records(source, "in/a%20b+c.h5")))
        assert (found.container, found.key, found.other_key) == ("bucket", "in/a b c.h5", "in/a%20b+c.h5")
        assert found.reason is Reason.CREATED

    def test_records_of_several_stores_in_one_delivery_are_all_read(self):
        both = {"Records": records("aws:s3", "a")["Records"] + records("sgws:s3", "b")["Records"]}
        assert [each.key for each in formats.detect(both)] == ["a", "b"]

    GOOGLE = {"kind": "storage#object", "bucket": "b", "name": "in/a b", "size": "7", "updated": "2026-01-01T12:00:00Z"}
    SHAPES = {
        "bucket and key": {"bucket": "b", "key": "in/a b"},
        "uri": {"uri": "s3://b/in/a%20b"},
        "r2": {"account": "x", "action": "PutObject", "bucket": "b", "object": {"key": "in/a b", "size": 7}},
        "pub/sub": {
            "message": {"attributes": {"bucketId": "b", "objectId": "in/a b", "eventType": "OBJECT_FINALIZE"}},
            "subscription": "projects/p",
        },
        "pub/sub, pulled": {"attributes": {"bucketId": "b", "objectId": "in/a b", "eventType": "OBJECT_FINALIZE"},
                            "data": "e30="},
        "backblaze b2": {"events": [{"bucketName": "b", "eventType": "b2:ObjectCreated:Upload", "objectName": "in/a b",
                                     "objectSize": 3, "objectVersionId": "4_z"}]},
        "uris": {"uris": ["s3://b/in/a%20b"]},
        "a list of uris": ["s3://b/in/a%20b"],
        "pub/sub, data alone": {
            "message": {"data": base64.b64encode(json.dumps(GOOGLE).encode()).decode()}, "subscription": "s",
        },
        "cloud event around google": {"specversion": "1.0", "type": "google.cloud.storage.object.v1.finalized",
                                      "source": "//storage.googleapis.com/projects/_/buckets/b", "data": GOOGLE},
        "cloud event by its subject": {"specversion": "1.0", "type": "com.example.object.created",
                                       "source": "/stores/b", "subject": "in/a b"},
        "cloud event, base64": {"specversion": "1.0", "type": "x.created", "source": "y",
                                "data_base64": base64.b64encode(b'{"bucket": "b", "key": "in/a b"}').decode()},
        "a list": [{"bucket": "b", "key": "in/a b"}],
        "boto3's words": {"Bucket": "b", "Key": "in/a b"},
        "swift": {"container": "b", "object": "in/a b", "method": "PUT"},
        "oracle": {"cloudEventsVersion": "0.1", "eventType": "com.oraclecloud.objectstorage.createobject",
                   "source": "ObjectStorage", "data": {"resourceName": "in/a b", "resourceId": "/n/x/b/b/o/in/a b",
                                                       "additionalDetails": {"bucketName": "b", "eTag": "e"}}},
        "azure": [{"topic": "/x", "subject": "/blobServices/default/containers/b/blobs/in/a%20b",
                   "eventType": "Microsoft.Storage.BlobCreated", "data": {"contentLength": 5, "eTag": "0x8"}}],
        "azure as a cloud event": {"specversion": "1.0", "type": "Microsoft.Storage.BlobCreated", "source": "/x",
                                   "subject": "blobServices/default/containers/b/blobs/in/a%20b", "data": {"url": "h"}},
        "cloud event of an arn": {"specversion": "1.0", "type": "com.amazon.s3.objectcreated",
                                  "source": "arn:aws:s3:::b", "subject": "in/a b"},
    }  # fmt: skip

    @pytest.mark.parametrize("body", [*SHAPES.values(), *OTHERS.values()], ids=[*SHAPES, *OTHERS])
    def test_other_shapes_are_read(self, body):
        found = only(formats.detect(json.dumps(body)))
        assert (found.container, found.key, found.reason) == ("b", "in/a b", Reason.CREATED)

    @pytest.mark.parametrize(
        "body",
        [
            {"account": "x", "action": "DeleteObject", "bucket": "b", "object": {"key": "k"}},
            {"specversion": "1.0", "type": "google.cloud.storage.object.v1.deleted", "source": "s", "data": GOOGLE},
            {"message": {"attributes": {"bucketId": "b", "objectId": "k", "eventType": "OBJECT_DELETE"}},
             "subscription": "s"},
            {"message": {"attributes": {"bucketId": "b", "objectId": "k", "eventType": "OBJECT_DELETE"}}},
            {"events": [{"bucketName": "b", "eventType": "b2:ObjectDeleted:Delete", "objectName": "k"}]},
            {"account": "x", "action": "LifecycleDeletion", "bucket": "b", "object": {"key": "k"}},
            {"specversion": "1.0", "type": "google.cloud.storage.object.v1.metadataUpdated", "source": "s",
             "data": GOOGLE},
            {"container": "b", "object": "k", "method": "DELETE"},
            {"subject": "/blobServices/default/containers/b/blobs/k", "eventType": "Microsoft.Storage.BlobDeleted"},
            {"bucket": "b", "key": "k", "event": "s3:ObjectAcl:Put"},
            {"bucket": "b", "key": "k", "event": "GetObject"},
            {"bucket": "b", "key": "k", "operation": "Object:Delete"},
            {"bucket": "b", "keys": ["k"], "event": "deleted"},
            {"EventName": "s3:ObjectRemoved:Delete", "Key": "b/k"},
            {"detail": {"eventName": "PutObjectAcl", "requestParameters": {"bucketName": "b", "key": "k"}}},
            {"Records": [{"cos": {"cosBucket": {"name": "b"}, "cosObject": {"key": "/k"}},
                          "event": {"eventName": "cos:ObjectRestore:Post"}}]},
        ],
    )  # fmt: skip
    def test_what_is_not_new_has_no_reason(self, body):
        assert [each.reason for each in formats.detect(body)] == [None]

    def test_buckets_of_tencent_carry_their_account(self):
        cos = {"cosBucket": {"name": "b", "appid": "12"}, "cosObject": {"key": "/12/b/in/a", "size": 7}}
        found = only(formats.detect({"Records": [{"cos": cos, "event": {"eventName": "cos:ObjectCreated:Put"}}]}))
        assert (found.container, found.key, found.size) == ("b-12", "in/a", 7)
        gone = {"Records": [{"cos": cos, "event": {"eventName": "cos:ObjectRemove:Delete"}}]}
        assert formats.detect(gone) == []

    def test_a_list_of_keys_names_each(self):
        unread: list[str] = []
        found = formats.detect({"bucket": "b", "keys": ["x", {"name": "y", "size": 3}, "", 5]}, unread=unread)
        assert [(each.key, each.size) for each in found] == [("x", None), ("y", 3)]
        with pytest.raises(DefinitionError, match="1001"):
            formats.detect({"bucket": "b", "keys": ["x"] * 1001})

    def test_a_flow_file_of_a_directory_names_directory_and_file(self):
        found = only(formats.detect({"absolute.path": "/data/in/", "path": "./", "filename": "a", "file.size": "7"}))
        assert (found.container, found.key) == ("/data/in", "a")
        found = only(formats.detect({"path": "/data/in", "filename": "a"}))
        assert (found.container, found.key) == ("/data/in", "a")

    def test_a_flow_file_that_was_fetched_may_have_its_key_in_two_parts(self):
        found = only(formats.detect({"s3.bucket": "b", "path": "in/x", "filename": "a"}))
        assert (found.key, found.other_key) == ("a", "in/x/a")

    def test_all_of_several_envelopes_of_other_names_are_read(self):
        body = {"first": {"bucket": "b", "key": "x"}, "n": 1, "second": [{"uri": "s3://c/y"}]}
        assert [(each.container, each.key) for each in formats.detect(body)] == [("b", "x"), ("c", "y")]

    def test_what_is_wrapped_without_end_costs_no_other(self):
        deep: object = {"bucket": "b", "key": "k"}
        for _ in range(50):
            deep = {"data": deep}
        assert only(formats.detect([deep, RECORD])).key == "in/a b"
        with pytest.raises(formats.UnknownFormatError):
            formats.detect(deep)

    @given(body=messages)
    def test_no_object_is_read_that_the_message_does_not_name(self, body):
        texts = set(texts_of(body))
        with suppress(DefinitionError):
            for each in formats.detect(json.dumps(body), directory="/data/in"):
                assert each.container == "/data/in" or any(each.container in text for text in texts), each
                for key in filter(None, (each.key, each.other_key)):
                    name = key.rpartition("/")[2] or key
                    assert any(name in text or name in unquote_plus(text) or name in unquote(text) for text in texts)

    ENVELOPES = {
        "itself": RECORD,
        "a list": [RECORD],
        "sns": {"Type": "Notification", "Message": json.dumps(RECORD)},
        "sqs": {"Messages": [{"MessageId": "1", "Body": json.dumps({"Records": [RECORD]})}]},
        "a function fed by sqs": {"Records": [{"eventSource": "aws:sqs", "body": json.dumps({"Records": [RECORD]})}]},
        "a function fed by sns": {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": json.dumps(RECORD)}}]},
        "kinesis": {"Records": [{"kinesis": {"data": base64.b64encode(json.dumps(RECORD).encode()).decode()}}]},
        "firehose": {"requestId": "1", "records": [
            {"data": base64.urlsafe_b64encode(json.dumps(RECORD).encode()).decode()},
        ]},
        "kafka connect": {"schema": {"type": "string"}, "payload": json.dumps({"Records": [RECORD]})},
        "kafka rest": {"records": [{"key": "x", "value": {"Records": [RECORD]}}]},
        "pub/sub": {"message": {"data": base64.b64encode(json.dumps(RECORD).encode()).decode()}, "subscription": "s"},
        "cloud event": {"specversion": "1.0", "type": "x", "source": "y", "data": RECORD},
        "minio's access format": [{"Event": [RECORD], "EventTime": "x"}],
    }  # fmt: skip

    @pytest.mark.parametrize("body", ENVELOPES.values(), ids=ENVELOPES)
    def test_what_queues_and_streams_wrap_around_it_does_not_hide_a_record(self, body):
        unread: list[str] = []
        assert only(formats.detect(json.dumps(body), unread=unread)).key == "in/a b"
        assert unread == []

    @pytest.mark.parametrize("part", ["oss", "obs", "s3"])
    def test_a_store_that_calls_the_body_of_a_record_otherwise_is_read(self, part):
        record = {**{k: v for k, v in RECORD.items() if k != "s3"}, "eventSource": "acs:oss", part: RECORD["s3"]}
        assert only(formats.detect({"events": [record]})).key == "in/a b"

    @pytest.mark.parametrize("odd", [5, None, "text", {"a": 1}, {"uri": "ftp://x/y"}, {"s3": {}}], ids=str)
    def test_one_part_that_cannot_be_read_costs_no_other_and_is_said(self, odd):
        for body in ([RECORD, odd], {"Records": [odd, RECORD]}):
            unread: list[str] = []
            assert only(formats.detect(json.dumps(body), unread=unread)).key == "in/a b"
            assert len(unread) >= 1

    def test_a_record_is_read_by_its_own_source_and_not_that_of_the_first(self):
        both = records("minio:s3", "a+b")["Records"] + records("aws:s3", "a+b")["Records"]
        assert [each.key for each in formats.detect({"Records": both})] == ["a+b", "a b"]

    @pytest.mark.parametrize(
        ("event", "reason", "said"),
        [
            ("", Reason.CREATED, False),
            ("s3:ObjectSynced:Create", Reason.CREATED, False),
            ("s3:ObjectRestore:Completed", Reason.CREATED, False),
            ("PutObject", Reason.CREATED, False),
            ("s3:ObjectTagging:Put", None, False),
            ("s3:Replication:OperationCompletedReplication", None, False),
            ("s3:ObjectRestore:Post", None, False),
            ("s3:Fandango", None, True),
        ],
    )
    def test_an_event_of_a_name_that_nobody_knows_is_said(self, event, reason, said):
        unread: list[str] = []
        body = records("aws:s3", "a", name=event)
        assert only(formats.detect(body, unread=unread)).reason is reason
        assert bool(unread) is said

    @given(inner=anything)
    def test_nothing_beside_a_record_makes_it_unseen(self, inner):
        found = formats.detect({"Records": [inner, RECORD, inner]})
        assert "in/a b" in [each.key for each in found]

    def test_a_confirmation_of_sns_is_no_unknown_form(self):
        body = {"Type": "SubscriptionConfirmation", "Token": "t", "Message": "You have chosen to subscribe"}
        assert formats.detect(json.dumps(body)) == []

    def test_one_item_without_an_object_costs_no_other(self):
        unread: list[str] = []
        body = {"files": [{"k": "a"}, {}, {"k": "b"}]}
        found = pointers_of.from_pointers(body, {"each": "/files", "bucket": "=b", "key": "/k"}, unread=unread)
        assert [each.key for each in found] == ["a", "b"]
        assert len(unread) == 1

    def test_any_json_can_be_mapped_by_pointers(self):
        body = {"store": {"name": "b"}, "files": [{"p/q": "k1"}, {"p/q": "k2"}]}
        found = pointers_of.from_pointers(json.dumps(body), {"each": "/files", "bucket": "=b", "key": "/p~1q"})
        assert [(each.container, each.key) for each in found] == [("b", "k1"), ("b", "k2")]
        assert only(pointers_of.from_pointers({"a": ["s3://b/k"]}, {"uri": "/a/0"})).key == "k"
        with pytest.raises(formats.UnknownFormatError, match="find no object"):
            pointers_of.from_pointers(body, {"uri": "/files/9"})

    @pytest.mark.parametrize(
        ("told", "size", "etag", "version", "time"),
        [
            ({"n": 5, "tag": 'W/"ab"', "v": "v1", "t": "2026-01-01T12:00:00Z"}, 5, "ab", "v1", NOON),
            ({"n": "5", "tag": "ab", "v": 7, "t": NOON.timestamp()}, 5, "ab", "7", NOON),
            ({"n": -1, "tag": 5, "v": None, "t": "yesterday"}, None, "", "", None),
            ({"n": True, "tag": None, "v": True, "t": []}, None, "", "", None),
            ({}, None, "", "", None),
        ],
    )
    def test_pointers_find_size_entity_tag_version_and_time(self, told, size, etag, version, time):
        pointers = {"uri": "/u", "size": "/n", "etag": "/tag", "version_id": "/v", "time": "/t"}
        assert pointers_of.check_pointers(pointers) == pointers
        found = only(pointers_of.from_pointers({"u": "s3://b/k", **told}, pointers))
        assert (found.key, found.size, found.etag, found.version_id, found.event_time) == (
            "k", size, etag, version, time,
        )  # fmt: skip

    @pytest.mark.parametrize(("word", "reason"), [("object.created", Reason.CREATED), ("OBJECT_DELETE", None)])
    def test_a_word_that_pointers_find_tells_what_went(self, word, reason):
        found = pointers_of.from_pointers({"b": "b", "k": "k", "w": word}, {"bucket": "/b", "key": "/k", "event": "/w"})
        assert only(found).reason is reason

    def test_a_mapped_key_may_be_encoded_or_not(self):
        found = only(pointers_of.from_pointers({"b": "b", "k": "in/a%20b+c"}, {"bucket": "/b", "key": "/k"}))
        assert (found.key, found.other_key) == ("in/a%20b+c", "in/a b c")
        assert new_keys([found], bucket="b", prefix="in/").keys() == {"in/a%20b+c", "in/a b c"}

    @pytest.mark.parametrize(
        "wrong", [{}, {"uri": "x"}, {"bucket": "/b"}, {"uri": "/u", "more": "/m"}, {"uri": "/u", "size": 5}, 5]
    )
    def test_pointers_that_cannot_be_used_are_refused(self, wrong):
        with pytest.raises(DefinitionError, match="expected JSON pointers"):
            pointers_of.check_pointers(wrong)


@every_reader
class TestGarbage:
    @pytest.mark.parametrize("text", ["{", b"\xff", "[" * 100_000], ids=["open", "bytes", "deep"])
    def test_what_is_not_json_is_a_clear_error(self, read, text):
        with pytest.raises(DefinitionError, match="the notification is not JSON"):
            read(text)

    @given(body=anything)
    def test_any_json_is_read_or_refused(self, read, body):
        with suppress(formats.UnknownFormatError):
            assert isinstance(read(json.dumps(body)), list)


@pytest.mark.parametrize("text", ["yesterday", 1e30, -1e30, float("nan"), True, None])
def test_an_unreadable_time_is_left_out(text):
    body = records("aws:s3", "a")
    body["Records"][0]["eventTime"] = text
    found = only(n.from_aws_s3(body)).event_time
    assert found is None or text is True


def test_a_time_without_zone_is_utc():
    body = records("aws:s3", "a")
    body["Records"][0]["eventTime"] = "2026-01-01T12:00:00"
    assert only(n.from_aws_s3(body)).event_time == NOON


class TestEventsForOscar:
    @given(st.text(min_size=1), st.none() | st.integers(0, 2**50), st.text(max_size=5))
    def test_any_key_survives_the_way_through_minios_format(self, key, size, version):
        event = written(key, size=size, version_id=version)
        found = only(n.from_minio_webhook(json.dumps(oscar_events.to_minio_event(event))))
        assert (found.container, found.key, found.size, found.version_id) == ("bucket", key, size, version)
        assert (found.etag, found.event_time, found.reason) == ("e", NOON, Reason.CREATED)

    @pytest.mark.parametrize("key", ["a\udcff", "\ud800"])
    def test_names_that_are_no_text_can_be_written(self, key):
        assert json.dumps(oscar_events.to_minio_event(written(key)))

    def test_a_minio_event_has_what_oscar_and_its_supervisor_insist_on(self):
        body = oscar_events.to_minio_event(written("in/a b.h5"), principal_id="sub", source_ip="10.0.0.1")
        record = body["Records"][0]
        assert body["Key"] == "bucket/in/a b.h5"
        assert record["eventSource"] == "minio:s3"
        assert record["eventTime"] == "2026-01-01T12:00:00.000Z"
        assert record["requestParameters"] == {"principalId": "sub", "sourceIPAddress": "10.0.0.1"}
        assert record["s3"]["bucket"]["arn"] == "arn:aws:s3:::bucket"
        assert record["s3"]["object"]["key"] == "in%2Fa+b.h5"

    @pytest.mark.parametrize(("reason", "mask"), [("moved", "IN_MOVED_TO"), ("listed", "IN_CLOSE_WRITE")])
    def test_a_dcache_event_names_the_file_and_has_a_subscription(self, reason, mask):
        event = written("a.h5", source=StoreType.DCACHE, container="/data/in", reason=reason)
        assert oscar_events.to_dcache_event(event) == {
            "event": {"name": "a.h5", "mask": [mask]},
            "subscription": "/data/in",
        }
        assert oscar_events.to_dcache_event(event, subscription="https://x")["subscription"] == "https://x"
