# SPDX-License-Identifier: Apache-2.0
"""Notifications that name an object by a few fields: those of scripts, functions, NiFi, and stores without records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.event_names import reason_of_event
from airflow_provider_oscar.core.notifications import (
    Notification,
    NotificationFormat,
    get_etag,
    get_size,
    get_text,
    mapping,
    other_reading,
    parse_time,
)
from airflow_provider_oscar.core.objects import Reason, StoreType, split_uri

#: Documents in one list, or keys of one bucket.
MOST_DOCUMENTS = 1000
#: Words that tell of something else than new content: what went, what only its description changed, what was read.
_NOT_NEW = re.compile(
    r"(?i)delet|remov|archiv|expir|purg|trash|metadata|tagg|accessed|^(s3:)?(get|head|list|read|download)"
)
_ACL = re.compile(r"ACL|Acl|\bacl\b")
#: How senders call bucket and key.
_BUCKETS = ("bucket", "Bucket", "bucketName", "bucket_name", "bucket_id", "container")
_KEYS = ("key", "Key", "objectKey", "objectName", "name")
#: Fields that hold the word of the event.
_WORDS = ("action", "eventType", "event", "eventName", "EventName", "method", "operation", "event_type")
#: Where NiFi's processors note bucket and key; where they note no key, "filename" is it.
_FLOW_FILES = (("s3.bucket", "s3.key"), ("gcs.bucket", "gcs.key"), ("azure.container", "azure.blobname"))
#: Fields in which scripts list several objects of a bucket.
_LISTS = ("keys", "Keys", "objects", "files")

_Body = Mapping[str, object]


def first_text(fields: _Body, *names: str) -> str:
    """Return the first of some fields that is a text and not empty; empty if none is."""
    return next((text for name in names if (text := get_text(fields, name))), "")


def from_plain(body: _Body) -> list[Notification] | None:
    """Read ``{"uri": "s3://…"}``, ``{"bucket": …, "key": …}``, R2's message, Google's or Oracle's resource.

    ``bucket`` may be a text or have a ``name``, and be called ``Bucket``, ``bucketName``, ``bucket_name``,
    ``bucket_id`` or ``container``; the key is ``key``, ``Key``, ``objectKey``, ``objectName``, ``name``,
    ``object.key``, ``object`` itself, ``object_name`` or ``object_id``. ``{"bucket": …, "keys": […]}`` names several.
    So do attributes of a flow file of NiFi, and a record of CloudTrail. None if there is no object in it.

    :raises DefinitionError: if the URI is not one of a store.
    """
    if uri := get_text(body, "uri"):
        return _from_uri(uri, _word(body))
    item, details = mapping(body, "object") or body, mapping(body, "additionalDetails")
    container = _bucket(body) or get_text(details, "bucketName")
    listed = next((value for name in _LISTS if isinstance(value := body.get(name), list) and value), None)
    if container and listed is not None:
        return list(_read_list(container, listed, _word(body))) or None
    key = first_text(item, *_KEYS) or first_text(body, "object", "object_name", "object_id", "resourceName")
    if not container or not key:
        return _from_flow_file(body)
    return [
        Notification(
            source_format=_sender(body),
            container=container,
            key=key,
            size=number_of_bytes(item),
            etag=get_etag(item) or get_etag(details),
            event_time=parse_time(body.get("eventTime") or body.get("time") or item.get("updated")),
            reason=told_reason(_word(body)),
        )
    ]


def _sender(body: _Body) -> NotificationFormat:
    if "action" in body and "account" in body:
        return NotificationFormat.R2
    return NotificationFormat.GOOGLE if body.get("kind") == "storage#object" else NotificationFormat.PLAIN


def _bucket(body: _Body) -> str:
    return first_text(body, *_BUCKETS) or get_text(mapping(body, "bucket"), "name")


def _from_uri(uri: str, word: str) -> list[Notification] | None:
    source, container, path = split_uri(uri)
    if source is StoreType.DCACHE:
        container, _, path = path.rpartition("/")
        container = container or "/"
    return [_named(container, path, word)] if path else None


def _named(container: str, key: str, word: str, **details: Any) -> Notification:
    reason = told_reason(word)
    return Notification(source_format=NotificationFormat.PLAIN, container=container, key=key, reason=reason, **details)


def _read_list(container: str, listed: list[object], word: str) -> Iterator[Notification]:
    if len(listed) > MOST_DOCUMENTS:
        raise DefinitionError(f"{len(listed)} keys in one notification; expected at most {MOST_DOCUMENTS}")
    for each in listed:
        fields = each if isinstance(each, Mapping) else {"key": each}
        if key := first_text(fields, *_KEYS):
            yield _named(container, key, word, size=number_of_bytes(fields), etag=get_etag(fields))


def _from_flow_file(body: _Body) -> list[Notification] | None:
    """Read the attributes of a flow file as NiFi's AttributesToJSON writes them, or a record of AWS CloudTrail.

    Sources: NiFi, "ListS3", "PutS3Object", "ListFile" (written attributes); AWS, "CloudTrail record contents".
    """
    asked, name = mapping(body, "requestParameters"), get_text(body, "filename")
    if (bucket := get_text(asked, "bucketName")) and (key := get_text(asked, "key")) and "errorCode" not in body:
        return [_named(bucket, key, _word(body), event_time=parse_time(body.get("eventTime")))]
    folder = first_text(body, "path", "absolute.path")
    for bucket_field, key_field in _FLOW_FILES:
        if (bucket := get_text(body, bucket_field)) and (key := get_text(body, key_field) or name):
            # Who fetched the object before may have parted its key.
            parted = f"{folder.removeprefix('./').strip('/')}/{name}" if folder.strip("./") and name else ""
            return [_named(bucket, key, "", other_key=parted if parted != key else "")]
    folder = next((text for field in ("absolute.path", "path") if (text := get_text(body, field))[:1] == "/"), "")
    return [_named(folder.rstrip("/") or "/", name, "")] if folder and name else None


def from_bucket_and_key(body: _Body) -> list[Notification] | None:
    """Read MinIO's message without records: ``{"EventName": …, "Key": "bucket/key"}``."""
    container, _, key = get_text(body, "Key").partition("/")
    return [_named(container, key, _word(body))] if container and key else None


