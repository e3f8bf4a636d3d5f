# SPDX-License-Identifier: Apache-2.0
"""The rule of :mod:`~airflow_provider_oscar.hooks.http.pace` for clients of boto3."""

from __future__ import annotations

import io
from typing import Any

from botocore.awsrequest import AWSHTTPConnection, AWSHTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_oscar.hooks.http.paced_pools import pace_connection

#: Lines of an interim answer; it has one or two.
_INTERIM_LINES = 100


class _Interim:
    """boto3 reads the interim answer "100 Continue" to its empty line, also where the server has closed before that."""

    def _consume_headers(self, fp: io.RawIOBase) -> None:
        for _ in range(_INTERIM_LINES):
            if fp.readline() in (b"\r\n", b""):
                return


class _BotoConnection(_Interim, AWSHTTPConnection):  # type: ignore[misc]  # the stubs' bases disagree
    def connect(self) -> None:
        super().connect()
        pace_connection(self)


class _BotoTlsConnection(_Interim, AWSHTTPSConnection):  # type: ignore[misc]  # as above
    def connect(self) -> None:
        super().connect()
        pace_connection(self)


class _BotoPool(HTTPConnectionPool):
    ConnectionCls = _BotoConnection  # type: ignore[assignment]  # as above


class _BotoTlsPool(HTTPSConnectionPool):
    ConnectionCls = _BotoTlsConnection  # type: ignore[assignment]  # as above


def pace_boto(client: Any) -> None:
    """Let a client of boto3 wait for no answer for ever.

    :param client: fresh. boto3 has no word for the sockets of a client; its proxies share the table that is changed.
    """
    session = client._endpoint.http_session
    session._pool_classes_by_scheme.update({"http": _BotoPool, "https": _BotoTlsPool})
