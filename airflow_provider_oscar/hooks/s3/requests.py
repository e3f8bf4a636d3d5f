# SPDX-License-Identifier: Apache-2.0
"""The two ways to ask for one page of a listing: our own streaming reader, and boto3."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import httpx

from airflow_provider_oscar.core.errors import PermanentError
from airflow_provider_oscar.core.objects import normalised_etag
from airflow_provider_oscar.core.times import read_clock
from airflow_provider_oscar.hooks.http.flows import TRANSPORT_ERRORS
from airflow_provider_oscar.hooks.s3.listing import ListingPage, MakeEvent, NotAListingError, S3ListParser

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2RequestTypeDef

_CHUNK = 64 * 1024
#: Of a listing boto3 returns some of these, whatever is in it.
_LISTING = {"Name", "IsTruncated", "KeyCount", "MaxKeys", "Contents", "CommonPrefixes"}


class StreamFailure(Enum):
    """Why the streaming reader has no page, so that boto3 is asked, which repeats and knows the errors."""

    REFUSED = "refused"
    """The store does not take the presigned request."""
    FAILED = "failed"
    """It could not answer now."""


def stream_page(client: httpx.Client, url: str, make_event: MakeEvent, *, what: str) -> ListingPage | StreamFailure:
    """Return the page behind a presigned ListObjectsV2 URL, read as it arrives.

    :param client: follows no redirects.
    :param url: presigned, with ``encoding-type=url``.
    :param make_event: makes the events.
    :param what: words for messages.
    :raises TransientError: if the answer is cut short.
    :raises PermanentError: if it is not a listing, or passes a bound.
    """
    parser = S3ListParser(make_event, what=what)
    try:
        with client.stream("GET", url) as answer:
            if answer.status_code != 200:
                refused = 400 <= answer.status_code < 500 and answer.status_code != 429
                return StreamFailure.REFUSED if refused else StreamFailure.FAILED
            for chunk in answer.iter_bytes(_CHUNK):
                parser.feed(chunk)
    except TRANSPORT_ERRORS:
        return StreamFailure.FAILED
    except NotAListingError as error:
        if error.root == "Error":  # S3 may find out that it cannot answer after it said 200
            return StreamFailure.FAILED
        raise
    parser.close()
    return parser.page(read_clock(answer.headers.get("date")))


def boto_page(client: S3Client, asked: ListObjectsV2RequestTypeDef, make_event: MakeEvent, *, what: str) -> ListingPage:
    """Return the page that boto3 reads; it asks for the URL encoding itself and decodes it.

    :param client: boto3's.
    :param asked: parameters of ``list_objects_v2``, without ``EncodingType``.
    :param make_event: makes the events.
    :param what: words for messages.
    :raises TransientError: if the answer is not a listing; boto3 takes any XML for an empty one.
    :raises PermanentError: if it says that there is more but gives no token to ask for it.
    """
    answer = client.list_objects_v2(**asked)
    if not answer.keys() & _LISTING:
        raise NotAListingError(f"{what}: the answer is not a ListBucketResult; it is not used")
    events = [
        make_event(item["Key"], item.get("Size"), normalised_etag(item.get("ETag", "")), item["LastModified"])
        for item in answer.get("Contents", [])
        if item.get("Key") and item.get("LastModified") and item["LastModified"].year >= 1970
    ]
    token = answer.get("NextContinuationToken", "") if answer.get("IsTruncated", True) else ""
    if answer.get("IsTruncated") and not token:
        raise PermanentError(f"{what}: the listing is truncated but carries no continuation token")
    prefixes = [item["Prefix"] for item in answer.get("CommonPrefixes", []) if "Prefix" in item]
    server_time = read_clock(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
    entries = len(answer.get("Contents", []))
    skipped = max(entries, answer.get("KeyCount", 0) - len(prefixes)) - len(events)
    return ListingPage(events, prefixes, token, server_time, skipped)
