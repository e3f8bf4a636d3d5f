# SPDX-License-Identifier: Apache-2.0
"""A call of several steps as a value, and the two places that send it.

A flow is a generator that yields requests and is sent answers; it never touches the network, so a unit
test drives it by hand. :func:`run` and :func:`arun` send its requests with a client that holds the
credentials. Both read at most ``limit`` bytes of a body, and turn what httpx raises into the errors of
``core/errors.py``, unless the flow itself caught it (a transport error is thrown into the flow first).
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Generator
from typing import TypeVar

import httpx

from airflow_provider_oscar.core.errors import (
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.hooks.http.headers import UnsendableHeaderError
from airflow_provider_oscar.hooks.pool import named_pool

T = TypeVar("T")
Flow = Generator[httpx.Request, httpx.Response, T]

#: What httpx raises while it sends; ``UnicodeError`` where it cannot encode or decode what a server sent.
TRANSPORT_ERRORS = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)
#: Bytes of a decoded body that are read before the answer is refused.
ANSWER_LIMIT = 64 * 1024 * 1024
#: Bytes of a body that a flow may read on the event loop; larger ones it reads in a thread of the connection.
READ_ON_LOOP = 64 * 1024
#: Bytes of the body of an error that are kept.
ERROR_BODY_LIMIT = 64 * 1024
#: Extension of a request whose answer may be of any size: so many bytes at least are kept of its end.
KEEP_END = "keep_end"
#: Extension of such an answer: line ends in what was left out before.
LINES_BEFORE = "lines_before"
#: Bytes of such an answer after which it counts as one that does not end.
ENDLESS = 4 * 1024**3


def run(client: httpx.Client, flow: Flow[T], *, display_name: str = "", limit: int = ANSWER_LIMIT) -> T:
    """Send the requests of ``flow`` one after the other and return its result.

    :param client: carries credentials, TLS and timeouts; it should not follow redirects.
    :param flow: a fresh generator.
    :param display_name: words that name the connection in messages, such as ``connection 'oscar_default'``.
    :param limit: most bytes of one decoded body.
    :raises TransientError: if the server cannot be reached or breaks off.
    :raises DefinitionError: if TLS verification fails or the URL is not usable.
    :raises PermanentError: if a body exceeds ``limit``.
    """
    try:
        request = next(flow)
        while True:
            try:
                answer = client.send(request, stream=True)
                try:
                    body = _Body(answer, limit=limit, display_name=display_name)
                    for chunk in answer.iter_bytes():
                        if body.take(chunk):
                            break
                finally:
                    answer.close()
            except TRANSPORT_ERRORS as error:
                request = _throw_into(flow, error, request=request, display_name=display_name)
            else:
                request = flow.send(_complete(answer, body, request))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        flow.close()


async def arun(
    client: httpx.AsyncClient,
    flow: Flow[T],
    *,
    display_name: str = "",
    limit: int = ANSWER_LIMIT,
) -> T:
    """Do what :func:`run` does without blocking the event loop; same parameters and errors.

    :raises TransientError: as well if a large answer is not read in time, since many others are.
    """
    try:
        request = next(flow)
        while True:
            try:
                answer = await client.send(request, stream=True)
                try:
                    body = _Body(answer, limit=limit, display_name=display_name)
                    async for chunk in answer.aiter_bytes():
                        if body.take(chunk):
                            break
                finally:
                    await answer.aclose()
            except TRANSPORT_ERRORS as error:
                request = _throw_into(flow, error, request=request, display_name=display_name)
            else:
                whole = _complete(answer, body, request)
                if len(body.data) <= READ_ON_LOOP:
                    request = flow.send(whole)
                    continue
                reading = named_pool(f"reading large answers of {display_name or request.url.host}", threads=1)
                following, result = await reading.call(_next, flow, whole)
                if following is None:
                    return result  # type: ignore[return-value]  # the flow has ended
                request = following
    except StopIteration as end:
        ended: T = end.value
        return ended
    finally:
        with contextlib.suppress(ValueError):  # a thread is still at the answer, for which nobody waits any more
            flow.close()


def _next(flow: Flow[T], answer: httpx.Response) -> tuple[httpx.Request | None, T | None]:
    """Return the next request of a flow, or None and its result: a thread cannot hand on a ``StopIteration``."""
    try:
        return flow.send(answer), None
    except StopIteration as end:
        return None, end.value


def transport_error(
    error: httpx.HTTPError | httpx.InvalidURL | UnicodeError,
    *,
    request: httpx.Request | None = None,
    display_name: str = "",
) -> OscarProviderError:
    """Return the error of ours for what httpx raised while sending ``request``.

    A failed verification of the server's certificate is for the user to correct, everything else on the
    way may pass. URLs are shown without query, since presigned ones hold a signature there.
    """
    place = " ".join(part for part in (display_name, f"at {_describe_request(request)}" if request else "") if part)
    prefix = f"{place}: " if place else ""
    cause = _root(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DefinitionError(
            f"{prefix}the server's TLS certificate is not trusted ({_reason(cause)}); "
            "set the connection extra 'verify' to the CA file or directory that signed it"
        )
    if isinstance(cause, ssl.SSLError):
        return DefinitionError(
            f"{prefix}TLS could not be set up ({_reason(cause)}); "
            "check that host and port speak https, and the client certificate if one is configured"
        )
    if isinstance(error.__cause__, UnsendableHeaderError):
        return DefinitionError(f"{prefix}{error}")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return DefinitionError(f"{prefix}the URL is not usable ({quoted(error)}); correct the host of the connection")
    if isinstance(error, httpx.TimeoutException):
        return TransientError(f"{prefix}no answer in time ({type(error).__name__})")
    if isinstance(error, httpx.ConnectError):
        return TransientError(
            f"{prefix}cannot connect ({quoted(error)}); check host and port, and that the server runs"
        )
    return TransientError(f"{prefix}the exchange broke off ({type(error).__name__}: {quoted(error)})")


class _Body:
    """What was read of one answer: an error's page is cut, a result that is too large is refused, or its end kept."""

    def __init__(self, answer: httpx.Response, *, limit: int, display_name: str) -> None:
        self.data = bytearray()
        self.lines_before = 0
        self._answer = answer
        self._limit = limit
        self._display_name = display_name
        self._end = int(answer.request.extensions.get(KEEP_END, 0))
        self._left_out = 0

    def take(self, chunk: bytes) -> bool:
        """Take one more piece; True if that is enough.

        :raises PermanentError: if it is too much.
        """
        self.data += chunk
        if not self._answer.is_success:
            del self.data[ERROR_BODY_LIMIT:]
            return len(self.data) == ERROR_BODY_LIMIT
        if self._end:
            # Not at every piece, since the rest has to be moved.
            if len(self.data) > self._end + self._end // 4:
                cut = len(self.data) - self._end
                self.lines_before += self.data.count(b"\n", 0, cut)
                self._left_out += cut
                del self.data[:cut]
            return self._left_out > ENDLESS
        if len(self.data) > self._limit:
            prefix = self._display_name + " " if self._display_name else ""
            raise PermanentError(
                f"{prefix}at {_describe_request(self._answer.request)}: "
                f"{self._answer.request.method} answered more than {self._limit} bytes; refused"
            )
        return False


