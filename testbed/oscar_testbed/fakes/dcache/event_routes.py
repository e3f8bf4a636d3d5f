# SPDX-License-Identifier: Apache-2.0
"""The HTTP resources of storage events (``/api/v1/events``); what they do is in :mod:`.events`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from oscar_testbed.fakes.dcache.access import AccessError, Principal
from oscar_testbed.fakes.dcache.events import (
    DEFAULT_TIMEOUT,
    MAX_CHANNELS_PER_USER,
    MAX_TIMEOUT,
    Channel,
    Connection,
    EventHub,
    Subscription,
)
from oscar_testbed.fakes.dcache.namespace import Namespace
from oscar_testbed.fakes.dcache.selectors import INOTIFY_SCHEMA, EventError

_BASE = "/api/v1/events"
_DESCRIPTIONS = {
    "inotify": "notification of namespace activity, modelled after inotify(7)",
    "metronome": "a configurable stream of messages",
}


def event_routes(hub: EventHub, namespace: Namespace) -> list[Route]:
    """The routes, ready for an application whose middleware has set ``request.state.principal``."""
    routes = _EventRoutes(hub, namespace)
    channel = f"{_BASE}/channels/{{cid}}"
    subscription = f"{channel}/subscriptions/{{kind}}/{{sid}}"  # an id with a slash is found by nobody, as in dCache
    return [
        Route(_BASE, routes.limits),
        Route(f"{_BASE}/eventTypes", routes.types),
        Route(f"{_BASE}/eventTypes/{{kind}}", routes.type),
        Route(f"{_BASE}/eventTypes/{{kind}}/selector", routes.schema),
        Route(f"{_BASE}/channels", routes.list),
        Route(f"{_BASE}/channels", routes.create, methods=["POST"]),
        Route(channel, routes.open),
        Route(channel, routes.change, methods=["PATCH"]),
        Route(channel, routes.remove, methods=["DELETE"]),
        Route(f"{channel}/subscriptions", routes.subscriptions),
        Route(f"{channel}/subscriptions/{{kind}}", routes.subscribe, methods=["POST"]),
        Route(subscription, routes.selector),
        Route(subscription, routes.unsubscribe, methods=["DELETE"]),
    ]


class _EventRoutes:
    def __init__(self, hub: EventHub, namespace: Namespace) -> None:
        self._hub = hub
        self._namespace = namespace

    async def limits(self, request: Request) -> Response:
        lifetime = {"minimum": 1, "maximum": MAX_TIMEOUT, "default": DEFAULT_TIMEOUT}
        return JSONResponse(
            {"channels": {"maximumPerUser": MAX_CHANNELS_PER_USER, "lifetimeWhenDisconnected": lifetime}}
        )

    async def types(self, request: Request) -> Response:
        return JSONResponse(list(_DESCRIPTIONS))

    async def type(self, request: Request) -> Response:
        if (description := _DESCRIPTIONS.get(request.path_params["kind"])) is None:
            raise EventError(404, "No such event type")
        return JSONResponse({"description": description})

    async def schema(self, request: Request) -> Response:
        if request.path_params["kind"] != "inotify":
            raise EventError(404, "No such event type")
        return JSONResponse(INOTIFY_SCHEMA)

    async def list(self, request: Request) -> Response:
        channels = self._hub.channels(_who(request).user)
        wanted = request.query_params.get("client-id")
        return JSONResponse([each.url for each in channels if wanted is None or each.client_id == wanted])

    async def create(self, request: Request) -> Response:
        body = await _json(request)
        _known(body, "client-id")
        client_id = str(body.get("client-id") or "") if isinstance(body, dict) else ""
        channel = self._hub.create(_who(request).user, client_id)
        return Response(status_code=201, headers={"Location": channel.url})

    async def open(self, request: Request) -> Response:
        listening = "text/event-stream" in request.headers.get("accept", "")
        try:
            channel = self._channel(request)
        except EventError as error:
            raise EventError(error.status, str(error), stream=listening) from error
        if not listening:
            return JSONResponse({"timeout": channel.timeout})
        connection = Connection()
        self._hub.attach(channel, connection, request.headers.get("last-event-id"))
        return StreamingResponse(self._stream(channel, connection), media_type="text/event-stream")

    async def _stream(self, channel: Channel, connection: Connection) -> AsyncIterator[str]:
        try:
            while (text := await connection.receive()) is not None:
                yield text
        finally:
            self._hub.release(channel, connection)

    async def change(self, request: Request) -> Response:
        channel = self._channel(request)
        body = await _json(request)
        _known(body, "timeout")
        timeout = body.get("timeout") if isinstance(body, dict) else None
        if not isinstance(timeout, int):
            raise EventError(400, f"Unable to interpret JSON: Cannot deserialize value of type `long` from {timeout!r}")
        if not 1 <= timeout <= MAX_TIMEOUT:
            what = "shorter than minimum" if timeout < 1 else "longer than maximum"
            raise EventError(400, f"Timeout {what} allowed")
        channel.timeout = timeout
        return Response(status_code=204)

    async def remove(self, request: Request) -> Response:
        self._hub.remove(self._channel(request))
        return Response(status_code=204)

    async def subscriptions(self, request: Request) -> Response:
        return JSONResponse([each.url for each in self._channel(request).subscriptions.values()])

    async def subscribe(self, request: Request) -> Response:
        channel = self._channel(request)
        kind = request.path_params["kind"]
        selector = await _json(request)
        if selector is None:
            raise EventError(400, "Missing JSON entity in POST request")
        if kind == "metronome":
            made = self._hub.subscribe_metronome(channel, selector)
            return Response(status_code=201, headers={"Location": made.url})
        if kind != "inotify":
            raise EventError(400, f"Unknown event type: {kind[:40]}")
        try:
            _who(request).require("LIST", str(selector.get("path")) if isinstance(selector, dict) else "/")
        except AccessError as error:
            raise EventError(400, str(error)) from error  # dCache answers 400 here, with this wording
        made, new = self._hub.subscribe_inotify(channel, selector)
        return Response(status_code=201 if new else 303, headers={"Location": made.url})

    async def selector(self, request: Request) -> Response:
        return JSONResponse(self._subscription(request)[1].selector)

    async def unsubscribe(self, request: Request) -> Response:
        self._hub.unsubscribe(*self._subscription(request))
        return Response(status_code=204)

    def _channel(self, request: Request) -> Channel:
        return self._hub.channel(request.path_params["cid"], _who(request).user)

    def _subscription(self, request: Request) -> tuple[Channel, Subscription]:
        channel = self._channel(request)
        key = (request.path_params["kind"], request.path_params["sid"])
        if (found := channel.subscriptions.get(key)) is None:
            raise EventError(404, "Subscription not found")
        return channel, found


def _who(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


async def _json(request: Request) -> Any:
    body = await request.body()
    if not body.strip():
        return None
    try:
        return json.loads(body)
    except ValueError as error:
        raise EventError(400, f"Supplied JSON is invalid: {error}") from error


def _known(body: object, name: str) -> None:
    """Refuse fields that are none."""
    if isinstance(body, dict) and (unknown := sorted(set(body) - {name})):
        raise EventError(400, f"'{unknown[0]}' is an unrecognized field.")
