# SPDX-License-Identifier: Apache-2.0
"""Asset URIs: their checks and normal forms (``asset-uris`` of the provider metadata), and functions that make them.

Airflow itself lower-cases the scheme and drops passwords, fragments and trailing slashes before it calls a sanitizer.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import SplitResult, quote, unquote

from airflow.sdk import Asset

#: Amazon S3 user guide, "Bucket naming rules"; capitals and underscores are left to other stores.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
#: Airflow's own rule for connection ids is wider; these are the ones a URI can carry unencoded.
_CONN_ID = re.compile(r"[A-Za-z0-9_.~-]{1,200}")
#: Names of OSCAR services are DNS-1123 labels, since Kubernetes objects are named after them.
_SERVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def sanitize_s3_uri(uri: SplitResult) -> SplitResult:
    """Check ``s3://bucket[/key]``.

    :raises ValueError: if the bucket is missing or no bucket's name, or a query is there.
    """
    if not _BUCKET.fullmatch(uri.netloc) or uri.query:
        raise ValueError(f"{uri.geturl()!r} is not an S3 URI; expected s3://bucket/key without login, port and query")
    return uri._replace(path=_path(uri))


def sanitize_dcache_uri(uri: SplitResult) -> SplitResult:
    """Check ``dcache://conn_id/absolute/path``: dCache paths are unique only within a connection.

    :raises ValueError: if the connection or the path is missing, or the path has ``.`` or ``..`` segments.
    """
    if not _CONN_ID.fullmatch(uri.netloc) or uri.query:
        raise ValueError(f"{uri.geturl()!r} is not a dCache URI; expected dcache://conn_id/path without query")
    return uri._replace(path=_path(uri, clean=True))


def sanitize_oscar_uri(uri: SplitResult) -> SplitResult:
    """Check ``oscar://conn_id/service``.

    :raises ValueError: if the connection or the service is missing or of the wrong form.
    """
    service = uri.path.strip("/")
    if not _CONN_ID.fullmatch(uri.netloc) or not _SERVICE.fullmatch(service) or uri.query:
        raise ValueError(f"{uri.geturl()!r} is not an OSCAR URI; expected oscar://conn_id/service")
    return uri._replace(path=f"/{service}")


def s3_asset(*, bucket: str, key: str = "", **arguments: Any) -> Asset:
    """Return the asset of a bucket, prefix or object.

    :param bucket: name of the bucket.
    :param key: raw key or prefix; it is percent-encoded here.
    """
    return Asset(uri=f"s3://{bucket}/{quote(key, safe='/~')}", **arguments)


def dcache_asset(*, conn_id: str, path: str, **arguments: Any) -> Asset:
    """Return the asset of a directory or file of dCache.

    :param conn_id: connection of type ``dcache``.
    :param path: raw absolute path; it is percent-encoded here.
    """
    return Asset(uri=f"dcache://{conn_id}{quote(path, safe='/~')}", **arguments)


def oscar_asset(*, conn_id: str, service: str, **arguments: Any) -> Asset:
    """Return the asset of an OSCAR service.

    :param conn_id: connection of type ``oscar``.
    :param service: name of the service.
    """
    return Asset(uri=f"oscar://{conn_id}/{service}", **arguments)


def _path(uri: SplitResult, *, clean: bool = False) -> str:
    """Return the path in one spelling: each octet percent-encoded that has to be, and no other."""
    path = unquote(uri.path, errors="strict")
    segments = [segment for segment in path.split("/") if segment]
    if "\0" in path or (clean and any(segment in (".", "..") for segment in segments)):
        raise ValueError(f"{uri.geturl()!r} has a path that cannot be: NUL, '.' or '..'")
    text = "/" + "/".join(segments) if clean else path
    return quote(text, safe="/~") or "/"
