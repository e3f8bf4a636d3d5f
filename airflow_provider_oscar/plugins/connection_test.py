# SPDX-License-Identifier: Apache-2.0
"""Makes the Test button of the connection list work for connection types without a port.

Airflow 3.3's page posts ``Number(connection.port)``, which is 0 where no port is stored, and the API compares that 0
with the stored NULL and refuses: "The host or port to test differs from the stored connection". No connection listens
on port 0, so for our own types the 0 is taken as what it stands for: no port.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CONNECTION_TYPES: Final = frozenset({"oscar", "dcache", "oscar_s3", "interlink"})
#: Both ways of the API to test a connection.
PATHS: Final = ("/api/v2/connections/test", "/api/v2/connections/enqueue-test")
#: Bytes of a body that is looked at; a connection form is far smaller.
REQUEST_LIMIT: Final = 1024 * 1024


class PortlessConnectionTest:
    """ASGI middleware: in a request that tests one of our connections, port 0 becomes "no port".

    Everything else passes as it came: other paths untouched, other types and longer bodies byte by byte.

    :param app: the application behind it.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or not str(scope["path"]).endswith(PATHS):
            await self._app(scope, receive, send)
            return
        messages = await _read(receive)
        body = b"".join(bytes(message.get("body", b"")) for message in messages)
        complete = bool(messages) and messages[-1]["type"] == "http.request" and not messages[-1].get("more_body")
        changed = without_port_zero(body) if complete else body
        if changed != body:
            headers = [pair for pair in scope["headers"] if pair[0].lower() != b"content-length"]
            scope = {**scope, "headers": [*headers, (b"content-length", str(len(changed)).encode())]}
            messages = [{"type": "http.request", "body": changed, "more_body": False}]
        waiting = iter(messages)

        async def replay() -> Message:
            return next(waiting, None) or await receive()

        await self._app(scope, replay, send)


async def _read(receive: Receive) -> list[Message]:
    """Return the messages of the body, up to its end or the limit."""
    messages: list[Message] = []
    size = 0
    while size <= REQUEST_LIMIT:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    return messages


def without_port_zero(body: bytes) -> bytes:
    """Return the body of a connection test with ``"port": 0`` as ``null``, if it is about a type of ours.

    :param body: as it was sent, possibly anything.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(found, dict) or found.get("port") != 0:
        return body
    if not isinstance(kind := found.get("conn_type"), str) or kind not in CONNECTION_TYPES:
        return body
    return json.dumps({**found, "port": None}).encode()
