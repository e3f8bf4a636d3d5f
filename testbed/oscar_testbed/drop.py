# SPDX-License-Identifier: Apache-2.0
"""Drops a file into the S3 or dCache of a platform that is up, as the people whose files are watched would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote, unquote, urlsplit

import boto3
import httpx

from oscar_testbed.errors import PlatformError, quoted

_TIMEOUT = 60.0


class _Connection(TypedDict):
    host: str
    login: str
    password: str


def drop(directory: Path, file: Path, uri: str) -> str:
    """Copy a file into a store, and return the URI of what it became.

    :param directory: of the platform, with its ``connections.json``.
    :param file: what to copy.
    :param uri: ``s3://bucket/key`` (a bucket that is missing is made) or ``dcache:///path``; one that ends with ``/``
        takes the file's name.
    :raises PlatformError: if there is no such platform, file or place, or the store refuses.
    """
    place = urlsplit(uri)
    if place.scheme not in ("s3", "dcache") or (place.scheme == "s3" and not place.netloc):
        raise PlatformError(f"cannot put a file at {quoted(uri)}; expected s3://bucket/key or dcache:///path")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise PlatformError(f"cannot read {str(file)!r}: {error.strerror}") from error
    connections = _connections(directory)
    path = unquote(place.path) + (file.name if not place.path or place.path.endswith("/") else "")
    path = f"/{path.lstrip('/')}"
    if place.scheme == "s3":
        _into_s3(connections["oscar_s3_default"], place.netloc, path[1:], data)
        return f"s3://{place.netloc}{quote(path, safe='/~')}"
    _into_dcache(connections["dcache_default"], path, data)
    return f"dcache://dcache_default{quote(path, safe='/~')}"


def _connections(directory: Path) -> Mapping[str, _Connection]:
    path = directory / "connections.json"
    try:
        found: Mapping[str, _Connection] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise PlatformError(
            f"no platform is up in {directory}; start one with `oscar-testbed up`, or name its --directory"
        ) from error
    return found


def _into_s3(connection: _Connection, bucket: str, key: str, data: bytes) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=connection["host"],
        region_name="us-east-1",
        aws_access_key_id=connection["login"],
        aws_secret_access_key=connection["password"],
    )
    try:
        if bucket not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key=key, Body=data)
    except (BotoCoreError, ClientError) as error:
        raise PlatformError(f"the S3 store did not take {quoted(f's3://{bucket}/{key}')}: {error}") from error


def _into_dcache(connection: _Connection, path: str, data: bytes) -> None:
    url = connection["host"].rstrip("/") + quote(path, safe="/~")
    login = (connection["login"], connection["password"])
    try:
        answer = httpx.put(url, content=data, auth=login, timeout=_TIMEOUT, follow_redirects=True)
    except httpx.HTTPError as error:
        raise PlatformError(f"dCache did not take {quoted(path)}: {error}") from error
    if not answer.is_success:
        raise PlatformError(f"dCache did not take {quoted(path)}: {answer.status_code} {answer.reason_phrase}")
