# SPDX-License-Identifier: Apache-2.0
"""What botocore raises, as errors of this provider, sorted by what the caller does next."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from airflow_provider_oscar.core.errors import (
    AccessError,
    BadInputError,
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.hooks.http.errors import error_class, is_page, retry_after
from airflow_provider_oscar.hooks.http.headers import UnsendableHeaderError

#: Beginnings of headers that stores add to their answers; Google's has its own.
_OF_STORES = ("x-amz-", "x-goog-")
_WRONG_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthFailure"}
_DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403"}
_NO_BUCKET = {"NoSuchBucket", "InvalidBucketName"}
_NO_KEY = {"NoSuchKey", "NoSuchVersion", "404", "NotFound"}
#: What boto3 has for a code where the answer has none.
_UNSAID = {"404", "NotFound", ""}
_WRONG_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_LATER = {
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "TooManyRequests",
    "OperationAborted", "ConditionalRequestConflict",
}  # fmt: skip
#: Rights that calls need, as AWS, MinIO and Ceph name them in policies.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
_RIGHTS = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "GetBucketNotificationConfiguration": "s3:GetBucketNotification",
    "GetObject": "s3:GetObject",
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "ListBuckets": "s3:ListAllMyBuckets",
    "ListObjectsV2": "s3:ListBucket",
    "PutBucketNotificationConfiguration": "s3:PutBucketNotification",
    **dict.fromkeys(("CompleteMultipartUpload", "CreateMultipartUpload", "PutObject", "UploadPart"), "s3:PutObject"),
    "UploadPartCopy": "s3:PutObject, or s3:GetObject on what is copied",
}
#: Operations whose answers have no body, so that no code tells whose a 404 is.
_BODILESS = ("HeadObject", "HeadBucket")


def s3_error(error: Exception, *, conn_id: str, endpoint: str, action: str, bucket: str = "") -> OscarProviderError:
    """Return the error of ours for what botocore raised.

    :param error: a ``BotoCoreError`` or ``ClientError``.
    :param conn_id: connection of the store.
    :param endpoint: its URL, for the message.
    :param action: what was attempted, in words, with the key quoted.
    :param bucket: bucket concerned, or empty.
    """
    prefix = f"connection {conn_id!r} ({endpoint or 'Amazon S3'}): cannot {action}"
    if isinstance(error, boto.ClientError):
        return _from_answer(error, prefix=prefix, bucket=bucket)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return DefinitionError(f"{prefix}: there is no access key; set login and password of the connection")
    if isinstance(error, boto.SSLError):
        return DefinitionError(
            f"{prefix}: the server's TLS certificate is not trusted ({quoted(error)}); "
            "set the connection extra 'verify' to the CA file that signed it"
        )
    if isinstance(unsent := getattr(error, "kwargs", {}).get("error"), UnsendableHeaderError):
        return DefinitionError(f"{prefix}: {unsent}")
    if isinstance(error, ResponseParserError):
        return TransientError(f"{prefix}: the answer could not be read ({quoted(error)}); is this an S3 endpoint?")
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError | boto.IncompleteReadError):
        return TransientError(
            f"{prefix}: the endpoint is not reachable ({type(error).__name__}: {quoted(error)}); "
            "check endpoint_url, and that the server runs"
        )
    # What is left is refused before anything is sent: parameters, endpoint and region settings.
    return DefinitionError(f"{prefix}: {type(error).__name__}: {quoted(error)}")


def _from_answer(error: boto.ClientError, *, prefix: str, bucket: str) -> OscarProviderError:
    detail = error.response.get("Error", {})
    code = str(detail.get("Code", ""))
    metadata = error.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0) or 0)
    reply = f"{status} {code}: {quoted(detail.get('Message', ''))}"
    if code in _NO_BUCKET:
        return DefinitionError(f"{prefix}: bucket {bucket!r} does not exist ({reply}); create it or correct the name")
    if status == 404 and code in _UNSAID and error.operation_name not in _BODILESS:
        return TransientError(
            f"{prefix}: what answered {reply} is not an S3 store; a proxy does so while the store is replaced, "
            "or the connection's endpoint is not that of the store"
        )
    if code in _NO_KEY or status == 404:
        return BadInputError(f"{prefix}: there is no such object ({reply})")
    if code in _WRONG_KEY or status == 401:
        return AccessError(f"{prefix}: the access key or secret key is wrong ({reply}); correct login and password")
    if code == "RequestTimeTooSkewed":
        return DefinitionError(
            f"{prefix}: our clock and the store's differ too much ({reply}); synchronise this machine"
        )
    if code in _WRONG_REGION:
        return DefinitionError(f"{prefix}: the bucket is in another region ({reply}); set the extra 'region_name'")
    if code in _DENIED or status == 403:
        return AccessError(
            f"{prefix}: the access key may not do this{f' in bucket {bucket!r}' if bucket else ''} ({reply}); "
            f"{_remedy(error.operation_name)}"
        )
    if code in _LATER or status < 300 or issubclass(error_class(status), TransientError):
        return TransientError(
            f"{prefix}: the store is busy or failing ({reply})", delay=retry_after(metadata.get("HTTPHeaders") or {})
        )
    return PermanentError(f"{prefix}: refused ({reply})")


def _remedy(operation: str) -> str:
    right = _RIGHTS.get(operation)
    if right is None:
        return f"grant it the right that {operation} needs, or use another connection"
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html, "Permissions": so do Amazon and Ceph.
    absent = " (and s3:ListBucket on the bucket, without which stores say 403 of objects that are not there)"
    return f"grant it {right}{absent if right == 's3:GetObject' else ''}, or use another connection"


def require_store(
    status: int, headers: Mapping[str, str], body: object, operation: str, *, conn_id: str, endpoint: str
) -> None:
    """Refuse an answer of something else than a store, or that sends us elsewhere.

    boto3 would follow a redirect round in circles, and take a proxy's page with status 200 for an object, or for a
    write that was made. A redirect to the bucket's region carries that region, and is boto3's own matter.

    :param status: of HTTP.
    :param headers: with names in lower case.
    :param body: as botocore has it: bytes, or a stream that was not read.
    :param operation: name of S3's API.
    :param conn_id: connection of the store.
    :param endpoint: URL of the connection; empty for Amazon.
    :raises DefinitionError: for an endpoint that sends its clients to another one for good, as from http to https.
    :raises TransientError: for one that does so now, and for an answer of something else.
    """
    if status in (301, 302, 303, 307, 308) and endpoint and "x-amz-bucket-region" not in headers:
        raise _redirect_error(headers.get("location", ""), status, conn_id=conn_id, endpoint=endpoint)
    if status < 300 and not _is_of_store(operation, headers, body if isinstance(body, bytes) else b""):
        raise TransientError(
            f"connection {conn_id!r} ({endpoint or 'Amazon S3'}): what answered to {operation} is not an S3 store; a "
            "proxy does so while the store is away, or the connection's endpoint is not that of the store"
        )


def _is_of_store(operation: str, headers: Mapping[str, str], body: bytes) -> bool:
    named = any(name.startswith(_OF_STORES) for name in headers)
    if operation in ("GetObject", "HeadObject", "PutObject"):  # of which the content type is the object's
        # A page for an outage, which a web server reads from a file, has tag and date as well.
        page = is_page({}, body) if operation == "PutObject" else is_page(headers)
        return named or (not headers.keys().isdisjoint(("etag", "last-modified")) and not page)
    # Some stores call their XML, or an answer without a body, HTML.
    named_page = is_page(headers) and body.lstrip()[:1] not in {b"", b"<"}
    return named or not (named_page or is_page({}, body))


def _redirect_error(target: str, status: int, *, conn_id: str, endpoint: str) -> DefinitionError | TransientError:
    parts = urlsplit(target)
    shown = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    to = "nowhere" if not target else quoted(shown if parts.scheme else target)
    words = (
        f"connection {conn_id!r} ({endpoint}): the endpoint redirects to {to}; "
        "set the host or the extra 'endpoint_url' to the URL that answers itself"
    )
    return TransientError(words) if error_class(status) is TransientError else DefinitionError(words)
