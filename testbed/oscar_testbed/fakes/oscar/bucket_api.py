# SPDX-License-Identifier: Apache-2.0
"""The part of OSCAR's REST API that is about buckets, and the JSON answers of all parts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse as PlainJSONResponse
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oscar_testbed.fakes.oscar.buckets import NO_REQUEST, Buckets, refused_name
from oscar_testbed.fakes.oscar.definitions import decoded
from oscar_testbed.faults import OscarFaults

#: What is said of a bucket that the administrator made.
_BUCKET: dict[str, Any] = {
    "visibility": "",
    "allowed_users": None,
    "owner": "oscar",
    "storage_quota": {"source": "unset"},
    "storage_usage": {"used": "0", "used_bytes": 0},
    "attribution": "partial",
}
_NAMED = {"owner_name": "oscar"}
_NO_NAME = (
    "error creating bucket : InvalidParameter: 1 validation error(s) found.\n"
    "- minimum field size of 1, CreateBucketInput.Bucket.\n"
)


class JSONResponse(PlainJSONResponse):
    """JSON under the name that OSCAR's server has for it."""

    media_type = "application/json; charset=utf-8"


class BucketApi:
    """Endpoints below ``/system/buckets``."""

    def __init__(self, storage: Buckets, faults: OscarFaults) -> None:
        self._buckets = storage
        self._faults = faults

    def routes(self) -> list[Route]:
        """Where they are."""
        every, one = "/system/buckets", "/system/buckets/{name}"
        return [
            Route(every, self.list_buckets),
            Route(every, self.create_bucket, methods=["POST"]),
            Route(every, self.update_bucket, methods=["PUT"]),
            Route(one, self.read_bucket),
            Route(one, self.delete_bucket, methods=["DELETE"]),
            Route(f"{one}/presign", self.presign, methods=["POST"]),
        ]

    async def list_buckets(self, _: Request) -> Response:
        """An array, or ``null`` when there is none."""
        names = await asyncio.to_thread(self._buckets.names)
        return JSONResponse([{**_BUCKET, "bucket_name": name, "metadata": _NAMED} for name in names] or None)

    async def create_bucket(self, request: Request) -> Response:
        """201 and nothing else."""
        body = decoded(await request.body(), "Bucket")
        name = str(body.get("bucket_name", "")).strip().strip("/") if isinstance(body, dict) else ""
        bucket, _, folder = name.partition("/")
        present = await asyncio.to_thread(self._buckets.names)
        why = f'the bucket "{bucket}" already exists\n' if bucket in present else refused_name(bucket)
        if why := why if bucket else _NO_NAME:
            return PlainTextResponse(f"Error creating bucket with name '{bucket}': {why}", 400)
        await asyncio.to_thread(self._buckets.create, bucket, [folder])
        return Response(status_code=201)

    async def update_bucket(self, request: Request) -> Response:
        """204; the administrator's buckets have no policies to change."""
        body = decoded(await request.body(), "Bucket")
        name = str(body.get("bucket_name", "")).strip("/") if isinstance(body, dict) else ""
        if name not in await asyncio.to_thread(self._buckets.names):
            return PlainTextResponse("Missing bucket metadata: \n", 500)
        return Response(status_code=204)

    async def read_bucket(self, request: Request) -> Response:
        """Contents; 500 for a bucket that is not there."""
        name = request.path_params["name"]
        if name not in await asyncio.to_thread(self._buckets.names):
            why = "NoSuchBucket: The specified bucket does not exist"
            return PlainTextResponse(f"Error listing objects in bucket '{name}': {why}{NO_REQUEST}", 500)
        after = request.query_params.get("page", "")
        objects, following = await asyncio.to_thread(self._buckets.contents, name, self._faults.page_size, after)
        found = {**_BUCKET, "bucket_name": name, "metadata": {**_NAMED, "owner": "oscar"}}
        found |= {"is_truncated": bool(following), "returned_items": len(objects)}
        optional = {"objects": objects, "next_page": following}
        return JSONResponse(found | {key: value for key, value in optional.items() if value})

    async def delete_bucket(self, request: Request) -> Response:
        """204; empties the bucket first."""
        name = request.path_params["name"]
        if name not in await asyncio.to_thread(self._buckets.names):
            return PlainTextResponse(f"The bucket '{name}' does not exist", 404)
        await asyncio.to_thread(self._buckets.remove, name)
        return Response(status_code=204)

    async def presign(self, request: Request) -> Response:
        """A URL for one upload or download."""
        name, body = request.path_params["name"], decoded(await request.body(), "Presign request")
        operation, key = str(body.get("operation") or "").strip().lower(), str(body.get("object_key") or "").strip(" /")
        seconds = body.get("expires_in") or 900
        if not key:
            return PlainTextResponse("Object key cannot be empty", 400)
        if operation not in {"upload", "download"}:
            why = f"Unsupported operation '{body.get('operation')}'. Allowed values are 'upload' or 'download'"
            return PlainTextResponse(why, 400)
        if not isinstance(seconds, int) or not 1 <= seconds <= 604_800:
            why = f"Invalid expiration requested: {seconds}. Allowed range is 1-604800 seconds"
            return PlainTextResponse(why, 400)
        if name not in await asyncio.to_thread(self._buckets.names):
            return PlainTextResponse(f"Bucket '{name}' not found", 404)
        url = await asyncio.to_thread(self._buckets.presign, name, key, operation, seconds)
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        return JSONResponse(
            {
                "object_key": key,
                "operation": operation,
                "method": "PUT" if operation == "upload" else "GET",
                "url": url,
                "expires_at": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )
