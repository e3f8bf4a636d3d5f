# SPDX-License-Identifier: Apache-2.0
"""An end to answers that come a byte at a time.

The time-out of a client is one between two bytes, so that a server which sends one now and then holds a thread for
ever. Here an answer has :data:`PATIENCE` times that time-out, and a second more for each :data:`SLOWEST` bytes of it:
a large answer may take its time, a standstill in disguise may not. Streams that are meant to be silent (server-sent
events, MinIO's listen) say so by :class:`Silence`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from ssl import SSLContext
from typing import Any, TypeVar

import httpcore
import httpx
from httpcore import AsyncNetworkBackend, AsyncNetworkStream, NetworkBackend, NetworkStream

from airflow_provider_oscar.hooks.http.headers import require_sendable
from airflow_provider_oscar.hooks.http.names import addresses

#: Times the time-out between two bytes that an answer may take before its bytes count.
PATIENCE = 3.0
#: Bytes for which an answer may take a second more.
SLOWEST = 1024.0
TOO_SLOW = f"the answer comes slower than {SLOWEST:.0f} bytes a second"

_T = TypeVar("_T")
_Client = TypeVar("_Client", httpx.Client, httpx.AsyncClient, httpx.HTTPTransport, httpx.AsyncHTTPTransport)


class Silence(float):
    """Seconds between two bytes of a stream that may be silent that long, again and again."""


class Pace:
    """How long one answer may still take.

    :param clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._received = 0
        self._begun = clock()

    def begin(self) -> None:
        """Note that a request is sent, so that what comes now is another answer."""
        self._begun, self._received = self._clock(), 0

    def received(self, count: int) -> None:
        """Note so many bytes of the answer."""
        self._received += count

    def left(self, timeout: float) -> float:
        """Return the seconds that the next byte may take: the time-out or less; none if the answer is too slow.

        :param timeout: seconds between two bytes.
        """
        allowed = PATIENCE * timeout + self._received / SLOWEST
        return min(timeout, max(0.0, self._begun + allowed - self._clock()))


def paced(client: _Client) -> _Client:
    """Return a client, or a transport, of httpx that waits for no answer for ever, and shows no header in its errors.

    :param client: fresh; it is changed. httpx has no word for the sockets of a client that keeps its proxies.
    """
    found: list[Any] = [client]
    if isinstance(client, httpx.Client | httpx.AsyncClient):
        found = [client._transport, *client._mounts.values()]
    for transport in found:
        pool = getattr(transport, "_pool", None)
        if isinstance(pool, httpcore.ConnectionPool):
            pool._network_backend = _Backend(pool._network_backend)
            pool.handle_request = partial(_handle, pool.handle_request)  # type: ignore[method-assign]
        elif isinstance(pool, httpcore.AsyncConnectionPool):
            pool._network_backend = _AsyncBackend(pool._network_backend)
            pool.handle_async_request = partial(_handle, pool.handle_async_request)  # type: ignore[method-assign]
    return client


def _handle(handle: Callable[[httpcore.Request], _T], request: httpcore.Request) -> _T:
    require_sendable(request.headers)
    return handle(request)


def _next_timeout(pace: Pace, timeout: float | None) -> float | None:
    if timeout is None or isinstance(timeout, Silence):
        return timeout
    left = pace.left(timeout)
    if left <= 0:
        raise httpcore.ReadTimeout(TOO_SLOW)
    return left


class _Stream(NetworkStream):
    def __init__(self, inner: NetworkStream) -> None:
        self._inner, self._pace = inner, Pace()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._inner.read(max_bytes, _next_timeout(self._pace, timeout))
        self._pace.received(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)
        self._pace.begin()

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(NetworkBackend):
    def __init__(self, inner: NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> NetworkStream:
        return _Stream(self._inner.connect_tcp(host, port, timeout, local_address, socket_options))


class _AsyncStream(AsyncNetworkStream):
    def __init__(self, inner: AsyncNetworkStream) -> None:
        self._inner, self._pace = inner, Pace()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        data = await self._inner.read(max_bytes, _next_timeout(self._pace, timeout))
        self._pace.received(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's
        await self._inner.write(buffer, timeout)
        self._pace.begin()

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
    ) -> AsyncNetworkStream:
        return _AsyncStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _AsyncBackend(AsyncNetworkBackend):
    def __init__(self, inner: AsyncNetworkBackend) -> None:
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                found = await addresses(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"the name {host} is not looked up in time") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        for last, address in enumerate(found, start=1):
            try:
                stream = await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if last == len(found):
                    raise
            else:
                return _AsyncStream(stream)
        raise httpcore.ConnectError(f"the name {host} has no address")
