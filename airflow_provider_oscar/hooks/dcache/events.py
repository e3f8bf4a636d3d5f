# SPDX-License-Identifier: Apache-2.0
"""Flows over dCache's storage events: channels, subscriptions, and the stream itself.

Order that loses nothing: make the channel, set its timeout, open the stream, subscribe, list the directory. Source:
dCache 12.1, ``EventResources``, ``Channel``, ``InotifySelector``; the traps are in the docstrings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import httpx

from airflow_provider_oscar.core.errors import PermanentError, TransientError, quoted
from airflow_provider_oscar.core.shapes import parse_json
from airflow_provider_oscar.hooks.dcache.rest import RestEndpoint
from airflow_provider_oscar.hooks.http.flows import TRANSPORT_ERRORS, Flow, transport_error
from airflow_provider_oscar.hooks.http.pace import Silence
from airflow_provider_oscar.hooks.http.sse import SseEvent, SseParser

#: A file is whole after one of the first two; the last two say that the watch has to be looked at again.
WATCH_FLAGS = ("IN_CLOSE_WRITE", "IN_MOVED_TO", "IN_CREATE", "IN_DELETE_SELF", "IN_MOVE_SELF")
#: dCache cuts a client id at this length.
CLIENT_ID_LIMIT = 256


class ChannelGone(TransientError):
    """The channel does not exist (any more): make a new one and list everything again."""


@dataclass(frozen=True, slots=True)
class InotifyMessage:
    """One inotify event of a channel.

    :param subscription: normalised id of the watch, see :func:`subscription_id`.
    :param name: name below the watched directory; empty for events of the directory itself.
    :param mask: words such as ``IN_CLOSE_WRITE`` and ``IN_ISDIR``.
    """

    subscription: str
    name: str
    mask: frozenset[str]


@dataclass(frozen=True, slots=True)
class SystemMessage:
    """One word of the channel about itself: ``EVENT_LOSS``, ``COMPETING_CLIENT``, ``SHUTDOWN`` and others."""

    type: str
    subscription: str = ""


def create_channel(frontend: RestEndpoint, *, client_id: str = "") -> Flow[str]:
    """Make a channel and return its path; a user may have 128 (TransientError beyond)."""
    body = {"client-id": client_id[:CLIENT_ID_LIMIT]} if client_id else None
    action = "make an event channel"
    answer = yield frontend.request("POST", "/events/channels", json=body)
    frontend.expect(answer, action=action, ok=(201,))
    return frontend.located(answer, action=action)


def set_channel_timeout(frontend: RestEndpoint, channel: str, seconds: int) -> Flow[None]:
    """Say for how long the channel keeps events without a reader; dCache allows 1 to 86400 seconds."""
    answer = yield frontend.request("PATCH", channel, json={"timeout": seconds})
    _gone(answer, frontend)
    frontend.expect(answer, action=f"set the channel's timeout to {seconds} s", ok=(200, 204))


def delete_channel(frontend: RestEndpoint, channel: str) -> Flow[None]:
    """Delete a channel; it is not an error if it is gone."""
    answer = yield frontend.request("DELETE", channel)
    frontend.expect(answer, action="delete the event channel", ok=(200, 204, 404))


def watch(frontend: RestEndpoint, channel: str, path: str, *, flags: Sequence[str] = WATCH_FLAGS) -> Flow[str]:
    """Watch a directory; return the subscription's path. A directory watched already gets the new flags.

    :raises PermanentError: if it does not exist, is not a directory, or may not be listed (dCache says 400 to all).
    """
    selector = {"path": frontend.absolute(path), "flags": list(flags)}
    action = f"watch {quoted(path)}"
    answer = yield frontend.request("POST", f"{channel}/subscriptions/inotify", json=selector)
    _gone(answer, frontend)
    frontend.expect(answer, action=action, ok=(201, 303))  # 303: merged with a watch of the same directory
    return frontend.located(answer, action=action)


def heartbeat(frontend: RestEndpoint, channel: str, *, seconds: float = 60.0) -> Flow[str]:
    """Have the channel send a ``metronome`` event every so often; dCache has no heartbeat of its own.

    :param seconds: from a millionth to 300.
    """
    action = "subscribe to the metronome"
    selector = {"delay": seconds, "message": "heartbeat"}
    answer = yield frontend.request("POST", f"{channel}/subscriptions/metronome", json=selector)
    _gone(answer, frontend)
    frontend.expect(answer, action=action, ok=(201, 303))
    return frontend.located(answer, action=action)


def unsubscribe(frontend: RestEndpoint, subscription: str) -> Flow[None]:
    """End a subscription; it is not an error if it is gone.

    :raises PermanentError: if dCache cannot: it answers 404 to an id with a slash in it, and goes on sending.
    """
    answer = yield frontend.request("DELETE", subscription)
    if answer.status_code == 404 and "%2f" in subscription.lower():
        raise PermanentError(
            f"{frontend.display_name}: dCache cannot end the subscription {quoted(subscription)}, whose id holds a "
            "slash; its events go on until the channel is deleted"
        )
    frontend.expect(answer, action="end a subscription", ok=(200, 204, 404))


def stream_request(frontend: RestEndpoint, channel: str, *, last_event_id: str | None = None) -> httpx.Request:
    """Build the request that opens the stream.

    :param last_event_id: id of the last event that was dealt with. Never a guess: dCache throws the backlog away when
        it does not know the id. None replays nothing.
    """
    request = frontend.request("GET", channel, accept="text/event-stream")
    request.headers["Cache-Control"] = "no-store"
    if last_event_id is not None:
        request.headers["Last-Event-ID"] = last_event_id
    return request


async def stream(
    client: httpx.AsyncClient, frontend: RestEndpoint, request: httpx.Request, *, silence: float, parser: SseParser
) -> AsyncIterator[SseEvent]:
    """Yield the events of a stream until it ends, which it does with an error; close the generator when done.

    :param client: from :meth:`DCacheHook.async_client`.
    :param request: from :func:`stream_request`.
    :param silence: seconds without a byte after which the connection counts as dead; three heartbeats or so.
    :param parser: its ``dropped`` tells whether events were left out for their size.
    :raises ChannelGone: if the channel does not exist.
    :raises TransientError: if the stream ends, breaks off or falls silent.
    """
    request.extensions["timeout"] = httpx.Timeout(Silence(silence), connect=frontend.settings.connect_timeout).as_dict()
    try:
        answer = await client.send(request, stream=True)
        try:
            _gone(answer, frontend)
            if answer.status_code != 200:
                raise frontend.error(answer, "open the event stream")
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                raise PermanentError(f"{frontend.display_name}: the event channel does not answer with an event stream")
            async for chunk in answer.aiter_bytes():
                for event in parser.feed(chunk):
                    yield event
        finally:
            await answer.aclose()
    except TRANSPORT_ERRORS as error:
        raise transport_error(error, request=request, display_name=frontend.display_name) from error
    raise TransientError(f"{frontend.display_name}: the server closed the event stream")


def read_message(event: SseEvent) -> InotifyMessage | SystemMessage | None:
    """Read an event of dCache; None for what is neither inotify nor SYSTEM, or malformed: it must not stop the rest."""
    try:
        body = parse_json(event.data)
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    subscription = subscription_id(str(body.get("subscription") or ""))
    if event.event == "SYSTEM":
        return SystemMessage(str(body.get("type") or ""), subscription)
    inner = body.get("event")
    if event.event != "inotify" or not isinstance(inner, Mapping) or not isinstance(inner.get("mask"), list):
        return None
    name = inner.get("name")
    return InotifyMessage(
        subscription, name if isinstance(name, str) else "", frozenset(str(word) for word in inner["mask"])
    )


def subscription_id(url: str) -> str:
    """Return the id of a subscription from any URL of it: the last segment, decoded, in the URL-safe alphabet.

    dCache changed from the URL-safe to the standard base64 alphabet in October 2025, and builds the URL in an event
    from another base than the one in ``Location``.
    """
    last = url.partition("?")[0].rstrip("/").rpartition("/")[2]
    return unquote(last).replace("+", "-").replace("/", "_").rstrip("=")


def _gone(answer: httpx.Response, frontend: RestEndpoint) -> None:
    if answer.status_code == 404:
        raise ChannelGone(
            f"{frontend.display_name}: the event channel is gone (expired, deleted, or the frontend restarted)"
        )