def from_tencent_cos(record: _Body) -> list[Notification] | None:
    """Read a record of Tencent COS, whose keys begin with account and bucket; what is gone gives an empty list.

    Source: Tencent Cloud, "COS Trigger", structure of the event message.
    """
    part, event = mapping(record, "cos"), mapping(record, "event")
    bucket, item = mapping(part, "cosBucket"), mapping(part, "cosObject")
    name, account = get_text(bucket, "name"), get_text(bucket, "appid")
    short = name.removesuffix(f"-{account}") if account else name
    key = get_text(item, "key").removeprefix(f"/{account}/{short}/").removeprefix("/")
    if not name or not key:
        return None
    word = get_text(event, "eventName").removeprefix("cos:")
    if word.startswith("ObjectRemove"):
        return []
    return [
        Notification(
            source_format=NotificationFormat.S3_RECORDS,
            container=f"{short}-{account}" if account else name,
            key=key,
            size=get_size(item),
            version_id=get_text(item, "vid"),
            event_time=parse_time(event.get("eventTime")),
            reason=reason_of_event(word),
            other_key=other_reading(key),
        )
    ]


def _word(body: _Body) -> str:
    return first_text(body, *_WORDS)


def is_not_new(word: str) -> bool:
    """Whether the word of an event tells of something else than new content."""
    return _NOT_NEW.search(word) is not None or _ACL.search(word) is not None


def told_reason(word: str) -> Reason | None:
    """Return what the word of an event tells of an object."""
    return None if is_not_new(word) else Reason.CREATED


def number_of_bytes(item: _Body) -> int | None:
    """Return the size that a document tells as a number, or as Google does as a text."""
    text = item.get("size")
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    return get_size(item)
