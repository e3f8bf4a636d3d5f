# SPDX-License-Identifier: Apache-2.0
"""What botocore raises, as errors of this provider, sorted by what the caller does next."""

from __future__ import annotations

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
from airflow_provider_oscar.hooks.http.errors import retry_after

_WRONG_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthFailure"}
_DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403"}
_NO_BUCKET = {"NoSuchBucket", "InvalidBucketName"}
_NO_KEY = {"NoSuchKey", "NoSuchVersion", "404", "NotFound"}
_WRONG_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_LATER = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "TooManyRequests"}


def s3_error(error: Exception, *, conn_id: str, endpoint: str, action: str, bucket: str = "") -> OscarProviderError:
    """Return the error of ours for what botocore raised.

    :param error: a ``BotoCoreError`` or ``ClientError``.
    :param conn_id: connection of the store.
    :param endpoint: its URL, for the message.
    :param action: what was attempted, in words, with the key quoted.
    :param bucket: bucket concerned, or empty.
    """
    where = f"connection {conn_id!r} ({endpoint or 'Amazon S3'}): cannot {action}"
    if isinstance(error, boto.ClientError):
        return _from_answer(error, where=where, bucket=bucket)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return DefinitionError(f"{where}: there is no access key; set login and password of the connection")
    if isinstance(error, boto.SSLError):
        return DefinitionError(
            f"{where}: the server's TLS certificate is not trusted ({quoted(error)}); "
            "set the connection extra 'verify' to the CA file that signed it"
        )
    if isinstance(error, ResponseParserError):
        return TransientError(f"{where}: the answer could not be read ({quoted(error)}); is this an S3 endpoint?")
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError | boto.IncompleteReadError):
        return TransientError(
            f"{where}: the endpoint is not reachable ({type(error).__name__}: {quoted(error)}); "
            "check endpoint_url, and that the server runs"
        )
    # What is left is refused before anything is sent: parameters, endpoint and region settings.
    return DefinitionError(f"{where}: {type(error).__name__}: {quoted(error)}")


def _from_answer(error: boto.ClientError, *, where: str, bucket: str) -> OscarProviderError:
    detail = error.response.get("Error", {})
    code = str(detail.get("Code", ""))
    metadata = error.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0) or 0)
    reply = f"{status} {code}: {quoted(detail.get('Message', ''))}"
    if code in _NO_BUCKET:
        return DefinitionError(f"{where}: bucket {bucket!r} does not exist ({reply}); create it or correct the name")
    if code in _NO_KEY or status == 404:
        return BadInputError(f"{where}: there is no such object ({reply})")
    if code in _WRONG_KEY or status == 401:
        return AccessError(f"{where}: the access key or secret key is wrong ({reply}); correct login and password")
    if code == "RequestTimeTooSkewed":
        return DefinitionError(
            f"{where}: our clock and the store's differ too much ({reply}); synchronise this machine"
        )
    if code in _WRONG_REGION:
        return DefinitionError(f"{where}: the bucket is in another region ({reply}); set the extra 'region_name'")
    if code in _LATER or status == 429 or status >= 500:
        return TransientError(
            f"{where}: the store is busy or failing ({reply})", delay=retry_after(metadata.get("HTTPHeaders") or {})
        )
    if code in _DENIED or status == 403:
        return AccessError(
            f"{where}: the access key may not do this{f' in bucket {bucket!r}' if bucket else ''} ({reply}); "
            "grant it the right, or use another connection"
        )
    return PermanentError(f"{where}: refused ({reply})")


def is_redirect(status: int) -> bool:
    """Whether an answer sends the client elsewhere."""
    return status in (301, 302, 303, 307, 308)


def redirect_error(target: str, *, conn_id: str, endpoint: str) -> DefinitionError:
    """Return the error for an endpoint that sends its clients to another one, such as from http to https.

    :param target: its ``Location``.
    :param conn_id: connection of the store.
    :param endpoint: URL of the connection.
    """
    parts = urlsplit(target)
    shown = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    return DefinitionError(
        f"connection {conn_id!r} ({endpoint}): the endpoint redirects to {quoted(shown if parts.scheme else target)}; "
        "set the host or the extra 'endpoint_url' to the URL that answers itself"
    )
