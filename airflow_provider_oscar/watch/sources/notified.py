# SPDX-License-Identifier: Apache-2.0
"""A source with notifications: a full listing now and then, and in between what a channel delivered.

Each object that is named is confirmed by the store, so that it gets the identity that a listing gives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta

from airflow_provider_oscar.core.objects import ObjectEvent, Reason
from airflow_provider_oscar.watch.notifications.listener import Channel, Delivery, NotificationListener
from airflow_provider_oscar.watch.source import ListingSource, Page, Unconfirmed

#: Seconds a listing waits for the channel, so that one does where two would be needed.
_CONNECT_PATIENCE = 10.0
#: Objects looked at at the same time, and with one page.
_PARALLEL_LOOKS = 8
_KEYS_PER_PAGE = 100
#: A place is not listed again before so many times as long have passed as its listing took.
_REST = 4.0
#: How often, and after how many seconds, an unfinished object is looked at again.
_LOOK_AGAIN_AFTER = (0.5, 1.0, 2.0, 4.0, 8.0)


#: Makes the channel; None if the connection offers no notifications.
OpenChannel = Callable[[], Awaitable[Channel | None]]


@dataclass(frozen=True)
class _Retry:
    reason: Reason
    looks: int
    due: float


@dataclass(eq=False)
class NotifiedSource(ListingSource):
    """Lists a place, hears of new objects, and lists it again whenever some may have been missed.

    :param source: what lists the place.
    :param open_channel: makes the channel; asked again before each listing while it gives none.
    :param reconcile_interval: seconds between full listings while the channel is open; the interval of ``source``
        applies while it is not.
    :param spacing: least seconds between listings that are called for; longer where a listing takes long.
    :param clock: seconds of a steady clock.
    """

    source: ListingSource
    open_channel: OpenChannel
    _: KW_ONLY
    reconcile_interval: float
    spacing: float
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.interval = self.source.interval
        self.source.before_listing = self._watch
        self.listener: NotificationListener | None = None
        self._rest = 0.0
        self._server_clock: tuple[datetime, float] | None = None
        self._retries: dict[str, _Retry] = {}

    @property
    def display_name(self) -> str:
        """The place and the connection."""
        return self.source.display_name

    @property
    def channel(self) -> Channel | None:
        """The channel while it is open."""
        return self.listener.channel if self.listener is not None and self.listener.connected else None

    async def _watch(self, directory: str) -> None:
        if self.channel is not None:  # watched first and listed afterwards, so that nothing falls between
            await self.channel.watch(directory)

    def request_full_listing(self) -> None:
        """End :meth:`incremental` early."""
        if self.listener is not None:
            self.listener.mark_missed()

    def request_page(self) -> None:
        """Have :meth:`incremental` yield a page soon."""
        if self.listener is None:
            self.source.request_page()
            return
        super().request_page()
        self.listener.changed.set()

    def resume_after(self, key: str) -> None:
        """Have listings begin after a key."""
        self.source.resume_after(key)

    async def full_listing(self) -> AsyncGenerator[Page, None]:
        """List the place; what was missed before is covered by it."""
        if self.listener is None and (channel := await self.open_channel()) is not None:
            self.listener = NotificationListener(channel, clock=self.clock)
        if self.listener is not None:
            self.listener.start()
            await self.listener.wait_first_attempt(_CONNECT_PATIENCE)
            self.listener.mark_listing_started()
        self._retries.clear()
        began = self.clock()
        with self._missed_on_error():
            async with contextlib.aclosing(self.source.full_listing()) as pages:
                async for page in pages:
                    if page.first and page.server_time is not None:
                        self._server_clock = page.server_time, self.clock()
                    yield page
        self._rest = _REST * (self.clock() - began)

    async def incremental(self, pause: float) -> AsyncGenerator[Page, None]:
        """Look at what was delivered, until a full listing is due or called for."""
        listener = self.listener
        if listener is None:
            async for page in self.source.incremental(pause):
                yield page
            return
        started = beat = self.clock()
        while True:
            now = self.clock()
            due = started + max(pause, self.reconcile_interval if listener.connected else self.interval)
            early = started + max(pause, self.spacing, min(self._rest, self.interval))
            if due <= now or (listener.missed and early <= now):
                return
            if not listener.pending and not self._page_asked.is_set():
                looks = (retry.due for retry in self._retries.values())
                wake = min(due, early if listener.missed else due, beat + self.interval, *looks)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(wake - now, 0.01)):
                        await listener.changed.wait()
                listener.changed.clear()
            deliveries = listener.drain(_KEYS_PER_PAGE)
            with self._missed_on_error(deliveries):
                for directory in [each for delivery in deliveries for each in delivery.directories]:
                    async for page in self.source.expand(directory):
                        yield page
                page = await self._confirmed(deliveries)
            asked = self._page_asked.is_set()
            if page.events or asked or self.clock() - beat >= self.interval:  # an empty page lets newcomers speak up
                beat = self.clock()
                self._page_asked.clear()
                yield page
            elif page.on_persisted is not None:
                page.on_persisted(True)

    @contextlib.contextmanager
    def _missed_on_error(self, deliveries: list[Delivery] | None = None) -> Iterator[None]:
        """What was delivered and is not dealt with is delivered again, or covered by another listing."""
        try:
            yield
        except Exception:
            _ack(deliveries or [])(False)
            self.request_full_listing()
            raise

    async def _confirmed(self, deliveries: list[Delivery]) -> Page:
        """Return those of the objects that are there and whole."""
        now = self.clock()
        wanted = {key: (reason, 0) for delivery in deliveries for key, reason in delivery.keys.items()}
        for key, retry in list(self._retries.items()):
            if retry.due <= now:
                del self._retries[key]
                wanted.setdefault(key, (retry.reason, retry.looks))
        gate = asyncio.Semaphore(_PARALLEL_LOOKS)

        async def look_up(key: str, reason: Reason) -> ObjectEvent | Unconfirmed | None:
            async with gate:
                return await self.source.look_up(key, reason)

        found = await asyncio.gather(*(look_up(key, reason) for key, (reason, _) in wanted.items()))
        events: list[ObjectEvent] = []
        for (key, (reason, looks)), seen in zip(wanted.items(), found, strict=True):
            if isinstance(seen, ObjectEvent):
                events.append(seen)
            elif seen is Unconfirmed.LISTING:
                self.request_full_listing()
            elif seen is Unconfirmed.UNFINISHED and looks < len(_LOOK_AGAIN_AFTER):
                self._retries[key] = _Retry(reason, looks + 1, self.clock() + _LOOK_AGAIN_AFTER[looks])
        waits = any(delivery.ack is not None for delivery in deliveries)
        return Page(
            events,
            incremental=True,
            server_time=self._server_time(),
            on_persisted=_ack(deliveries) if waits else None,
        )

    def _server_time(self) -> datetime | None:
        if self._server_clock is None:
            return None
        then, moment = self._server_clock
        return then + timedelta(seconds=self.clock() - moment)

    async def aclose(self) -> None:
        """Close the channel and the source."""
        if self.listener is not None:
            await self.listener.aclose()
        await self.source.aclose()


def _ack(deliveries: list[Delivery]) -> Callable[[bool], None]:
    def ack(stored: bool) -> None:
        for delivery in deliveries:
            if delivery.ack is not None:
                delivery.ack(stored)

    return ack
