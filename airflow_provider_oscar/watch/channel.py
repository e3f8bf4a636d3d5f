# SPDX-License-Identifier: Apache-2.0
"""What a store's notifications have in common: they come through a channel, and an ear keeps it open.

What is heard is a hint. A channel may lose it, repeat it, or say what is not true; the listing repairs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from airflow_provider_oscar.watch.trouble import Trouble

log = logging.getLogger(__name__)

#: Hints kept until they are looked at.
MOST_HEARD = 1000
#: Seconds a connection must hold until failures before it are forgotten.
_STEADY = 2.0


@dataclass(frozen=True)
class Heard:
    """One delivery.

    :param keys: keys of objects that may be there now.
    :param settle: to be told whether all that follows from it is stored; None where nobody waits for that.
    """

    keys: tuple[str, ...]
    settle: Callable[[bool], None] | None = None


class Channel(ABC):
    """One way on which a store tells of new objects; owned by one :class:`Ear`."""

    lossy: bool
    """Whether what happens while nobody reads is lost, so that the place must be listed after each connection."""

    @property
    @abstractmethod
    def about(self) -> str:
        """Words for messages."""

    @abstractmethod
    def listen(self) -> AsyncGenerator[Heard | None, None]:
        """Yield what is heard, and None when the channel is open and now and then afterwards.

        :raises OscarProviderError: when it breaks; it is opened again.
        """

    async def aclose(self) -> None:  # noqa: B027 - not every channel holds something
        """Release connections; must not raise."""


class Tally:
    """Counts what is passed over, and says so at the first, the tenth, the hundredth…"""

    def __init__(self, about: str) -> None:
        self._about = about
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, example: str = "") -> None:
        """Count one of a kind."""
        self.counts[kind] += 1
        count = self.counts[kind]
        if str(count).rstrip("0") == "1":
            log.info("%s: %d %s passed over%s", self._about, count, kind, f", such as {example}" if example else "")


class Ear:
    """A task that keeps a channel open for ever, and what it heard; started once, ended by :meth:`aclose`."""

    def __init__(self, channel: Channel, *, most: int = MOST_HEARD) -> None:
        self.changed = asyncio.Event()
        """Set when there is something to take, and when the connection comes or goes."""
        self.lost = False
        """Something may have been missed; only a listing tells."""
        self.connected = False
        self._channel = channel
        self._most = most
        self._heard: deque[Heard] = deque()
        self._room = asyncio.Event()
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start listening, unless it is done already."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name=self._channel.about)

    async def tried(self, seconds: float) -> None:
        """Wait until the first attempt to connect has succeeded or failed, ``seconds`` at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._tried.wait(), seconds)

    def listing_begins(self) -> None:
        """Take note that the place is listed from now on, which covers what was missed."""
        self.lost = False
        if self._channel.lossy:
            self._heard.clear()

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._heard)

    def take(self, most_keys: int) -> list[Heard]:
        """Return what was heard, oldest first, up to about so many keys."""
        taken: list[Heard] = []
        keys = 0
        while self._heard and keys < most_keys:
            taken.append(self._heard.popleft())
            keys += len(taken[-1].keys)
        self._room.set()
        return taken

    async def _listen(self) -> None:
        trouble = Trouble(log, self._channel.about)
        while True:
            try:
                await self._read(trouble)
            except Exception as error:  # noqa: BLE001 - whatever it is, the place is listed meanwhile
                pause = trouble.failed(error)
                self.connected = False
                self.lost = self.lost or self._channel.lossy
                self._tried.set()
                self.changed.set()
                await asyncio.sleep(pause)

    async def _read(self, trouble: Trouble) -> None:
        async with aclosing(self._channel.listen()) as stream:
            async for heard in stream:
                if not self.connected:
                    self.connected, opened = True, time.monotonic()
                    self.lost = self.lost or self._channel.lossy
                    self._tried.set()
                    self.changed.set()
                elif trouble.failures and time.monotonic() - opened > _STEADY:
                    trouble.passed()
                if heard is not None:
                    await self._keep(heard)

    async def _keep(self, heard: Heard) -> None:
        while len(self._heard) >= self._most:
            if self._channel.lossy:  # a stream that is not read loses events silently, so it is better done here
                self._heard.clear()
                self.lost = True
                break
            self._room.clear()
            await self._room.wait()
        self._heard.append(heard)
        self.changed.set()

    async def aclose(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._channel.aclose()
