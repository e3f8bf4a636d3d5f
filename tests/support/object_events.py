# SPDX-License-Identifier: Apache-2.0
"""Objects as a listing might show them, and results as a job tells of them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from airflow_provider_oscar.core.events import describe_outputs
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

#: As MinIO tells OSCAR of an object.
MINIO_EVENT = {
    "Key": "in/a+b%2Fc.txt",
    "Records": [
        {
            "eventSource": "minio:s3",
            "eventTime": "2026-01-02T03:04:05Z",
            "s3": {"bucket": {"name": "in", "arn": "arn:aws:s3:::in"}, "object": {"key": "a+b%2Fc.txt"}},
        }
    ],
}


def made(key: str, *, second: int = 0, size: int = 1, container: str = "bucket") -> ObjectEvent:
    """An object that a listing might show."""
    return ObjectEvent(
        source=StoreType.S3,
        conn_id="store",
        container=container,
        key=key,
        size=size,
        etag=f"etag-{key}-{second}",
        version_id="",
        modified=NOON + timedelta(seconds=second),
    )


def result(output_uri: str, *names: str, job_id: str = "job", content: str = "1") -> dict[str, object]:
    """What the event of a job operator's outlet says of its files."""
    outputs = [(name, hashlib.sha256(f"{name}{content}".encode()).hexdigest()) for name in names]
    return {"job_id": f"{job_id}-{output_uri}", "objects": describe_outputs(output_uri, "store", outputs)}
