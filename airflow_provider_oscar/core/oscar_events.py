# SPDX-License-Identifier: Apache-2.0
"""An :class:`ObjectEvent` as the two notifications that OSCAR and its supervisor read."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus

from airflow_provider_oscar.core.objects import ObjectEvent, Reason, utf8


def to_minio_event(
    event: ObjectEvent, *, principal_id: str = "airflow", source_ip: str = "127.0.0.1"
) -> dict[str, Any]:
    """Return the event as MinIO's webhook would word it, with all fields OSCAR and its supervisor insist on.

    :param event: the object; its provider on the OSCAR side is ``minio.default``.
    :param principal_id: who is to own the job; an OIDC user must give their own subject to see it in their list.
    :param source_ip: address shown in OSCAR's access log.
    """
    time = event.modified.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    item: dict[str, Any] = {"key": quote_plus(utf8(event.key)), "eTag": event.etag, "sequencer": event.id[:16].upper()}
    if event.size is not None:
        item["size"] = event.size
    if event.version_id:
        item["versionId"] = event.version_id
    record = {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "awsRegion": "",
        "eventTime": time,
        "eventName": "s3:ObjectCreated:Put",
        "userIdentity": {"principalId": principal_id},
        "requestParameters": {"principalId": principal_id, "sourceIPAddress": source_ip},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "Config",
            "bucket": {
                "name": event.container,
                "ownerIdentity": {"principalId": principal_id},
                "arn": f"arn:aws:s3:::{event.container}",
            },
            "object": item,
        },
    }
    return {"EventName": "s3:ObjectCreated:Put", "Key": f"{event.container}/{event.key}", "Records": [record]}


def to_dcache_event(event: ObjectEvent, *, subscription: str = "") -> dict[str, object]:
    """Return the event as dCache's stream would word it.

    OSCAR's supervisor looks for the name below the path of the service's ``webdav.dcache`` input.

    :param event: the object.
    :param subscription: URL of the subscription; the supervisor wants the field and ignores its text.
    """
    mask = "IN_MOVED_TO" if event.reason is Reason.MOVED else "IN_CLOSE_WRITE"
    return {"event": {"name": event.key, "mask": [mask]}, "subscription": subscription or event.container}
