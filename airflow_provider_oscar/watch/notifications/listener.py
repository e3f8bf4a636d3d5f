# SPDX-License-Identifier: Apache-2.0
"""One listener for all notification channels.

What a channel delivers proves nothing. A channel may lose it, repeat it, or deliver what is not true: each object
that is named is looked at, and whenever something may have been missed the place is listed. So notifications need not
be stored, and a lost channel costs a listing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, TypeVar

from airflow_provider_oscar.core.backoff import LoggedBackoff
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.notification_formats import detect
from airflow_provider_oscar.core.notifications import Notification
from airflow_provider_oscar.core.objects import Reason

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds a connection must hold until failures before it are forgotten.
_STEADY = 2.0


@dataclass(frozen=True)
class Delivery:
    """One delivery of a channel.

    :param keys: keys of objects that may be there now, and how they came to be.
    :param directories: keys of directories that appeared.
    :param missed: something may have been missed; only a listing tells.
    :param ack: called with whether all that follows from the delivery is stored; None where nobody waits for that.
    """

    keys: Mapping[str, Reason] = field(default_factory=dict)
    directories: tuple[str, ...] = ()
    missed: bool = False
    ack: Callable[[bool], None] | None = None


class Channel(ABC):
    """One way on which a store tells of new objects; owned by one :class:`NotificationListener`."""

    lossy: ClassVar[bool]
    """Whether what happens while nobody reads is lost, so that the place must be listed after each connection."""
    most_pending: ClassVar[int] = 1000
    """Deliveries kept until they are looked at; beyond that, what can be lost calls for a listing, the rest waits."""

    @property
    @abstractmethod
    def display_name(self) -> str:
        """Words for messages."""

    @cached_property
    def skipped(self) -> SkipCounter:
        """Counts what is passed over."""
        return SkipCounter(self.display_name)

    @abstractmethod
    def listen(self) -> AsyncGenerator[Delivery | None, None]:
        """Yield deliveries, and None when the channel is open and now and then afterwards.

        :raises OscarProviderError: when it breaks; it is opened again.
        """

    async def watch(self, directory: str) -> None:  # noqa: B027 - most channels cover the whole place
        """Have the channel cover a directory that is listed next; called while it is open.

        :raises OscarProviderError: if it cannot be watched.
        """

    async def aclose(self) -> None:  # noqa: B027 - not every channel holds something
        """Release connections; must not raise."""


class BlockingChannel(Channel):
    """A channel whose client blocks: it has threads of its own, since waiting for messages keeps one busy.

    :param name: of the threads.
    :param workers: how many.
    """

    def __init__(self, name: str, workers: int = 1) -> None:
        self._threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix=name)

    async def _blocking(self, function: Callable[..., T], *values: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *values)

    async def aclose(self) -> None:
        """End the threads; one that waits ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class SkipCounter:
    """Counts what is passed over, and logs the first, the tenth, the hundredth…

    :param display_name: what is passed over, for the log.
    """

    def __init__(self, display_name: str) -> None:
        self._display_name = display_name
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, example: str = "", *, unknown: bool = False) -> None:
        """Count one of a kind.

        :param kind: what it is.
        :param example: quoted.
        :param unknown: it could not be read, so that it may have told of an object: a warning.
        """
        self.counts[kind] += 1
        count = self.counts[kind]
        if str(count).rstrip("0") == "1":
            level = logging.WARNING if unknown else logging.INFO
            such = f", such as {example}" if example else ""
            log.log(level, "%s: %d %s passed over%s", self._display_name, count, kind, such)


#: Reads the notifications of one message; what cannot be read is added to the list ``unread``.
Detect = Callable[..., list[Notification]]


