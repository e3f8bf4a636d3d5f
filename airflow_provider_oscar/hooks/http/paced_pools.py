# SPDX-License-Identifier: Apache-2.0
"""The rule of :mod:`.pace` for the client of Kubernetes, and what boto3's needs of it: both are on urllib3."""

from __future__ import annotations

import io
import socket
from typing import TYPE_CHECKING, Any, cast

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_oscar.hooks.http.headers import require_sendable
from airflow_provider_oscar.hooks.http.pace import TOO_SLOW, Pace

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer
    from urllib3 import PoolManager


class _PacedFile(io.RawIOBase):
    """What is read from a socket."""

    def __init__(self, sock: socket.socket, pace: Pace) -> None:
        self._sock, self._pace = sock, pace
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        timeout = self._sock.gettimeout()
        if timeout is None:
            return self._raw.readinto(buffer)
        left = self._pace.left(timeout)
        if left <= 0:
            raise TimeoutError(TOO_SLOW)
        self._sock.settimeout(left)
        try:
            count = self._raw.readinto(buffer)
        finally:
            if self._sock.fileno() >= 0:
                self._sock.settimeout(timeout)
        self._pace.received(count or 0)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PacedSocket:
    """A socket, of which all that is read is read with a pace; the rest is the socket's own."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._pace = sock, Pace()

    def sendall(self, data: ReadableBuffer, *flags: int) -> None:
        self._sock.sendall(data, *flags)
        self._pace.begin()

    def makefile(self, mode: str = "rb", buffering: int | None = None) -> io.RawIOBase | io.BufferedReader:
        raw = _PacedFile(self._sock, self._pace)
        return raw if buffering == 0 else io.BufferedReader(raw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def pace_connection(connection: HTTPConnection) -> None:
    """Read what a connection receives with a pace.

    :param connection: just connected.
    """
    if connection.sock is not None:
        connection.sock = cast("socket.socket", _PacedSocket(connection.sock))


class QuietHeaders(HTTPConnection):
    """A connection whose error does not show a header that cannot be sent."""

    def putheader(self, header: str, *values: str) -> None:  # type: ignore[override]  # as urllib3 narrows it
        """Called for each header."""
        given: tuple[object, ...] = values
        sent = (each if isinstance(each, bytes) else str(each).encode("utf-8", "replace") for each in given)
        require_sendable((str(header).encode("utf-8", "replace"), each.strip(b" \t")) for each in sent)
        super().putheader(header, *values)


class _Connection(QuietHeaders):
    def connect(self) -> None:
        super().connect()
        pace_connection(self)


class _TlsConnection(QuietHeaders, HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        pace_connection(self)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def pace_pools(pools: PoolManager) -> None:
    """Let a manager of urllib3 wait for no answer for ever.

    :param pools: fresh.
    """
    pools.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
