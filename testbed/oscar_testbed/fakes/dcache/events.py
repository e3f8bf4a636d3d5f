# SPDX-License-Identifier: Apache-2.0
"""Storage events of the embedded dCache: channels, subscriptions, the replay buffer and its losses.

Everything lives in memory and is gone after a restart of the frontend, as in real dCache; the HTTP
side is in :mod:`.frontend`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from oscar_testbed.fakes.dcache.namespace import Happening, Namespace, NamespaceError

MAX_CHANNELS_PER_USER = 128
DEFAULT_TIMEOUT = 300
MAX_TIMEOUT = 86400
_PLAIN = frozenset(
    {
        "IN_ACCESS", "IN_ATTRIB", "IN_CLOSE_WRITE", "IN_CLOSE_NOWRITE", "IN_CREATE", "IN_DELETE", "IN_DELETE_SELF",
        "IN_MODIFY", "IN_MOVE_SELF", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_OPEN",
    }
)  # fmt: skip
_MACROS = {
    "IN_ALL_EVENTS": _PLAIN,
    "IN_CLOSE": frozenset({"IN_CLOSE_WRITE", "IN_CLOSE_NOWRITE"}),
    "IN_MOVE": frozenset({"IN_MOVED_FROM", "IN_MOVED_TO"}),
}
_MODIFIERS = frozenset({"IN_MASK_ADD", "IN_ONESHOT", "IN_ONLYDIR"})
_MANAGEMENT = frozenset({"IN_IGNORED", "IN_Q_OVERFLOW"})


class EventError(Exception):
    """A refused request, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    """One client that listens: messages are handed over to its event loop from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()

    def send(self, text: str | None) -> None:
        """Queue a message; None ends the stream."""
        with contextlib.suppress(RuntimeError):  # the loop of a stopped frontend
            self._loop.call_soon_threadsafe(self._queue.put_nowait, text)

    async def receive(self) -> str | None:
        """Wait for the next message."""
        return await self._queue.get()


@dataclass
class Subscription:
    """One watch or one metronome of a channel."""

    kind: str
    sid: str
    url: str
    selector: dict[str, Any]
    watched: str = ""
    flags: frozenset[str] = frozenset()
    once: bool = False
    cancel: Callable[[], None] = field(default=lambda: None)

    def wants(self, happening: Happening) -> bool:
        """Whether an event of the watched entry passes the flags."""
        kind = happening.mask[0]
        return kind in _MANAGEMENT or kind in self.flags


class Channel:
    """The events of one client, numbered, with the newest kept for replay."""

    def __init__(self, *, cid: str, user: str, client_id: str, url: str, ring_size: int, now: float) -> None:
        self.cid = cid
        self.user = user
        self.client_id = client_id
        self.url = url
        self.timeout = DEFAULT_TIMEOUT
        self.subscriptions: dict[tuple[str, str], Subscription] = {}
        self.connection: Connection | None = None
        self.idle_since = now
        self._buffer: deque[tuple[int, str]] = deque(maxlen=max(1, ring_size))
        self._next = 0

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Number an event, keep it, and send it to the listener if there is one."""
        text = f"event: {kind}\nid: {self._next}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
        self._buffer.append((self._next, text))
        self._next += 1
        if self.connection is not None:
            self.connection.send(text)

    def announce(self, kind: str, **more: str) -> None:
        """Send a SYSTEM event, which has no id and is never replayed."""
        if self.connection is not None:
            self.connection.send(f"event: SYSTEM\ndata: {json.dumps({'type': kind, **more})}\n\n")

    def attach(self, connection: Connection, last_id: str | None) -> None:
        """Make ``connection`` the one listener, and replay what follows ``last_id``.

        A wrong id empties the buffer, and no id replays nothing: both as in dCache.
        """
        self.announce("COMPETING_CLIENT")
        self.detach()
        self.connection = connection
        if last_id is None:
            return
        while self._buffer and str(self._buffer[0][0]) != last_id:
            self._buffer.popleft()
        if not self._buffer:
            self.announce("EVENT_LOSS")
        for _, text in list(self._buffer)[1:]:
            connection.send(text)

    def detach(self) -> None:
        """End the listener's stream."""
        if self.connection is not None:
            self.connection.send(None)
            self.connection = None


