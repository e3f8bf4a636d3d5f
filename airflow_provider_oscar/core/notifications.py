# SPDX-License-Identifier: Apache-2.0
"""What stores say when an object appears, read into one shape; and the two shapes OSCAR's supervisor reads.

A :class:`Notification` is not an :class:`~airflow_provider_oscar.core.objects.ObjectEvent` yet: no format
carries the store's time of last modification, several lack size or entity tag, and all may be late, doubled
or lost. A watcher therefore looks the object up before it emits.

How the key is encoded differs per source and not per format, hence one function each:

=====================  =================================================================
AWS S3, moto           ``quote_plus``; also inside SNS, SQS bodies
EventBridge            raw
MinIO webhook, Kafka   ``quote_plus`` in the records, raw in the top-level ``Key``
MinIO listen stream    raw
Ceph RGW               raw
SeaweedFS              raw path below ``/buckets``
dCache SSE, Kafka      raw name below the watched directory, raw absolute path
=====================  =================================================================
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import unquote_plus

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.event_names import GONE_EVENTS, reason_of_event
from airflow_provider_oscar.core.objects import Reason, normalised_etag
from airflow_provider_oscar.core.shapes import parse_json
from airflow_provider_oscar.core.times import read_iso

_URL_SAFE = str.maketrans("-_", "+/")
Payload = str | bytes | Mapping[str, object]


class NotificationFormat(StrEnum):
    """Who worded a notification."""

    AWS_S3 = "aws-s3"
    """S3 event notification, directly or wrapped by SNS."""
    EVENTBRIDGE = "eventbridge"
    """S3 event on Amazon EventBridge."""
    MINIO_WEBHOOK = "minio-webhook"
    """MinIO's webhook, Kafka and AMQP targets."""
    MINIO_LISTEN = "minio-listen"
    """MinIO's ListenBucketNotification stream."""
    CEPH = "ceph"
    """Ceph RADOS gateway."""
    SEAWEEDFS = "seaweedfs"
    """SeaweedFS filer webhook."""
    DCACHE_SSE = "dcache-sse"
    """inotify message of dCache's frontend."""
    DCACHE_KAFKA = "dcache-kafka"
    """Billing message of dCache's Kafka topic."""
    S3_RECORDS = "s3-records"
    """S3 event records of another store: StorageGRID, RustFS, Scality and the like."""
    GOOGLE = "google"
    """Google Cloud Storage, through Pub/Sub or as a CloudEvent."""
    R2 = "r2"
    """Cloudflare R2 event notification."""
    AZURE = "azure"
    """Azure Event Grid's event of a blob."""
    PLAIN = "plain"
    """``{"bucket", "key"}`` or ``{"uri"}``, as scripts write it, or what a JSON pointer finds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One sentence of a store about one object.

    :param source_format: who worded it.
    :param container: bucket, or the watched directory.
    :param key: decoded key, or path relative to the directory; hostile text.
    :param size: bytes, or None if not told.
    :param etag: entity tag without quotes, or empty.
    :param version_id: S3 version id, or empty.
    :param event_time: when the store says it happened, or None.
    :param sequencer: orders notifications of one key; compare with :attr:`order`.
    :param reason: CREATED or MOVED if the word means that a complete object may be there, else None.
    :param other_key: the key read the other way, where a store does not say whether it encodes it; empty if equal.
    """

    source_format: NotificationFormat
    container: str
    key: str
    size: int | None = None
    etag: str = ""
    version_id: str = ""
    event_time: datetime | None = None
    sequencer: str = ""
    reason: Reason | None = None
    other_key: str = ""

    @property
    def order(self) -> str:
        """The sequencer padded so that texts of different length compare as the numbers they are."""
        return self.sequencer.lower().rjust(64, "0")


def from_aws_s3(payload: Payload) -> list[Notification]:
    """Read an S3 event notification, also the body of an SQS message or SNS delivery (AWS S3 user guide).

    :param payload: JSON text or what it parses to.
    :raises DefinitionError: if the text is not JSON. Test events, deletions and what is unknown give an empty list.
    """
    body = unwrap_sns(parse(payload))
    return list(_records(body, NotificationFormat.AWS_S3, ("aws:s3",), _unquote))


def from_minio_webhook(payload: Payload) -> list[Notification]:
    """Read what MinIO posts to a webhook or writes to Kafka, AMQP and the like.

    :raises DefinitionError: as :func:`from_aws_s3`.
    """
    return list(_records(parse(payload), NotificationFormat.MINIO_WEBHOOK, ("minio:s3",), _unquote))


