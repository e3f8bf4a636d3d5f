# SPDX-License-Identifier: Apache-2.0
"""Joins objects that lie in the store into one, within the store: a multipart upload whose parts are copied.

A job cannot open a multipart upload itself, since its capability is a POST policy; it leaves the parts of a large file
as objects. https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from airflow_provider_oscar.core.errors import LostContactError, OscarProviderError, quoted

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

log = logging.getLogger(__name__)

#: Copies within the store at a time.
COPIES = 8
#: Objects of one DeleteObjects request.
_BATCH = 1000


def join_objects(hook: OscarS3Hook, bucket: str, key: str, parts: Sequence[str], *, size: int, etag: str = "") -> None:
    """Make one object of several; one that was joined before is left as it is.

    :param hook: of the store.
    :param bucket: bucket of all of them.
    :param key: of the object to make.
    :param parts: keys, in order; each but the last of at least 5 MiB.
    :param size: bytes of the whole.
    :param etag: composite of the parts' tags, if that is known; see :func:`composite_tag`.
    :raises LostContactError: if parts are missing, or what was joined is not what the job sent.
    :raises TransientError: if the store cannot be reached.
    """
    display_name = f"{hook.display_name}: {quoted(key)} in bucket {bucket!r}"
    with ThreadPoolExecutor(COPIES, thread_name_prefix="s3-join") as pool:
        found = list(pool.map(lambda part: hook.head(bucket, part), parts))
    there = [each for each in found if each is not None]
    if len(there) < len(parts):
        whole = hook.head(bucket, key)
        if whole is not None and whole.size == size:
            return  # joined before, and the parts are removed already
        raise LostContactError(
            f"{display_name}: {len(parts) - len(there)} of its {len(parts)} parts are not there any more"
        )
    tags = [each.etag for each in there]
    # The supervisor compared each with what it sent; what is copied below is what has these tags.
    if sum(each.size or 0 for each in there) != size or (etag and composite_tag(tags) != etag):
        raise LostContactError(
            f"{display_name}: its parts are not those the job sent; somebody wrote to the output prefix"
        )
    _copy(hook, bucket, key, parts, tags)
    now = hook.head(bucket, key)
    if now is None or now.size != size:
        raise LostContactError(
            f"{display_name} was joined of {len(parts)} parts and has not the {size} bytes of the whole"
        )
    log.info("%s was joined of %d parts, %d bytes", display_name, len(parts), size)


def composite_tag(tags: Sequence[str]) -> str:
    """Return the tag Amazon gives an object of parts: the MD5 of their MD5 sums, and their number.

    Not what each store gives it (SeaweedFS copies chunks, and tags a copied part by them), so it says which parts were
    sent, and not what became of them. Empty if a tag is not an MD5 sum.
    """
    try:
        sums = b"".join(bytes.fromhex(tag) for tag in tags)
    except ValueError:
        return ""
    return f"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(tags)}"


def delete_below(hook: OscarS3Hook, bucket: str, prefix: str) -> int:
    """Delete every object below a prefix and return how many there were.

    :param hook: of the store.
    :param bucket: the bucket.
    :param prefix: not empty; ends in a slash.
    """
    return sum(
        delete_objects(hook, bucket, [each.key for each in page.events]) for page in hook.list_pages(bucket, prefix)
    )


def delete_objects(hook: OscarS3Hook, bucket: str, keys: Sequence[str]) -> int:
    """Delete objects and return how many; it is not an error if one is not there.

    :param hook: of the store.
    :param bucket: the bucket.
    :param keys: of the objects.
    """
    for start in range(0, len(keys), _BATCH):
        batch = keys[start : start + _BATCH]
        with hook.errors(f"delete {len(batch)} objects such as {quoted(batch[0])}", bucket):
            answer = hook.client.delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": each} for each in batch], "Quiet": True}
            )
            for refused in answer.get("Errors", [])[:1]:
                code, message = str(refused.get("Code", "")), str(refused.get("Message", ""))
                raise ClientError({"Error": {"Code": code, "Message": message}}, "DeleteObjects")
    return len(keys)


def _copy(hook: OscarS3Hook, bucket: str, key: str, parts: Sequence[str], tags: Sequence[str]) -> None:
    """Join the parts that have these tags; nothing is left of an upload that fails."""
    client = hook.client
    with hook.errors(f"begin the upload of {quoted(key)}", bucket):
        upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]

    def copy(number: int) -> CompletedPartTypeDef:
        with hook.errors(f"copy part {number} of {quoted(key)}", bucket):
            answer = client.upload_part_copy(
                Bucket=bucket,
                Key=key,
                UploadId=upload,
                PartNumber=number,
                CopySource={"Bucket": bucket, "Key": parts[number - 1]},
                CopySourceIfMatch=tags[number - 1],
            )
        return {"ETag": answer["CopyPartResult"].get("ETag", ""), "PartNumber": number}

    try:
        with ThreadPoolExecutor(COPIES, thread_name_prefix="s3-join") as pool:
            done = list(pool.map(copy, range(1, len(parts) + 1)))
        with hook.errors(f"join the parts of {quoted(key)}", bucket):
            client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": done})
    except OscarProviderError:
        try:
            with hook.errors(f"break off the upload of {quoted(key)}", bucket):
                client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
        except OscarProviderError as error:
            log.warning("The upload %s of %s is left unfinished: %s", quoted(upload), quoted(key), error)
        raise
