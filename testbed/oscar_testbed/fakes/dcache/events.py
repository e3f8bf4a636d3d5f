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
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from oscar_testbed.fakes.dcache.entries import Happening, NamespaceError
from oscar_testbed.fakes.dcache.namespace import Namespace
from oscar_testbed.fakes.dcache.selectors import EventError, read_metronome, read_selector

MAX_CHANNELS_PER_USER = 128
DEFAULT_TIMEOUT = 300
MAX_TIMEOUT = 86400
_MANAGEMENT = frozenset({"IN_IGNORED", "IN_Q_OVERFLOW"})


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

        A wrong id empties the buffer; no id, or one that is not a number, replays nothing: as in dCache.
        """
        self.announce("COMPETING_CLIENT")
        self.detach()
        self.connection = connection
        if last_id is None or not (last_id.isascii() and last_id.isdigit()):
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
    """All channels of one frontend; called from the frontend's loop and from the namespace's threads.

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
                raise EventError(429, "Too Many Requests")
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
        flags, once = read_selector(selector)
        try:
            entry = self._namespace.stat(selector["path"])
        except NamespaceError as error:
            raise EventError(400, f"Bad selector: {error}") from error
        if entry is None:
            raise EventError(
                400, f"Not found: Problem with path: No such file or directory /{selector['path'].strip('/')}"
            )
        given = selector.get("flags")
        if given and "IN_ONLYDIR" in given and not entry.directory:
            raise EventError(400, "Failed condition: IN_ONLYDIR with REGULAR target")
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
        delay, message, count = read_metronome(selector)
        with self._lock:
            sid = str(uuid.uuid4())
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
        """Take an event from the namespace to every subscription that wants it, unless it gets lost."""
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
            cookie = {} if happening.cookie is None else {"cookie": happening.cookie}
            event = {"name": happening.name, **cookie, **event}
        _publish(channel, subscription, event)
        if subscription.once or happening.mask[0] == "IN_DELETE_SELF":
            self.unsubscribe(channel, subscription)
            _publish(channel, subscription, {"mask": ["IN_IGNORED"]})

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