def from_minio_listen(payload: Payload) -> list[Notification]:
    """Read one line of MinIO's listen stream; a blank line is a sign of life and gives an empty list.

    :raises DefinitionError: as :func:`from_aws_s3`.
    """
    if isinstance(payload, (str, bytes)) and not payload.strip():
        return []
    return list(_records(parse(payload), NotificationFormat.MINIO_LISTEN, ("minio:s3",), _raw))


def from_ceph(payload: Payload) -> list[Notification]:
    """Read what a Ceph RADOS gateway pushes over HTTP, Kafka or AMQP.

    :raises DefinitionError: as :func:`from_aws_s3`.
    """
    return list(_records(parse(payload), NotificationFormat.CEPH, ("ceph:s3",), _raw))


def from_s3_records(payload: Payload) -> list[Notification]:
    """Read S3 event records whatever store wrote them; the key is taken as encoded, with the raw one beside it.

    :raises DefinitionError: as :func:`from_aws_s3`.
    """
    return list(_records(parse(payload), NotificationFormat.S3_RECORDS, None, _unquote))


def from_eventbridge(payload: Payload) -> list[Notification]:
    """Read an S3 event of Amazon EventBridge.

    :raises DefinitionError: as :func:`from_aws_s3`.
    """
    body = parse(payload)
    name = get_text(body, "detail-type")
    detail = mapping(body, "detail")
    item = mapping(detail, "object")
    container, key = get_text(mapping(detail, "bucket"), "name"), get_text(item, "key")
    if not container or not key or "Deleted" in name:
        return []
    return [
        Notification(
            source_format=NotificationFormat.EVENTBRIDGE,
            container=container,
            key=key,
            size=get_size(item),
            etag=get_etag(item),
            version_id=get_text(item, "version-id"),
            event_time=parse_time(body.get("time")),
            sequencer=get_text(item, "sequencer"),
            reason=Reason.CREATED if name in ("Object Created", "Object Restore Completed") else None,
        )
    ]


def from_seaweedfs(payload: Payload) -> list[Notification]:
    """Read a message of SeaweedFS' filer webhook; its own bookkeeping paths and directories give an empty list.

    :raises DefinitionError: as :func:`from_aws_s3`.
    """
    body = parse(payload)
    name, message = get_text(body, "event_type"), mapping(body, "message")
    entry = mapping(message, "new_entry")
    path = get_text(body, "key")
    if name == "rename" and get_text(message, "new_parent_path"):
        path = f"{get_text(message, 'new_parent_path')}/{get_text(entry, 'name')}"
    container, _, key = path.removeprefix("/buckets/").partition("/")
    internal = container.startswith(".") or ".uploads" in key.split("/") or ".versions/" in key
    if not path.startswith("/buckets/") or not key or not entry or entry.get("is_directory") or internal:
        return []
    attributes = mapping(entry, "attributes")
    return [
        Notification(
            source_format=NotificationFormat.SEAWEEDFS,
            container=container,
            key=key,
            size=get_size(attributes, "file_size"),
            etag=_decode_base64(get_text(mapping(entry, "extended"), "Seaweed-X-Amz-ETag")),
            event_time=parse_time(attributes.get("mtime")),
            reason={"create": Reason.CREATED, "update": Reason.CREATED, "rename": Reason.MOVED}.get(name),
        )
    ]


def from_dcache_sse(payload: Payload, *, directory: str) -> list[Notification]:
    """Read the data of one ``inotify`` message of dCache's event stream.

    Sub-directories are reported with reason None; messages about the watched directory itself give an empty list.

    :param payload: JSON text or what it parses to.
    :param directory: absolute path that was subscribed to; the message names only the subscription.
    :raises DefinitionError: as :func:`from_aws_s3`.
    """
    event = mapping(parse(payload), "event")
    name = get_text(event, "name")
    listed = event.get("mask")
    mask = sorted({word for word in listed if isinstance(word, str)} if isinstance(listed, list) else ())
    if not name or name in (".", "..") or "/" in name or {"IN_DELETE", "IN_MOVED_FROM"}.intersection(mask):
        return []
    reason = Reason.MOVED if "IN_MOVED_TO" in mask else Reason.CREATED if "IN_CLOSE_WRITE" in mask else None
    return [
        Notification(
            source_format=NotificationFormat.DCACHE_SSE,
            container=directory,
            key=name,
            reason=None if "IN_ISDIR" in mask else reason,
        )
    ]


