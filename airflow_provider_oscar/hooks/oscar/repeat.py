# SPDX-License-Identifier: Apache-2.0
"""Transports that repeat by themselves what may be sent twice.

That is reading, deleting, and starting a job under a name of our choice: OSCAR starts a job of one name once. Without
it a single lost answer costs a task that has no retries, and leaves a job that nobody watches. A few answers that
contradict the credentials are passed over too, since OSCAR says 401 when an issuer was away for a moment, and a proxy
says 404 while OSCAR is replaced. An answer that breaks off counts as lost, but for one so large that it is not held.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import httpx

from airflow_provider_oscar.hooks.http.errors import retry_after
from airflow_provider_oscar.hooks.oscar.errors import is_final

#: Header that chooses the name of the job (OSCAR 4.1 and later; ignored before).
JOB_ID_HEADER = "X-Delegated-Job-ID"
#: Seconds between the attempts, before jitter.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
#: The longest ``Retry-After`` that is waited for inside a call.
_LONGEST_WAIT = 10.0
#: Bytes of an answer that are read before it counts; of a larger one, such as a log, the rest is not asked for again.
_HELD = 1024 * 1024
_PASSING = frozenset({408, 425, 429, 502, 503, 504})
#: Answers about access that are passed over before they count, for callers who are not patient.
_ACCESS_REPEATS = 2
#: Routes that every OSCAR has.
_EVERYWHERE = re.compile(r".*/(system/(info|config|services(/[^/]+)?|logs/.+)|job/[^/]+)$")


def may_repeat(request: httpx.Request) -> bool:
    """Whether sending the request twice has the effect of sending it once."""
    if request.method in ("GET", "DELETE", "HEAD"):
        return True
    return request.method == "POST" and "/job/" in request.url.path and JOB_ID_HEADER in request.headers


def _again(request: httpx.Request, answer: httpx.Response, attempt: int, *, patient: bool) -> bool:
    status = answer.status_code
    if status in _PASSING:
        return True
    if status in (401, 403):
        # 403 is also how OSCAR says that a service or job is not there.
        return (patient or attempt < _ACCESS_REPEATS) and (status == 401 or request.method != "DELETE")
    if status == 404:
        # What is not there is answered with nothing; these routes are in every OSCAR, so a text is a proxy's.
        return bool(answer.content.strip()) and _EVERYWHERE.match(request.url.path) is not None
    # OSCAR answers 500 for a job without a pod and for an expired page of jobs; the caller knows those.
    return status == 500 and "/system/logs/" not in request.url.path and not is_final(answer)


def _pause(answer: httpx.Response | None, attempt: int) -> float:
    wanted = retry_after(answer.headers) if answer is not None else None
    if wanted is not None:
        return min(wanted, _LONGEST_WAIT)
    return PAUSES[attempt] * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


class _Held(httpx.SyncByteStream):
    """The bytes that were read, then those that are left; all of it as it was sent."""

    def __init__(self, held: list[bytes], rest: Iterator[bytes], source: httpx.SyncByteStream) -> None:
        self._held, self._rest, self._source = held, rest, source

    def __iter__(self) -> Iterator[bytes]:
        yield from self._held
        yield from self._rest

    def close(self) -> None:
        self._source.close()


class _AsyncHeld(httpx.AsyncByteStream):
    """The same for the event loop."""

    def __init__(self, held: list[bytes], rest: AsyncIterator[bytes], source: httpx.AsyncByteStream) -> None:
        self._held, self._rest, self._source = held, rest, source

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._held:
            yield chunk
        async for chunk in self._rest:
            yield chunk

    async def aclose(self) -> None:
        await self._source.aclose()


def _hold(answer: httpx.Response) -> None:
    """Read the beginning of an answer, so that one that breaks off there is noticed."""
    source = answer.stream
    if not isinstance(source, httpx.SyncByteStream):
        return
    held, rest, size = list[bytes](), iter(source), 0
    try:
        for chunk in rest:
            held.append(chunk)
            size += len(chunk)
            if size > _HELD:
                break
    except BaseException:
        source.close()
        raise
    answer.stream = _Held(held, rest, source)


async def _ahold(answer: httpx.Response) -> None:
    """The same for the event loop."""
    source = answer.stream
    if not isinstance(source, httpx.AsyncByteStream):
        return
    held, rest, size = list[bytes](), aiter(source), 0
    try:
        async for chunk in rest:
            held.append(chunk)
            size += len(chunk)
            if size > _HELD:
                break
    except BaseException:
        await source.aclose()
        raise
    answer.stream = _AsyncHeld(held, rest, source)


class RepeatingTransport(httpx.BaseTransport):
    """Sends through ``inner``, and again where that is safe.

    :param inner: sends one request.
    :param sleep: waits between attempts.
    :param patient: pass over answers about access as long as over outages.
    """

    def __init__(
        self, inner: httpx.BaseTransport, *, sleep: Callable[[float], None] = time.sleep, patient: bool = False
    ) -> None:
        self._inner = inner
        self._sleep = sleep
        self._patient = patient

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request until its answer counts."""
        attempts = len(PAUSES) if may_repeat(request) else 0
        for attempt in range(attempts):
            answer = None
            try:
                answer = self._inner.handle_request(request)
                if answer.status_code < 400:
                    _hold(answer)
                    return answer
                answer.request = request
                answer.read()
                if not _again(request, answer, attempt, patient=self._patient):
                    return answer
            except httpx.TransportError as error:
                if isinstance(error, httpx.UnsupportedProtocol):
                    raise
            self._sleep(_pause(answer, attempt))
        return self._inner.handle_request(request)

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()


class AsyncRepeatingTransport(httpx.AsyncBaseTransport):
    """The same for the event loop.

    :param inner: sends the requests.
    :param sleep: waits seconds.
    :param patient: pass over answers about access as long as over outages.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patient: bool = False,
    ) -> None:
        self._inner = inner
        self._sleep = sleep
        self._patient = patient

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request until its answer counts."""
        attempts = len(PAUSES) if may_repeat(request) else 0
        for attempt in range(attempts):
            answer = None
            try:
                answer = await self._inner.handle_async_request(request)
                if answer.status_code < 400:
                    await _ahold(answer)
                    return answer
                answer.request = request
                await answer.aread()
                if not _again(request, answer, attempt, patient=self._patient):
                    return answer
            except httpx.TransportError as error:
                if isinstance(error, httpx.UnsupportedProtocol):
                    raise
            await self._sleep(_pause(answer, attempt))
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()