class EventHub:
    """All channels of one frontend; called from the frontend's loop and from the name space's threads.

    :param base_url: prefix of the URLs handed out, such as ``http://127.0.0.1:3880/api/v1``.
    """

    def __init__(
        self, namespace: Namespace, base_url: Callable[[], str], clock: Callable[[], float] = time.time
    ) -> None:
        self._namespace = namespace
        self._faults = namespace.faults
        self._base_url = base_url
        self._clock = clock
        self._lock = threading.RLock()
        self._channels: dict[str, Channel] = {}

    def create(self, user: str, client_id: str) -> Channel:
        """Open a channel.

        :raises EventError: 429 over the user's limit.
        """
        with self._lock:
            if len(self.channels(user)) >= MAX_CHANNELS_PER_USER:
                raise EventError(429, "Too many channels")
            cid = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
            url = f"{self._base_url()}/events/channels/{cid}"
            channel = Channel(
                cid=cid,
                user=user,
                client_id=client_id[:256],
                url=url,
                ring_size=self._faults.ring_size,
                now=self._clock(),
            )
            self._channels[cid] = channel
            return channel

    def channels(self, user: str) -> list[Channel]:
        """The user's channels, without those that timed out."""
        with self._lock:
            self._collect()
            return [each for each in self._channels.values() if each.user == user]

    def channel(self, cid: str, user: str) -> Channel:
        """One channel.

        :raises EventError: 404, or 403 for another user's.
        """
        with self._lock:
            self._collect()
            if (channel := self._channels.get(cid)) is None:
                raise EventError(404, "No such channel")
            if channel.user != user:
                raise EventError(403, "Not your channel")
            return channel

    def remove(self, channel: Channel) -> None:
        """Close a channel, its subscriptions and its stream."""
        with self._lock:
            for subscription in list(channel.subscriptions.values()):
                self.unsubscribe(channel, subscription)
            channel.detach()
            self._channels.pop(channel.cid, None)

    def attach(self, channel: Channel, connection: Connection, last_id: str | None) -> None:
        """See :meth:`Channel.attach`."""
        with self._lock:
            channel.attach(connection, last_id)

    def release(self, channel: Channel, connection: Connection) -> None:
        """Note that a listener has gone; the channel's time starts to run."""
        with self._lock:
            if channel.connection is connection:
                channel.connection = None
            channel.idle_since = self._clock()

    def drop_streams(self) -> None:
        """End every stream; the channels stay."""
        with self._lock:
            for channel in self._channels.values():
                channel.detach()
                channel.idle_since = self._clock()

    def lose_everything(self, *, announce: bool) -> None:
        """Forget every channel, as a restart does."""
        with self._lock:
            for channel in list(self._channels.values()):
                if announce:
                    channel.announce("SHUTDOWN")
                for subscription in channel.subscriptions.values():
                    subscription.cancel()
                channel.detach()
            self._channels.clear()

    def announce_event_loss(self) -> None:
        """Send ``SYSTEM EVENT_LOSS`` to every listener."""
        with self._lock:
            for channel in self._channels.values():
                channel.announce("EVENT_LOSS")

    def subscribe_inotify(self, channel: Channel, selector: Any) -> tuple[Subscription, bool]:
        """Watch a directory or file; False says that an existing watch got the new flags.

        :raises EventError: 400 with dCache's wording.
        """
        flags, once = _read_selector(selector)
        try:
            entry = self._namespace.stat(selector["path"])
        except NamespaceError as error:
            raise EventError(400, f"Bad selector: {error}") from error
        if entry is None:
            raise EventError(400, "Not found: no such file or directory")
        given = selector.get("flags")
        if given and "IN_ONLYDIR" in given and not entry.directory:
            raise EventError(400, "Failed condition: not a directory")
        with self._lock:
            sid = base64.b64encode(bytes.fromhex(entry.pnfsid)).decode()
            url = f"{channel.url}/subscriptions/inotify/{quote(sid, safe='+')}"
            old = channel.subscriptions.get(("inotify", sid))
            shown = dict(selector)
            if old is not None and given and "IN_MASK_ADD" in given:  # dCache shows the union, but applies the new ones
                shown["flags"] = sorted({*old.selector.get("flags", []), *given})
            new = Subscription("inotify", sid, url, shown, entry.pnfsid, flags, once)
            channel.subscriptions["inotify", sid] = new
            if old is None:
                channel.announce("NEW_SUBSCRIPTION", subscription=url)
            return new, old is None

    def subscribe_metronome(self, channel: Channel, selector: Any) -> Subscription:
        """Tick at an interval; must be called on the frontend's loop.

        :raises EventError: 400 for a bad selector.
        """
        delay, message, count = _read_metronome(selector)
        with self._lock:
            sid = secrets.token_urlsafe(8)
            url = f"{channel.url}/subscriptions/metronome/{sid}"
            subscription = Subscription("metronome", sid, url, dict(selector))
            channel.subscriptions["metronome", sid] = subscription
            ticking = asyncio.get_running_loop().create_task(self._tick(channel, subscription, delay, message, count))
            loop = asyncio.get_running_loop()

            def cancel() -> None:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(ticking.cancel)

            subscription.cancel = cancel
            channel.announce("NEW_SUBSCRIPTION", subscription=url)
            return subscription

    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None:
        """End one subscription."""
        with self._lock:
            subscription.cancel()
            if channel.subscriptions.pop((subscription.kind, subscription.sid), None) is not None:
                channel.announce("SUBSCRIPTION_CLOSED", subscription=subscription.url)

    def hear(self, happening: Happening) -> None:
        """Take an event from the name space to every subscription that wants it, unless it gets lost."""
        with self._lock:
            for channel in list(self._channels.values()):
                for subscription in list(channel.subscriptions.values()):
                    if subscription.watched == happening.watched and subscription.wants(happening):
                        self._deliver(channel, subscription, happening)

    def overflow(self) -> None:
        """Tell every watch that events were lost (``IN_Q_OVERFLOW``)."""
        with self._lock:
            for channel in self._channels.values():
                for subscription in channel.subscriptions.values():
                    if subscription.kind == "inotify":
                        _publish(channel, subscription, {"mask": ["IN_Q_OVERFLOW"]})

    def _deliver(self, channel: Channel, subscription: Subscription, happening: Happening) -> None:
        if self._faults.take("drop_events"):
            self.overflow()
            return
        if self._faults.take("lose_events_silently"):
            return
        event: dict[str, Any] = {"mask": list(happening.mask)}
        if happening.name is not None:
            event = {"name": happening.name, **event}
        if happening.cookie is not None:
            event["cookie"] = happening.cookie
        _publish(channel, subscription, event)
        if subscription.once or happening.mask[0] == "IN_DELETE_SELF":
            _publish(channel, subscription, {"mask": ["IN_IGNORED"]})
            self.unsubscribe(channel, subscription)

    async def _tick(
        self, channel: Channel, subscription: Subscription, delay: float, message: str, count: int | None
    ) -> None:
        number = 0
        while count is None or number < count:
            await asyncio.sleep(delay)
            number += 1
            text = message.replace("${username}", channel.user).replace("${count}", str(number))
            with self._lock:
                channel.publish("metronome", {"event": text, "subscription": subscription.url})
        self.unsubscribe(channel, subscription)

    def _collect(self) -> None:
        now = self._clock()
        for channel in list(self._channels.values()):
            if channel.connection is None and now - channel.idle_since > channel.timeout:
                self.remove(channel)


