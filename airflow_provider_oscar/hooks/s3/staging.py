# SPDX-License-Identifier: Apache-2.0
"""How a job gets at objects of S3 without a key: presigned URLs and POST policies."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType, split_uri
from airflow_provider_oscar.core.oscar_events import to_minio_event
from airflow_provider_oscar.core.staging import StageIn, StageOutS3Post, safe_name

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

#: SigV4 signatures are good for seven days at most (Amazon S3 API reference, "Authenticating requests").
LONGEST_LIFETIME = timedelta(days=7)
#: A single POST or PUT holds at most 5 GiB.
LARGEST_POST = 5 * 1024**3


def stage_in(hook: OscarS3Hook, event: ObjectEvent, *, lifetime: timedelta) -> StageIn:
    """Do :meth:`.OscarS3Hook.stage_in`."""
    seconds = _seconds(hook, lifetime)
    _require_unchanged(hook, event)
    parameters = {"Bucket": event.container, "Key": event.key}
    if event.version_id:
        parameters["VersionId"] = event.version_id
    with hook.errors(f"presign {quoted(event.key)}", event.container):
        url = hook.client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)
    return StageIn(
        uri=event.uri,
        name=safe_name(event.key),
        size=event.size,
        etag=event.etag,
        checksum=None,
        url=url,
        event=to_minio_event(event),
    )


def reading(hook: OscarS3Hook, bucket: str, key: str, *, lifetime: timedelta) -> tuple[str, dict[str, str]]:
    """Do :meth:`.OscarS3Hook.reading`."""
    seconds, what = _seconds(hook, lifetime), {"Bucket": bucket, "Key": key}
    with hook.errors(f"presign {quoted(key)}", bucket):
        return hook.client.generate_presigned_url("get_object", Params=what, ExpiresIn=seconds), {}


def stage_out(
    hook: OscarS3Hook, uri: str, *, submission_id: str, lifetime: timedelta, max_bytes: int | None = None
) -> StageOutS3Post:
    """Do :meth:`.OscarS3Hook.stage_out`."""
    seconds = _seconds(hook, lifetime)
    bucket, path = s3_path(uri)
    prefix = f"{path.rstrip('/')}/{submission_id}/".lstrip("/")
    largest = min(max_bytes, LARGEST_POST) if max_bytes is not None else LARGEST_POST
    conditions: list[object] = [["starts-with", "$key", prefix], ["content-length-range", 0, largest]]
    with hook.errors(f"presign uploads below {quoted(prefix)}", bucket):
        # boto3 turns a key that ends so into a condition of its own kind; ours above says the same.
        post = hook.client.generate_presigned_post(
            Bucket=bucket, Key=prefix + "${filename}", Conditions=conditions, ExpiresIn=seconds
        )
    fields = {name: value for name, value in post["fields"].items() if name != "key"}
    return StageOutS3Post(
        uri=f"s3://{bucket}/{quote(prefix, safe='/~')}", url=post["url"], fields=fields, prefix=prefix
    )


def s3_path(uri: str) -> tuple[str, str]:
    """Return bucket and key of an ``s3://`` URI.

    :raises DefinitionError: if it is another URI.
    """
    source, bucket, key = split_uri(uri)
    if source is not StoreType.S3:
        raise DefinitionError(f"{uri!r} is not an S3 URI; expected s3://bucket/key")
    return bucket, key


def _require_unchanged(hook: OscarS3Hook, event: ObjectEvent) -> None:
    if event.source is not StoreType.S3:
        raise DefinitionError(f"{event.uri!r} is not an S3 object; use the hook of its store")
    if event.version_id:
        return
    now = hook.head(event.container, event.key)
    if now is None:
        raise BadInputError(f"{hook.display_name}: {quoted(event.uri)} is gone; it was deleted or moved")
    if event.etag and now.etag and now.etag != event.etag:
        raise BadInputError(
            f"{hook.display_name}: {quoted(event.uri)} was overwritten (ETag {event.etag!r} before, "
            f"{now.etag!r} now); the newer version has an event of its own"
        )


def _seconds(hook: OscarS3Hook, lifetime: timedelta) -> int:
    if not timedelta(0) < lifetime <= LONGEST_LIFETIME:
        raise DefinitionError(
            f"{hook.display_name}: a presigned URL of {lifetime} was asked for; "
            "S3 signatures are good for more than 0 seconds and at most 7 days"
        )
    return max(1, int(lifetime.total_seconds()))