class KeyReader:
    """Takes the keys of the watched place out of messages, and counts what it passes over.

    :param skipped: counts.
    :param keys: takes what belongs to the place from a message's notifications.
    :param read: reads a message; by its shape, unless another form is agreed on.
    :param what: what a message is called in the log.
    """

    def __init__(
        self,
        skipped: SkipCounter,
        keys: Callable[[list[Notification]], dict[str, Reason]],
        *,
        read: Detect = detect,
        what: str = "messages",
    ) -> None:
        self._skipped = skipped
        self._keys = keys
        self._read = read
        self._what = what

    def __call__(self, message: bytes | str) -> dict[str, Reason]:
        """Return the keys of objects that may be there now, and how they came to be."""
        unread: list[str] = []
        try:
            found = self._read(message, unread=unread)
        except DefinitionError as error:
            self._skipped.add(f"{self._what} that are not a notification", quoted(error), unknown=True)
            return {}
        for each in unread:
            self._skipped.add(f"parts of {self._what} that are not a notification", each, unknown=True)
        keys = self._keys(found)
        if not keys:
            self._skipped.add(f"{self._what} without a new object of this place", quoted(message[:200]))
        return keys


def new_keys(notifications: list[Notification], *, bucket: str, prefix: str) -> dict[str, Reason]:
    """Return the keys of objects that may be there now and belong to the place, and how they came to be."""
    return {
        key: each.reason
        for each in notifications
        # Where a sender does not say whether it encodes the key, both are looked at.
        for key in (each.key, each.other_key)
        if key and each.reason is not None and each.container == bucket and key.startswith(prefix)
    }


class NotificationListener:
    """A task that keeps a channel open forever, and what it delivered; started once, ended by :meth:`aclose`.

    :param clock: seconds of a steady clock.
    :param channel: where the notifications come from.
    """

    def __init__(self, channel: Channel, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.channel = channel
        self.changed = asyncio.Event()
        """Set when there is something to take, and when the connection comes or goes."""
        self.missed = False
        """Something may have been missed; only a listing tells."""
        self.connected = False
        self._clock = clock
        self._pending: deque[Delivery] = deque()
        self._room = asyncio.Event()
        self._attempted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start listening, unless it is done already."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name=self.channel.display_name)

    async def wait_first_attempt(self, seconds: float) -> None:
        """Wait until the first attempt to connect has succeeded or failed, ``seconds`` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._attempted.wait()

    def mark_listing_started(self) -> None:
        """Take note that the place is listed from now on, which covers what was missed."""
        self.missed = False

    def mark_missed(self) -> None:
        """Take note that the place has to be listed."""
        self.missed = True
        self.changed.set()

    @property
    def pending(self) -> bool:
        """Whether there is something to take."""
        return bool(self._pending)

    def drain(self, most_keys: int) -> list[Delivery]:
        """Return deliveries, oldest first, up to about so many keys."""
        taken: list[Delivery] = []
        keys = 0
        while self._pending and keys < most_keys:
            taken.append(self._pending.popleft())
            keys += len(taken[-1].keys)
        self._room.set()
        return taken

    async def _listen(self) -> None:
        backoff = LoggedBackoff(log, self.channel.display_name)
        while True:
            try:
                await self._read(backoff)
            except Exception as error:  # noqa: BLE001 - whatever it is, the place is listed meanwhile
                pause = backoff.record_failure(error)
                self._connection_changed(connected=False)
                await asyncio.sleep(pause)

    async def _read(self, backoff: LoggedBackoff) -> None:
        async with aclosing(self.channel.listen()) as stream:
            async for delivery in stream:
                if not self.connected:
                    opened = self._clock()
                    self._connection_changed(connected=True)
                elif backoff.failures and self._clock() - opened > _STEADY:
                    backoff.reset()
                if delivery is not None:
                    await self._keep(delivery)

    def _connection_changed(self, *, connected: bool) -> None:
        self.connected = connected
        self.missed = self.missed or self.channel.lossy
        self._attempted.set()
        self.changed.set()

    async def _keep(self, delivery: Delivery) -> None:
        while len(self._pending) >= self.channel.most_pending:
            # A stream that is not read loses events silently, so it is better done here; what is acknowledged waits.
            if self.channel.lossy and delivery.ack is None:
                self._pending.clear()
                self.missed = True
                break
            self._room.clear()
            await self._room.wait()
        self.missed = self.missed or delivery.missed
        if delivery.keys or delivery.directories:
            self._pending.append(delivery)
        self.changed.set()

    async def aclose(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self.channel.aclose()
