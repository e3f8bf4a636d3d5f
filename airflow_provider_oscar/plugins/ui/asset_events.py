# SPDX-License-Identifier: Apache-2.0
"""What the page shows of an asset event; pure. Anybody can post one, so nothing is expected of its extra."""

from __future__ import annotations

from airflow_provider_oscar.plugins.ui.views import JsonObject, as_mapping, as_text


def event_object(extra: object) -> str:
    """Return what an asset event is about: the object's URI or key, if its payload names one."""
    payload = _payload(extra)
    container, key = as_text(payload.get("container")), as_text(payload.get("key"))
    if as_text(payload.get("uri")):
        return as_text(payload.get("uri"))
    return f"{container.rstrip('/')}/{key}" if container and key else key


def event_key(extra: object) -> str:
    """Return the partition key of the runs that `each()` makes for an asset event, if its payload is a whole object."""
    return as_text(_payload(extra).get("partition_key"))


def _payload(extra: object) -> JsonObject:
    body = as_mapping(extra)
    return as_mapping(body.get("payload")) or as_mapping(body.get("object")) or body
