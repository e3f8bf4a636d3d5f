# SPDX-License-Identifier: Apache-2.0
"""Servers without sockets or threads: a client's requests go to applications of this process, by their host."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx


class InProcessTransport(httpx.BaseTransport):
    """Sends requests of a client that blocks to ASGI applications.

    :param applications: by host.
    """

    def __init__(self, applications: Mapping[str, Any]) -> None:
        self._hosts = {
            # What an application cannot answer is its server's 500 there.
            host: httpx.ASGITransport(application, raise_app_exceptions=False)
            for host, application in applications.items()
        }
        self._loop = asyncio.new_event_loop()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if (host := self._hosts.get(request.url.host)) is None:
            raise httpx.ConnectError(f"no server {request.url.host}", request=request)
        request.read()
        return self._loop.run_until_complete(self._answer(host, request))

    async def _answer(self, host: httpx.ASGITransport, request: httpx.Request) -> httpx.Response:
        answer = await host.handle_async_request(request)
        body = await answer.aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=body, request=request)

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
