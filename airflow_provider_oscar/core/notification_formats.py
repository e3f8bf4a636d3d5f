# SPDX-License-Identifier: Apache-2.0
"""Any notification: its shape decides how it is read, not the name that its sender gives itself.

Every object is looked up in its store before anything is made of it, so that a format that is read too readily costs a
request and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_plus

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.notifications import (
    Notification,
    NotificationFormat,
    from_aws_s3,
    from_ceph,
    from_dcache_kafka,
    from_dcache_sse,
    from_eventbridge,
    from_minio_listen,
    from_minio_webhook,
    from_s3_records,
    from_seaweedfs,
    get_etag,
    get_size,
    get_text,
    mapping,
    parse,
    parse_time,
    unwrap_sns,
)
from airflow_provider_oscar.core.objects import Reason, Source, split_uri

#: Documents in one list, and lists or envelopes inside each other.
_MOST_DOCUMENTS = 1000
_DEEPEST = 4
_KNOWN_SOURCES = {"aws:s3": from_aws_s3, "ceph:s3": from_ceph}
#: What pointers may find of an object: where it is, and what is said of it.
_WHERE = ("uri", "bucket", "key")
_FACTS = ("event", "size", "etag", "version_id", "time")
_GONE = ("delete", "remove", "archive", "expir")
_SAID_BY_SNS = ("SubscriptionConfirmation", "UnsubscribeConfirmation", "Notification")


class UnknownFormatError(DefinitionError):
    """A notification of a form that nobody has taught us."""


def detect(payload: object, *, directory: str = "") -> list[Notification]:
    """Read a notification of any known form; one that is about something else than objects gives an empty list.

    Known are S3 event records of any store, also through SNS and SQS; EventBridge; MinIO's stream; SeaweedFS; dCache;
    CloudEvents around any of these; Google Cloud Storage through Pub/Sub; Cloudflare R2; ``{"bucket", "key"}`` and
    ``{"uri"}``; and lists of these.

    :param payload: JSON text or what it parses to.
    :param directory: watched directory, for the two dCache formats; empty means they are not expected.
    :raises DefinitionError: if the text is not JSON.
    :raises UnknownFormatError: if the form is not known.
    """
    if isinstance(payload, (str, bytes)):
        parse(payload)  # says what is wrong with it
        payload = json.loads(payload)
    return _read(payload, directory, 0)


def _read(body: object, directory: str, depth: int) -> list[Notification]:
    if depth > _DEEPEST:
        raise UnknownFormatError("the notification is wrapped too often to be read")
    if isinstance(body, list) and body:
        if len(body) > _MOST_DOCUMENTS:
            raise DefinitionError(f"{len(body)} notifications in one list; expected at most {_MOST_DOCUMENTS}")
        return [found for each in body for found in _read(each, directory, depth + 1)]
    if not isinstance(body, Mapping):
        raise _unknown(body)
    found = _known(body, directory, depth)
    if found is None:
        raise _unknown(body)
    return found


def _unknown(body: object) -> UnknownFormatError:
    names = f"the fields {', '.join(quoted(name) for name in list(body)[:12])}" if isinstance(body, Mapping) else body
    return UnknownFormatError(
        f"the notification has no form that is known: {names if isinstance(names, str) else quoted(names)}; "
        "let the sender post S3 event records, CloudEvents, {'bucket', 'key'} or {'uri'}, or map its fields"
    )


def _known(body: Mapping[str, object], directory: str, depth: int) -> list[Notification] | None:
    """Return what a document says, None if its form is not known."""
    if body.get("Type") in _SAID_BY_SNS and "Records" not in body:
        return _from_sns(body, directory, depth)
    if "specversion" in body or "cloudEventsVersion" in body:
        return _from_cloud_event(body, directory, depth)
    if isinstance(body.get("message"), Mapping) and "subscription" in body:
        return _from_pub_sub(body)
    if body.get("Event") == "s3:TestEvent":
        return []
    if "subscription" in body and "event" in body:
        return from_dcache_sse(body, directory=directory) if directory else []
    if "msgType" in body:
        return from_dcache_kafka(body, directory=directory) if directory else []
    for fields, read in _READERS:
        if fields <= body.keys():
            return read(body)
    return None


def _from_sns(body: Mapping[str, object], directory: str, depth: int) -> list[Notification] | None:
    inner = unwrap_sns(body)
    if inner is body or inner.get("Type") == body.get("Type"):
        return [] if "Confirmation" in str(body["Type"]) else None
    return _read(inner, directory, depth + 1)


def _from_records(body: Mapping[str, object]) -> list[Notification]:
    records = body["Records"] if isinstance(body["Records"], list) else []
    first = records[0] if records and isinstance(records[0], Mapping) else {}
    source = str(first.get("eventSource", "aws:s3"))
    if source == "minio:s3":
        return from_minio_webhook(body) if "Key" in body or "EventName" in body else from_minio_listen(body)
    found = _KNOWN_SOURCES.get(source, from_s3_records)(body)
    own = first.get("eventSource")
    others = [each for each in records if isinstance(each, Mapping) and each.get("eventSource") != own]
    return found + (from_s3_records({"Records": others}) if others and source in _KNOWN_SOURCES else [])


def from_plain(body: Mapping[str, object]) -> list[Notification]:
    """Read ``{"uri": "s3://…"}``, ``{"bucket": …, "key": …}``, R2's message, or Google's object resource.

    ``bucket`` may be a text or have a ``name``; the key is ``key``, ``name``, ``object.key`` or ``object`` itself.
    """
    uri = get_text(body, "uri")
    if uri:
        source, container, path = split_uri(uri)
        if source is Source.DCACHE:
            container, _, path = path.rpartition("/")
            container = container or "/"
        return [
            Notification(source_format=NotificationFormat.PLAIN, container=container, key=path, reason=Reason.CREATED)
        ]
    item = mapping(body, "object") or body
    container = get_text(body, "bucket") or get_text(mapping(body, "bucket"), "name")
    key = get_text(item, "key") or get_text(item, "name") or get_text(body, "object")
    if not container or not key:
        return []
    word = get_text(body, "action") or get_text(body, "eventType") or get_text(body, "event")
    gone = any(part in word.lower() for part in _GONE)
    google = body.get("kind") == "storage#object"
    is_r2 = "action" in body and "account" in body
    return [
        Notification(
            source_format=NotificationFormat.R2
            if is_r2
            else NotificationFormat.GOOGLE
            if google
            else NotificationFormat.PLAIN,
            container=container,
            key=key,
            size=_number(item),
            etag=get_etag(item),
            event_time=parse_time(body.get("eventTime") or body.get("time") or item.get("updated")),
            reason=None if gone else Reason.CREATED,
        )
    ]


#: Which reader the fields of a document ask for, in this order.
_READERS: tuple[tuple[set[str], Callable[[Mapping[str, object]], list[Notification]]], ...] = (
    ({"Records"}, _from_records),
    ({"detail-type"}, from_eventbridge),
    ({"event_type", "message"}, from_seaweedfs),
    ({"bucket"}, from_plain),
    ({"uri"}, from_plain),
)


def _from_cloud_event(body: Mapping[str, Any], directory: str, depth: int) -> list[Notification] | None:
    """Read a CloudEvent in structured mode (CloudEvents 1.0, JSON format)."""
    kind = get_text(body, "type") or get_text(body, "eventType")
    data = body.get("data")
    if isinstance(body.get("data_base64"), str):
        data = _decode_json(body["data_base64"])
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except ValueError:
            data = None
    if not isinstance(data, (Mapping, list)):
        return _from_subject(body, kind)
    try:
        found = _read(data, directory, depth + 1)
    except UnknownFormatError:
        return _from_subject(body, kind)
    gone = any(word in kind.lower() for word in _GONE)
    return [replace(each, reason=None) if gone else each for each in found]


def _from_subject(body: Mapping[str, object], kind: str) -> list[Notification] | None:
    """Read a CloudEvent that names its object by source and subject alone."""
    bucket = get_text(body, "source").rstrip("/").rpartition("/")[2]
    key = get_text(body, "subject").removeprefix("objects/")
    if not bucket or not key or "object" not in kind.lower():
        return None
    gone = any(word in kind.lower() for word in _GONE)
    return [
        Notification(
            source_format=NotificationFormat.PLAIN,
            container=bucket,
            key=key,
            event_time=parse_time(body.get("time")),
            reason=None if gone else Reason.CREATED,
        )
    ]


def _from_pub_sub(body: Mapping[str, object]) -> list[Notification] | None:
    """Read what Google Pub/Sub pushes for a bucket (Cloud Storage, "Pub/Sub notifications": attributes and payload)."""
    message = mapping(body, "message")
    attributes = mapping(message, "attributes")
    container, key = get_text(attributes, "bucketId"), get_text(attributes, "objectId")
    word = get_text(attributes, "eventType")
    resource = _decode_json(get_text(message, "data"))
    if not container or not key:
        return from_plain(resource) or None if isinstance(resource, Mapping) else None
    item = resource if isinstance(resource, Mapping) else {}
    return [
        Notification(
            source_format=NotificationFormat.GOOGLE,
            container=container,
            key=key,
            size=_number(item),
            etag=get_etag(item),
            event_time=parse_time(attributes.get("eventTime")),
            reason=Reason.CREATED if word in ("OBJECT_FINALIZE", "") else None,
        )
    ]


def from_pointers(payload: object, pointers: Mapping[str, str]) -> list[Notification]:
    """Read any JSON by JSON pointers (RFC 6901): ``{"each": "/files", "bucket": "/store", "key": "/path"}``.

    :param payload: JSON text or what it parses to.
    :param pointers: ``uri``, or ``bucket`` and ``key``; optionally ``each``, which finds a list, to whose items the
        others refer; ``event``, a word, of which those that tell of a deletion make no run; and ``size`` (bytes),
        ``etag``, ``version_id`` and ``time`` (ISO 8601, or seconds since 1970), each ignored where it finds nothing of
        its kind. A value that begins with ``=`` is a text itself, as in ``{"bucket": "=incoming"}``.
    :raises DefinitionError: if the text is not JSON.
    :raises UnknownFormatError: if the pointers find nothing.
    """
    if isinstance(payload, (str, bytes)):
        parse(payload)
        payload = json.loads(payload)
    items = _pointed(payload, pointers["each"]) if "each" in pointers else [payload]
    if not isinstance(items, list) or len(items) > _MOST_DOCUMENTS:
        raise UnknownFormatError(f"the pointer {quoted(pointers['each'])} does not find a list of at most 1000 items")
    found: list[Notification] = []
    for item in items:
        fields = {name: _pointed(item, pointer) for name, pointer in pointers.items() if name != "each"}
        named = {name: value for name, value in fields.items() if name in _WHERE and isinstance(value, str)}
        read = from_plain({**named, "event": fields.get("event")})
        if not read:
            raise UnknownFormatError(
                f"the pointers {', '.join(map(quoted, pointers.values()))} find no object in the notification"
            )
        found += [_with_facts(each, fields) for each in read]
    return found


def _with_facts(found: Notification, fields: Mapping[str, object]) -> Notification:
    version = fields.get("version_id")
    # Nobody says whether such a key is percent-encoded.
    other = unquote_plus(found.key, errors="surrogateescape")
    return replace(
        found,
        size=_number(fields),
        etag=get_etag(fields),
        version_id=str(version) if isinstance(version, (str, int)) and not isinstance(version, bool) else "",
        event_time=parse_time(fields.get("time")),
        other_key=other if other != found.key and "uri" not in fields else "",
    )


def check_pointers(pointers: object) -> dict[str, str]:
    """Return the pointers of a mapping.

    :raises DefinitionError: if they cannot be used.
    """
    if (
        not isinstance(pointers, Mapping)
        or not all(isinstance(value, str) and value[:1] in ("/", "=", "") for value in pointers.values())
        or not pointers.keys() <= {"each", *_WHERE, *_FACTS}
        or not ("uri" in pointers or {"bucket", "key"} <= pointers.keys())
    ):
        raise DefinitionError(
            f"json: {quoted(pointers)}; expected JSON pointers for uri, or for bucket and key, and perhaps for each, "
            f"{', '.join(_FACTS)}"
        )
    return dict(pointers)


def _pointed(value: object, pointer: str) -> object:
    if pointer.startswith("="):
        return pointer[1:]
    for word in pointer.split("/")[1:]:
        word = word.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(word)
        elif isinstance(value, list) and word.isdigit() and len(word) < 7 and int(word) < len(value):
            value = value[int(word)]
        else:
            return None
    return value


def _number(item: Mapping[str, object]) -> int | None:
    text = item.get("size")
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20:  # Google writes it so
        return int(text)
    return get_size(item)


def _decode_json(encoded: str) -> object:
    try:
        return json.loads(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None
