# SPDX-License-Identifier: Apache-2.0
"""A job as the builder makes it, for a store that remembers what it was asked."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.staging import StageIn, StageOutS3Post
from airflow_provider_oscar.jobs.options import RunOptions
from tests.support.http_store import Store

JOB = "t-0123456789abcdef"
MOMENT = datetime(2026, 11, 22, 9, tzinfo=UTC)

_S3 = {"conn_type": "oscar_s3", "login": "AK", "password": "hush", "extra": {"endpoint_url": "http://minio:9000"}}
_DCACHE = {"conn_type": "dcache", "host": "https://door:2880", "login": "u", "password": "hush"}
#: Connections of a job that OSCAR's own supervisor runs, as environment variables.
CONNECTIONS = {
    f"AIRFLOW_CONN_{name}": json.dumps(fields)
    for name, fields in {"IN": _S3, "OUT": _S3, "DOOR": _DCACHE, "PLAIN": {**_DCACHE, "host": "http://door"}}.items()
}


class FakeStore:
    """A store that hands out URLs of the HTTP server and remembers what it was asked."""

    def __init__(self, server: Store | None = None) -> None:
        self.server = server
        self.asked: list[tuple] = []
        self.files: dict[str, bytes] = {}

    def stage_in(self, event, *, lifetime):
        self.asked.append(("stage_in", event.uri, lifetime))
        self.server.objects["/in/x"] = b"data"
        return StageIn(
            uri=event.uri, name="x.h5", size=4, etag="", checksum=None, url=f"{self.server.url}/in/x?sig=secret"
        )

    def stage_out(self, uri, *, submission_id, lifetime, max_bytes=None):
        self.asked.append(("stage_out", uri, submission_id, lifetime, max_bytes))
        url = f"{self.server.url}/out" if self.server else "http://store/out"
        prefix = f"p/{submission_id}/"
        return StageOutS3Post(uri=f"{uri.rstrip('/')}/{submission_id}/", url=url, fields={"k": "secret"}, prefix=prefix)

    def reading(self, container, key, *, lifetime):
        return f"{self.server.url if self.server else 'http://store'}/{container}/{key}?sig=secret", {}

    def put_bytes(self, container, key, data):
        self.files[f"s3://{container}/{key}"] = data

    def delete(self, container, key):
        self.files.pop(f"s3://{container}/{key}", None)

    def read_bytes(self, uri, limit):
        self.asked.append(("read_bytes", uri, limit))
        return self.files.get(uri)


def event(source=StoreType.S3, conn_id="in", container="inbox", key="a b.h5"):
    return ObjectEvent(source, conn_id, container, key, 4, "e", "", MOMENT)


def build(hook, command=("/bin/sh", "-c", 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/copy"; exit 0'), **changes):
    known = {
        "submission_id": JOB,
        "event": event(),
        "command": list(command),
        "output_conn_id": "out",
        "output_uri": "s3://out/p",
    }
    mode = changes.pop("mode", None)
    if mode is not None:
        changes["options"] = RunOptions(mode=mode)
    return hook.build(**{**known, **changes})
