# SPDX-License-Identifier: Apache-2.0
"""The rule of :mod:`~airflow_provider_oscar.hooks.http.pace` for clients of boto3, and a bound to what they read."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import urllib3
from botocore.awsrequest import AWSHTTPConnection, AWSHTTPSConnection, AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from botocore.httpsession import URLLib3Session
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_oscar.core.errors import TransientError, bare_url, quoted
from airflow_provider_oscar.hooks.http.paced_pools import QuietHeaders, pace_connection

#: Bytes of an answer that boto3 reads whole; a page of a listing has a few MiB at most.
ANSWER_LIMIT = 16 * 1024 * 1024
_PIECE = 64 * 1024
#: Lines of an interim answer; it has one or two.
_INTERIM_LINES = 100


class _Interim:
    """boto3 reads the interim answer "100 Continue" to its empty line, also where the server has closed before that."""

    def _consume_headers(self, fp: io.RawIOBase) -> None:
        for _ in range(_INTERIM_LINES):
            if fp.readline() in (b"\r\n", b""):
                return


class _BotoConnection(_Interim, QuietHeaders, AWSHTTPConnection):  # type: ignore[misc]  # the stubs' bases disagree
    def connect(self) -> None:
        super().connect()
        pace_connection(self)


class _BotoTlsConnection(_Interim, QuietHeaders, AWSHTTPSConnection):  # type: ignore[misc]  # as above
    def connect(self) -> None:
        super().connect()
        pace_connection(self)


class _BotoPool(HTTPConnectionPool):
    ConnectionCls = _BotoConnection  # type: ignore[assignment]  # as above


class _BotoTlsPool(HTTPSConnectionPool):
    ConnectionCls = _BotoTlsConnection  # type: ignore[assignment]  # as above


def pace_boto(client: Any) -> None:
    """Let a client of boto3 wait for no answer for ever, and read none without end; what streams, its reader bounds.

    :param client: fresh. boto3 has no word for the sockets of a client; its proxies share the table that is changed.
    """
    session = client._endpoint.http_session
    session._pool_classes_by_scheme.update({"http": _BotoPool, "https": _BotoTlsPool})
    client.meta.events.register("before-send", partial(_send, session))


def _send(session: URLLib3Session, request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
    """Send a request in boto3's place, which reads all that comes."""
    if request.stream_output:
        return None
    request.stream_output = True
    try:
        answer = session.send(request)
    finally:
        request.stream_output = False
    body = bytearray()
    try:
        for piece in answer.raw.stream(_PIECE):
            body += piece
            if len(body) > ANSWER_LIMIT:
                answer.raw.close()
                where = quoted(bare_url(request.url))
                raise TransientError(f"at {where}: {request.method} answered more than {ANSWER_LIMIT} bytes; refused")
    except urllib3.exceptions.ReadTimeoutError as error:
        raise ReadTimeoutError(endpoint_url=bare_url(request.url), error=error) from error
    except urllib3.exceptions.HTTPError as error:
        raise ConnectionClosedError(error=error, request=request, endpoint_url=bare_url(request.url)) from error
    answer._content = bytes(body)  # type: ignore[attr-defined]  # what its property fills otherwise
    return answer
