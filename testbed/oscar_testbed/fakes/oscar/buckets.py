# SPDX-License-Identifier: Apache-2.0
"""Buckets as the OSCAR API manages them, on whatever S3 store the platform runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Protocol

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
#: What a store takes for an address, or for an empty part of a domain (``CheckValidBucketName`` of minio-go).
_NO_NAME = re.compile(r"\d+(\.\d+){3}|.*(\.\.|\.-|-\.).*")
#: How the store's own complaints end; there is no request to name.
NO_REQUEST = "\n\tstatus code: 400, request id: 0, host id: 0"


def refused_name(name: str) -> str:
    """What OSCAR says of a name that no bucket may have; empty for any other."""
    if _NAME.fullmatch(name) and not _NO_NAME.fullmatch(name):
        return ""
    return f"error creating bucket {name}: InvalidBucketName: The specified bucket is not valid.{NO_REQUEST}"


class S3Store(Protocol):
    """What is needed of the platform's S3."""

    @property
    def endpoint(self) -> str:
        """Endpoint URL."""

    access_key: str
    secret_key: str
    region: str

    def client(self, **settings: Any) -> Any:
        """A boto3 client."""


class Buckets:
    """Create, list, empty and remove buckets."""

    def __init__(self, store: S3Store) -> None:
        self.store = store

    def names(self) -> list[str]:
        """Names of all buckets."""
        return [one["Name"] for one in self.store.client().list_buckets().get("Buckets", [])]

    def create(self, name: str, folders: Iterable[str] = ()) -> None:
        """Create a bucket unless it is there, with empty objects that stand for folders."""
        client = self.store.client()
        if name not in self.names():
            client.create_bucket(Bucket=name)
        for folder in folders:
            if folder:
                client.put_object(Bucket=name, Key=f"{folder.strip('/')}/", Body=b"")

    def remove(self, name: str) -> None:
        """Remove a bucket with everything in it; an absent one is not an error."""
        if name not in self.names():
            return
        client = self.store.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            for one in page.get("Contents", []):
                client.delete_object(Bucket=name, Key=one["Key"])
        client.delete_bucket(Bucket=name)

    def below(self, name: str, prefix: str) -> dict[str, tuple[str, int]]:
        """Entity tag and size of every object below a prefix, by key."""
        pages = self.store.client().get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix)
        return {one["Key"]: (one["ETag"].strip('"'), one["Size"]) for page in pages for one in page.get("Contents", [])}

    def contents(self, name: str, limit: int, page: str = "") -> tuple[list[dict[str, Any]], str]:
        """Some objects of a bucket in the API's shape, and the store's word for the next page."""
        further = {"ContinuationToken": page} if page else {}
        answer = self.store.client().list_objects_v2(Bucket=name, MaxKeys=limit, **further)
        return [
            {
                "object_name": one["Key"],
                "size_bytes": one["Size"],
                "last_modified": one["LastModified"].strftime("%Y-%m-%d %H:%M:%S +0000 UTC"),
            }
            for one in answer.get("Contents", [])
        ], str(answer.get("NextContinuationToken") or "")

    def presign(self, name: str, key: str, operation: str, seconds: int) -> str:
        """URL for one upload or download."""
        method = "put_object" if operation == "upload" else "get_object"
        url = self.store.client().generate_presigned_url(method, Params={"Bucket": name, "Key": key}, ExpiresIn=seconds)
        return str(url)