def _complete(answer: httpx.Response, body: _Body, request: httpx.Request) -> httpx.Response:
    """Return the answer as if read in the ordinary way; the body is decoded already."""
    coded = {b"content-encoding", b"transfer-encoding", b"content-length"}
    # Bytes stay bytes: a dCache pool names files in Latin-1, and httpx would write text as ASCII.
    headers = [(name, value) for name, value in answer.headers.raw if name.lower() not in coded]
    return httpx.Response(
        answer.status_code,
        headers=headers,
        content=bytes(body.data),
        request=answer.request or request,
        extensions={
            "reason_phrase": answer.reason_phrase.encode("ascii", "replace"),
            LINES_BEFORE: body.lines_before,
        },
    )


def _throw_into(
    flow: Flow[T],
    error: httpx.HTTPError | httpx.InvalidURL | UnicodeError,
    *,
    request: httpx.Request,
    display_name: str,
) -> httpx.Request:
    """Let the flow handle ``error``, or raise our own."""
    try:
        return flow.throw(error)
    except TRANSPORT_ERRORS as unhandled:
        raise transport_error(unhandled, request=request, display_name=display_name) from unhandled


def _root(error: BaseException) -> BaseException:
    """Return the first TLS error in the chain of causes, or the error itself."""
    cause: BaseException | None = error
    for _ in range(10):
        if cause is None:
            break
        if isinstance(cause, ssl.SSLError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return error


def _reason(error: ssl.SSLError) -> str:
    # Both attributes exist only on errors that OpenSSL itself raised.
    return str(getattr(error, "verify_message", None) or getattr(error, "reason", None) or quoted(error))


def _describe_request(request: httpx.Request) -> str:
    url = request.url
    return quoted(str(url.copy_with(query=None, fragment=None, userinfo=None)))
