# SPDX-License-Identifier: Apache-2.0
"""The faults that every HTTP service of the platform shares, applied in front of an application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from oscar_testbed.faults import ComponentFaults

#: Builds a service's own kind of error answer from a status code and a sentence.
ErrorAnswer = Callable[[int, str], Response]

_SENTENCES = {401: "Unauthorized", 429: "too many requests, please try again later"}


def inject(
    faults: ComponentFaults, error: ErrorAnswer
) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    """Return a wrapper around an endpoint that answers in its place while a fault is switched on.

    :param faults: looked at for every request.
    :param error: shapes the answer as the service would.
    """

    async def wrapped(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        if faults.slow_headers > 0:
            await asyncio.sleep(faults.slow_headers)
        if (status := faults.refusal()) is None:
            return await proceed(request)
        answer = error(status, _SENTENCES.get(status, "fault switched on in the embedded platform"))
        if status == 429:
            answer.headers["Retry-After"] = "1"
        return answer

    return wrapped
