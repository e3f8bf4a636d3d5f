# SPDX-License-Identifier: Apache-2.0
"""Inputs the fuzzer starts from: one or two of each format that are right."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.oscar_events import to_dcache_event, to_minio_event
from airflow_provider_oscar.core.staging import Checksum, StageIn, StageOutS3Post
from airflow_provider_oscar.core.stored import to_stored
from airflow_provider_oscar.jobs.spec import JOB_VERSION, JobSpec
from airflow_provider_oscar.watch.state_shapes import pack
from airflow_provider_oscar.watch.strategies import CursorState, SnapshotState, TimestampState, fingerprint
from tests.fuzz import answer_seeds

_EVENT = ObjectEvent(
    source=StoreType.S3, conn_id="c", container="b", key="in/a b.h5", size=3, etag="e", version_id="",
    modified=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)  # fmt: skip
_LISTED = (
    b"<Contents><Key>in/a%20b+c</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
    b"<Size>3</Size></Contents>"
)
_RESPONSE = (
    b"<D:response><D:href>/base/a%20b</D:href><D:propstat><D:prop><D:resourcetype/><D:getcontentlength>3"
    b"</D:getcontentlength><D:getlastmodified>Fri, 02 Jan 2026 03:04:05 GMT</D:getlastmodified><D:getetag>&quot;e&quot;"
    b"</D:getetag></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
)
_INOTIFY = {"event": {"name": "a", "mask": ["IN_CLOSE_WRITE"]}, "subscription": "https://door/api/v1/x"}
_MANIFESTS = Path(__file__).parents[1] / "support" / "manifest_cases"

#: Right documents, of which the fuzzer changes parts.
DOCUMENTS: dict[str, list[Any]] = {
    "notification": [
        to_minio_event(_EVENT),
        to_dcache_event(_EVENT),
        {"Type": "Notification", "Message": json.dumps(to_minio_event(_EVENT))},
        {
            "detail-type": "Object Created",
            "time": "2026-01-02T03:04:05Z",
            "detail": {
                "bucket": {"name": "b"},
                "object": {"key": "a", "size": 3, "etag": "e", "sequencer": "0A", "version-id": "v"},
            },
        },
        {
            "key": "/buckets/b/a",
            "event_type": "create",
            "message": {"newEntry": {"name": "a", "attributes": {"mtime": 1, "fileSize": 3, "md5": "MDE="}}},
        },
        {
            "specversion": "1.0",
            "type": "com.amazonaws.s3.ObjectCreated:Put",
            "source": "aws:s3.r.b",
            "subject": "a",
            "id": "i",
            "time": "2026-01-02T03:04:05Z",
            "data": {"s3": {"bucket": {"name": "b"}, "object": {"key": "a", "size": 3, "eTag": "e"}}},
        },
        {
            "msgType": "transfer",
            "date": "2026-01-02T03:04:05Z",
            "billingPath": "/watched/a",
            "fileSize": 3,
            "isWrite": "write",
            "status": {"code": 0, "msg": ""},
        },
    ],
    "manifest": [json.loads(path.read_text())["manifest"] for path in sorted(_MANIFESTS.glob("*.json"))],
    "job": [
        json.loads(
            JobSpec(
                version=JOB_VERSION,
                submission_id="t-0123456789abcdef",
                placement="hpc-cpu",
                submitted_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
                input=StageIn(
                    uri="s3://in/a",
                    name="a",
                    size=3,
                    etag="e",
                    checksum=Checksum("adler32", "0000abcd"),
                    url="https://s3/in/a",
                    headers={},
                    event={"Records": []},
                ),
                output=StageOutS3Post(uri="s3://out/p/t/", url="https://s3/out", fields={"policy": "p"}, prefix="p/t/"),
                command=("run", "it"),
                environment={"A": "b"},
                timeout=60.0,
                max_output_bytes=10,
            ).to_json()
        )
    ],
    "object-event": [_EVENT.to_dict()],
    "watermark": [
        [to_stored(state.header()), pack([fingerprint(_EVENT)])]
        for state in (SnapshotState(), TimestampState(watermark=_EVENT.modified), CursorState(start_after="k"))
    ],
}

SEEDS: dict[str, list[bytes]] = {
    "s3-listing": [
        b"\x07<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
        + _LISTED * 3
        + b"<EncodingType>url</EncodingType><CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes></ListBucketResult>"
    ],
    "propfind": [b'\x07<D:multistatus xmlns:D="DAV:">' + _RESPONSE * 3 + b"</D:multistatus>"],
    "sse": [
        b"\x05id: 7\nevent: inotify\ndata: " + json.dumps(_INOTIFY).encode() + b"\n\n: comment\r\n\r\n",
        b'\x03event: SYSTEM\ndata: {"type": "EVENT_LOSS"}\n\ndata\ndata:x\rdata: y\r\r',
    ],
    **{name: [json.dumps(each).encode() for each in documents] for name, documents in DOCUMENTS.items()},
    "log-lines": [b"a\tb\r\x1b[31mc\n\x00\xff run-x.out does not exist yet\nreal\t0m1.0s\n"],
    **answer_seeds.SEEDS,
}
