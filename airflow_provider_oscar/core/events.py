# SPDX-License-Identifier: Apache-2.0
"""What the extra of an asset event says about an object."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent, utf8

_SCHEMES = ("s3://", "dcache://")


def object_in(extra: object) -> ObjectEvent | None:
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


def uri_in(extra: object, *, partition_key: str | None = None) -> str | None:
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
