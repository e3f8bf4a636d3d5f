# SPDX-License-Identifier: Apache-2.0
"""What the extra of an asset event says about an object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType, split_uri, utf8

_SCHEMES = ("s3://", "dcache://")
#: Objects that one event tells of at most: a run takes no more.
MOST_TOLD = 1000


class ProducedObject(NamedTuple):
    """An object that an event names without saying what version it is.

    :param uri: of the object.
    :param conn_id: connection of an ``s3://`` URI; empty if the event does not say.
    """

    uri: str
    conn_id: str = ""


def parse_object(extra: object) -> ObjectEvent | None:
    """Return the object in an event's extra, or None.

    Watchers write ``payload``, the receiver and our operators ``object``; other producers may write the fields
    themselves.
    """
    if not isinstance(extra, Mapping):
        return None
    for fields in (extra.get("payload"), extra.get("object"), extra):
        if isinstance(fields, Mapping) and "source" in fields:
            try:
                return ObjectEvent.from_dict(fields)
            except DefinitionError:
                continue
    return None


def parse_uri(extra: object, *, partition_key: str | None = None) -> str | None:
    """Return the URI of an object that a producer names without the fields of an :class:`ObjectEvent`, or None.

    That is ``{"uri": "s3://…"}`` or ``{"bucket": …, "key": …}``, or a partition key that is such a URI; what posts to
    Airflow's ``/api/v2/assets/events`` may use any of them.
    """
    fields = extra if isinstance(extra, Mapping) else {}
    uri = fields.get("uri") or fields.get("object_uri")
    if isinstance(uri, str) and uri.startswith(_SCHEMES):
        return uri
    bucket, key = fields.get("bucket"), fields.get("key")
    if isinstance(bucket, str) and isinstance(key, str) and bucket and key:
        return f"s3://{bucket}/{quote(utf8(key), safe='/~')}"
    if partition_key is not None and partition_key.startswith(_SCHEMES):
        return partition_key
    return None


def describe_outputs(output_uri: str, conn_id: str, outputs: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Return what an event says of the files that a job wrote, at most 1000 of them; :func:`parse_outputs` reads it.

    :param output_uri: prefix or directory of the files, with a slash at its end.
    :param conn_id: connection that reaches it.
    :param outputs: name below it and SHA-256 of each file.
    """
    return [
        {"uri": output_uri + quote(utf8(key), safe="/~"), "conn_id": conn_id, "sha256": digest}
        for key, digest in outputs[:MOST_TOLD]
    ]


def parse_outputs(extra: object, *, partition_key: str | None = None) -> list[ProducedObject]:
    """Return the objects that an event names by their URIs: those of a job's result, or a single one.

    :param extra: of the event.
    :param partition_key: of the event; see :func:`parse_uri`.
    """
    fields = extra if isinstance(extra, Mapping) else {}
    listed = fields.get("objects")
    if isinstance(listed, list):
        entries = [each for each in listed[:MOST_TOLD] if isinstance(each, Mapping)]
        found = [(parse_uri(each), str(each.get("conn_id") or "")) for each in entries]
        return [ProducedObject(uri, conn_id) for uri, conn_id in found if uri is not None]
    uri = parse_uri(extra, partition_key=partition_key)
    return [] if uri is None else [ProducedObject(uri, str(fields.get("conn_id") or ""))]


def named_object(uri: str, conn_id: str, when: datetime) -> ObjectEvent | None:
    """Return an object of which only the name is known, or None if the URI cannot be read; nothing tells its version.

    :param uri: of the object.
    :param conn_id: connection of an ``s3://`` URI.
    :param when: it was told of.
    """
    try:
        source, authority, path = split_uri(uri)
    except DefinitionError:
        return None
    container, key = authority, path
    if source is StoreType.DCACHE:
        container, _, key = path.rpartition("/")
        conn_id = authority
    return ObjectEvent(
        source=source, conn_id=conn_id, container=container or "/", key=key, size=None, etag="", version_id="",
        modified=when,
    )  # fmt: skip


def result_key(extra: object) -> str | None:
    """Return what tells the result of a job from other results: the job and the content of its files; or None.

    The same result told twice (a task that was tried again) has the same key, what was computed again another one.
    """
    fields = extra if isinstance(extra, Mapping) else {}
    listed, job = fields.get("objects"), fields.get("job_id")
    if not isinstance(listed, list) or not isinstance(job, str) or not job:
        return None
    digest = hashlib.sha256(json.dumps(listed, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return f"{job[:200]}-{digest}"