def from_dcache_kafka(payload: Payload, *, directory: str, base: str = "") -> list[Notification]:
    """Read one billing message of dCache's Kafka topic, which carries the transfers of all users.

    :param payload: JSON text or what it parses to.
    :param directory: absolute path of interest, as the connection names it; other paths give an empty list.
    :param base: where the connection's paths begin in dCache's namespace, without a slash at the end; messages name
        paths from its root.
    :raises DefinitionError: as :func:`from_aws_s3`.
    """
    body = parse(payload)
    path = get_text(body, "transferPath")
    root = base + directory.rstrip("/") + "/"
    kind = get_text(body, "msgType")
    key = path.removeprefix(root)
    if kind == "remove" or not path.startswith(root) or not key:
        return []
    written = kind == "transfer" and body.get("isWrite") == "write" and body.get("isP2p") is False
    return [
        Notification(
            source_format=NotificationFormat.DCACHE_KAFKA,
            container=directory,
            key=key,
            size=get_size(body, "fileSize"),
            event_time=parse_time(body.get("date")),
            reason=Reason.CREATED if written and mapping(body, "status").get("code") == 0 else None,
        )
    ]


def parse(payload: Payload) -> Mapping[str, object]:
    """Return a JSON object; other JSON values count as an empty one."""
    if isinstance(payload, (str, bytes)):
        try:
            payload = parse_json(payload)
        except (ValueError, RecursionError) as error:
            raise DefinitionError(f"the notification is not JSON: {quoted(payload)}") from error
    return payload if isinstance(payload, Mapping) else {}


def unwrap_sns(body: Mapping[str, object]) -> Mapping[str, object]:
    """Return what an SNS delivery carries; anything else as it is."""
    message = body.get("Message")
    if "Records" in body or not isinstance(message, str):
        return body
    try:
        return parse(message)
    except DefinitionError:
        return {}


#: Where a record holds bucket and object: Amazon's name and those of stores that copied all but it.
_RECORD_BODIES = ("s3", "oss", "obs", "tos")


def record_body(record: Mapping[str, object]) -> Mapping[str, object]:
    """Return the part of an S3 event record that holds bucket and object, or an empty one if it is none."""
    for name in _RECORD_BODIES:
        body = mapping(record, name)
        if get_text(mapping(body, "bucket"), "name") and get_text(mapping(body, "object"), "key"):
            return body
    return {}


def _records(
    body: Mapping[str, object],
    source_format: NotificationFormat,
    sources: tuple[str, ...] | None,
    decode: Callable[[str], str],
) -> Iterator[Notification]:
    records = body.get("Records")
    for record in records if isinstance(records, list) else ():
        if not isinstance(record, Mapping) or (
            sources is not None and record.get("eventSource", sources[0]) not in sources
        ):
            continue
        part = record_body(record)
        item = mapping(part, "object")
        name = get_text(record, "eventName").removeprefix("s3:")
        written = get_text(item, "key")
        key = decode(written)
        if not key or name.startswith(GONE_EVENTS):
            continue
        yield Notification(
            source_format=source_format,
            container=get_text(mapping(part, "bucket"), "name"),
            key=key,
            size=get_size(item),
            etag=get_etag(item),
            version_id=get_text(item, "versionId"),
            event_time=parse_time(record.get("eventTime")),
            sequencer=get_text(item, "sequencer"),
            reason=reason_of_event(name),
            other_key=written if sources is None and written != key else "",
        )


def other_reading(key: str) -> str:
    """Return a key with its encoding undone, where a store does not say whether it encodes; empty if that is equal."""
    other = _unquote(key)
    return other if other != key else ""


def _unquote(key: str) -> str:
    return unquote_plus(key, errors="surrogateescape")


def _raw(key: str) -> str:
    return key


def mapping(fields: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return a field that is an object, or an empty one."""
    value = fields.get(name)
    return value if isinstance(value, Mapping) else {}


def get_text(fields: Mapping[str, object], name: str) -> str:
    """Return a field that is a text, or an empty one."""
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def get_size(fields: Mapping[str, object], name: str = "size") -> int | None:
    """Return a field that is a number of bytes, or None."""
    value = fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def get_etag(item: Mapping[str, object]) -> str:
    """Return the entity tag of a record without quotes, or an empty text."""
    # moto's EventBridge events write eTag, Amazon's etag.
    return normalised_etag(get_text(item, "eTag") or get_text(item, "etag"))


def parse_time(value: object) -> datetime | None:
    """Read ISO 8601 or seconds since 1970."""
    try:
        if isinstance(value, str):
            return read_iso(value)
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def decode_json(text: str) -> object:
    """Return what a JSON text, or the base64 of one, holds; None if it is neither."""
    for read in (str.encode, _from_base64):
        with contextlib.suppress(binascii.Error, ValueError, RecursionError):
            return parse_json(read(text))
    return None


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text.translate(_URL_SAFE), validate=True)


def _decode_base64(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("ascii").strip('"')
    except (binascii.Error, ValueError):
        return ""