def _publish(channel: Channel, subscription: Subscription, event: dict[str, Any]) -> None:
    channel.publish("inotify", {"event": event, "subscription": subscription.url})


def _read_selector(selector: Any) -> tuple[frozenset[str], bool]:
    if not isinstance(selector, dict) or not isinstance(selector.get("path"), str):
        raise EventError(400, "Bad selector: path is missing")
    if unknown := sorted(set(selector) - {"path", "flags"}):
        raise EventError(400, f"Bad selector: unknown fields {unknown}")
    path = selector["path"]
    if not path.startswith("/") or (path != "/" and path.endswith("/")):
        raise EventError(400, "Bad selector: path must be absolute, without a slash at the end")
    given = selector.get("flags")
    if given is None:
        return _PLAIN, False
    if not isinstance(given, list):
        raise EventError(400, "Bad selector: flags must be a list")
    return _expand(given), "IN_ONESHOT" in given


def _expand(given: Iterable[Any]) -> frozenset[str]:
    flags: set[str] = set()
    for name in given:
        if name in _MACROS:
            flags |= _MACROS[name]
        elif name in _PLAIN:
            flags.add(name)
        elif name not in _MODIFIERS:
            raise EventError(400, f"Bad selector: unknown flag {str(name)[:40]!r}")
    return frozenset(flags)


def _read_metronome(selector: Any) -> tuple[float, str, int | None]:
    if not isinstance(selector, dict) or set(selector) - {"delay", "frequency", "message", "count"}:
        raise EventError(400, "Bad selector: expected delay or frequency, message, count")
    if ("delay" in selector) == ("frequency" in selector):
        raise EventError(400, "Bad selector: give exactly one of delay and frequency")
    try:
        delay = float(selector["delay"]) if "delay" in selector else 1 / float(selector["frequency"])
        count = int(selector["count"]) if "count" in selector else None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise EventError(400, "Bad selector: not a number") from error
    if not 1e-6 <= delay <= 300:
        raise EventError(400, "Bad selector: delay must be between 0.000001 and 300 seconds")
    return delay, str(selector.get("message", "tick")), count
