# SPDX-License-Identifier: Apache-2.0
"""Any notification: its shape decides how it is read, not the name that its sender gives itself.

Every object is looked up in its store before anything is made of it, so that a format that is read too readily costs a
request and nothing else. What cannot be read is always said, also where it stands beside something that can.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.event_names import is_known_event
from airflow_provider_oscar.core.notification_plain import (
    MOST_DOCUMENTS,
    first_text,
    from_bucket_and_key,
    from_plain,
    from_tencent_cos,
    is_not_new,
    number_of_bytes,
    told_reason,
)
from airflow_provider_oscar.core.notifications import (
    Notification,
    NotificationFormat,
    Payload,
    decode_json,
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
    other_reading,
    parse,
    parse_time,
    record_body,
)
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.core.shapes import parse_json

#: Lists or envelopes inside each other.
_DEEPEST = 6
_SAID_BY_SNS = ("SubscriptionConfirmation", "UnsubscribeConfirmation", "Notification")
#: Fields in which envelopes of queues, streams and functions carry what they were given: Kafka Connect, Kafka REST,
#: Lambda, Kinesis, Firehose, SQS, Pub/Sub, MinIO's access format; as JSON, as its text, or as the base64 of that.
_CONTENTS = (
    "payload", "value", "body", "Body", "data", "Data", "Message", "message", "Sns", "kinesis", "detail", "event",
    "Event", "records", "Messages", "messages", "messageText", "MessageText", "events", "uris",
)  # fmt: skip
#: Azure's name of an object (Event Grid, "Azure Blob Storage as Event Grid source").
_AZURE = re.compile(r"/?blobServices/default/containers/([^/]+)/blobs/(.+)", re.DOTALL)
_VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"
#: Words of events that ask whether anybody listens; Backblaze B2's is the second.
_TRIALS = (_VALIDATION, "b2:TestEvent")

_Body = Mapping[str, object]


class UnknownFormatError(DefinitionError):
    """A notification of a form that nobody has taught us."""


def detect(
    payload: object, *, directory: str = "", base: str = "", unread: list[str] | None = None
) -> list[Notification]:
    """Read a notification of any known form; one that is about something else than objects gives an empty list.

    Known are S3 event records of any store, one or many; EventBridge, also with CloudTrail's records; MinIO's stream,
    and its messages without records; SeaweedFS; dCache; Tencent COS; CloudEvents around any of these; Google Cloud
    Storage; Oracle; Azure Event Grid; IBM; Cloudflare R2; attributes of NiFi's flow files; ``{"bucket", "key"}``,
    ``{"bucket", "keys"}`` and ``{"uri"}``; lists of these; and what queues, streams and functions wrap around them.

    :param payload: JSON text or what it parses to.
    :param directory: watched directory, for the two dCache formats; empty means they are not expected.
    :param base: what comes before it in dCache's namespace, see :func:`.from_dcache_kafka`.
    :param unread: gets one sentence for each part that could not be read while others could.
    :raises DefinitionError: if the text is not JSON.
    :raises UnknownFormatError: if the form is not known, of none of its parts.
    """
    if isinstance(payload, (str, bytes)):
        parse(payload)  # says what is wrong with it
        payload = parse_json(payload)
    reader = _Reader(directory, base)
    found = reader.read(payload, 0)
    if found is None or (reader.unread and not found):
        raise UnknownFormatError(reader.unread[0] if reader.unread else _unknown(payload))
    if unread is not None:
        unread += reader.unread
    return found


def validation_code(payload: object) -> str:
    """Return what Azure Event Grid wants to hear before it delivers anything; empty for any other payload.

    Source: Azure, "Endpoint validation with Event Grid event schema".

    :param payload: JSON text or what it parses to.
    """
    if isinstance(payload, (str, bytes)):
        payload = parse_json(payload)
    first = payload[0] if isinstance(payload, list) and payload else payload
    if not isinstance(first, Mapping) or first.get("eventType") != _VALIDATION:
        return ""
    return get_text(mapping(first, "data"), "validationCode")[:200]


def _unknown(body: object) -> str:
    names = f"the fields {', '.join(quoted(name) for name in list(body)[:12])}" if isinstance(body, Mapping) else body
    return (
        f"the notification has no form that is known: {names if isinstance(names, str) else quoted(names)}; "
        "let the sender post S3 event records, CloudEvents, {'bucket', 'key'} or {'uri'}, or map its fields"
    )


@dataclass
class _Reader:
    """Reads one payload; its methods return None for a form that is not known."""

    directory: str
    base: str = ""
    unread: list[str] = field(default_factory=list)

    def read(self, body: object, depth: int) -> list[Notification] | None:
        if depth > _DEEPEST:
            return None
        if isinstance(body, list):
            return self._each(body, depth)
        if isinstance(body, str):
            written = decode_json(body)  # JSON in JSON, as a library writes it that is given a text
            if isinstance(written, (Mapping, list)):
                return self.read(written, depth + 1)
            body = {"uri": body} if "://" in body else body
        return self._known(body, depth) if isinstance(body, Mapping) else None

    def _each(self, bodies: list[object], depth: int) -> list[Notification] | None:
        if len(bodies) > MOST_DOCUMENTS:
            raise DefinitionError(f"{len(bodies)} notifications in one list; expected at most {MOST_DOCUMENTS}")
        read = [self.read(each, depth + 1) for each in bodies]
        self.unread += [_unknown(body) for body, found in zip(bodies, read, strict=True) if found is None]
        return [each for found in read for each in found or ()] if any(found is not None for found in read) else None

    def _known(self, body: _Body, depth: int) -> list[Notification] | None:
        if body.get("Type") in _SAID_BY_SNS and "Records" not in body:
            return [] if "Confirmation" in str(body["Type"]) else self._content(body.get("Message"), depth)
        if "specversion" in body or "cloudEventsVersion" in body:
            return self._cloud_event(body, depth)
        message = mapping(body, "message")
        if message and ("subscription" in body or get_text(mapping(message, "attributes"), "bucketId")):
            return self._pub_sub(message, depth)
        if get_text(mapping(body, "attributes"), "bucketId"):  # without what Pub/Sub wraps around it when it pushes
            return self._pub_sub(body, depth)
        if body.get("Event") == "s3:TestEvent" or body.get("eventType") in _TRIALS:
            return []
        if "subscription" in body and "event" in body:
            return from_dcache_sse(body, directory=self.directory) if self.directory else []
        if "msgType" in body:
            return from_dcache_kafka(body, directory=self.directory, base=self.base) if self.directory else []
        if "Records" in body:
            return self._records(body, depth)
        return self._shaped(body, depth)

    def _shaped(self, body: _Body, depth: int) -> list[Notification] | None:
        if record_body(body):
            return self._record(body, {}, depth)
        if "detail-type" in body and mapping(mapping(body, "detail"), "bucket"):
            return self._checked_event(from_eventbridge(body), get_text(body, "detail-type"))
        if "event_type" in body and not {"new_entry", "old_entry"}.isdisjoint(mapping(body, "message")):
            return from_seaweedfs(body)
        found = _from_azure(body)
        try:
            found = from_plain(body) if found is None else found
        except DefinitionError as error:
            self.unread.append(str(error))
        return self._wrapped(body, depth) if found is None else found

    def _records(self, body: _Body, depth: int) -> list[Notification] | None:
        records = body["Records"]
        if not records and (records is None or isinstance(records, list)):
            return []  # a sign of life
        if not isinstance(records, list):
            return None
        read = [self._record(each, body, depth) if isinstance(each, Mapping) else None for each in records]
        self.unread += [_unknown(record) for record, found in zip(records, read, strict=True) if found is None]
        return [each for found in read for each in found or ()]

    def _record(self, record: _Body, around: _Body, depth: int) -> list[Notification] | None:
        """Read one S3 event record by the words of its own sender, or what a queue made a record of."""
        if mapping(record, "cos"):
            event = get_text(mapping(record, "event"), "eventName").removeprefix("cos:")
            found = from_tencent_cos(record)
            return None if found is None else self._checked_event(found, event)
        if not record_body(record):
            return self._shaped(record, depth)
        read: Callable[[Payload], list[Notification]] = from_s3_records
        source = record.get("eventSource", "aws:s3")
        if source == "minio:s3":
            read = from_minio_webhook if "Key" in around or "EventName" in around else _from_minio
        elif isinstance(source, str):
            read = {"aws:s3": from_aws_s3, "ceph:s3": from_ceph}.get(source, from_s3_records)
        return self._checked_event(read({"Records": [record]}), get_text(record, "eventName"))

    def _checked_event(self, found: list[Notification], event: str) -> list[Notification]:
        if any(each.reason is None for each in found) and not is_known_event(event):
            self.unread.append(f"the event {quoted(event)} of a notification is not known, and is taken for no object")
        return found

    def _wrapped(self, body: _Body, depth: int) -> list[Notification] | None:
        """Read what an envelope carries, whatever the envelope is called."""
        for name in _CONTENTS:
            if name in body and (found := self._content(body[name], depth)) is not None:
                return found
        if found := from_bucket_and_key(body):
            return found
        others = [value for name, value in body.items() if name not in _CONTENTS and isinstance(value, (Mapping, list))]
        read = [found for value in others if (found := self._content(value, depth)) is not None]
        return [each for found in read for each in found] if read else None

    def _content(self, value: object, depth: int) -> list[Notification] | None:
        if isinstance(value, str):
            value = decode_json(value)
        if not isinstance(value, (Mapping, list, str)):
            return None
        before = len(self.unread)
        found = self.read(value, depth + 1)
        if found is None:
            del self.unread[before:]
        return found

    def _cloud_event(self, body: _Body, depth: int) -> list[Notification] | None:
        """Read a CloudEvent in structured mode (CloudEvents 1.0, JSON format)."""
        kind = get_text(body, "type") or get_text(body, "eventType")
        found = _from_azure(body)
        if found is None:
            data = body.get("data_base64") if isinstance(body.get("data_base64"), str) else body.get("data")
            found = self._content(data, depth)
        if found is None:
            found = _from_subject(body, kind)
        return found and [replace(each, reason=None) if is_not_new(kind) else each for each in found]

    def _pub_sub(self, message: _Body, depth: int) -> list[Notification] | None:
        """Read a message of Google Pub/Sub (Cloud Storage, "Pub/Sub notifications": attributes and payload)."""
        attributes = mapping(message, "attributes")
        container, key = get_text(attributes, "bucketId"), get_text(attributes, "objectId")
        if not container or not key:
            return self._content(message.get("data"), depth)
        word = get_text(attributes, "eventType")
        item = decode_json(get_text(message, "data"))
        item = item if isinstance(item, Mapping) else {}
        return [
            Notification(
                source_format=NotificationFormat.GOOGLE,
                container=container,
                key=key,
                size=number_of_bytes(item),
                etag=get_etag(item),
                event_time=parse_time(attributes.get("eventTime")),
                reason=Reason.CREATED if word in ("OBJECT_FINALIZE", "") else None,
            )
        ]


def _from_minio(body: Payload) -> list[Notification]:
    """Read records of MinIO that came without its envelope: raw from its stream, encoded from its other targets."""
    return [replace(each, other_key=other_reading(each.key)) for each in from_minio_listen(body)]


def _from_azure(body: _Body) -> list[Notification] | None:
    """Read Azure's event of a blob, in its own schema or as a CloudEvent; both name it in ``subject``."""
    named = _AZURE.fullmatch(get_text(body, "subject"))
    if named is None:
        return None
    data = mapping(body, "data")
    key = unquote(named[2], errors="surrogateescape")
    return [
        Notification(
            source_format=NotificationFormat.AZURE,
            container=named[1],
            key=key,
            size=get_size(data, "contentLength"),
            etag=get_etag(data),
            event_time=parse_time(body.get("eventTime") or body.get("time")),
            reason=told_reason(first_text(body, "eventType", "type")),
            other_key=named[2] if named[2] != key else "",
        )
    ]


def _from_subject(body: _Body, kind: str) -> list[Notification] | None:
    """Read a CloudEvent that names its object by source and subject alone."""
    bucket = re.split("[/:]", get_text(body, "source").rstrip("/"))[-1]
    key = get_text(body, "subject").removeprefix("objects/")
    if not bucket or not key or "object" not in kind.lower():
        return None
    return [
        Notification(
            source_format=NotificationFormat.PLAIN,
            container=bucket,
            key=key,
            event_time=parse_time(body.get("time")),
            reason=Reason.CREATED,
        )
    ]
