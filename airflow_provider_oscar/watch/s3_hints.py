# SPDX-License-Identifier: Apache-2.0
"""The S3 source with notifications: a listing now and then, and in between what a channel told.

Each object that is named is looked at (HEAD), so that it gets the identity that a listing gives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, Reason
from airflow_provider_oscar.watch.channel import Channel, Ear, Heard, Tally
from airflow_provider_oscar.watch.pages import Page
from airflow_provider_oscar.watch.s3 import S3Source

#: Seconds a sweep waits for the channel, so that one listing does where two would be needed.
_PATIENCE = 10.0
#: Objects looked at at the same time, and with one page.
_PARALLEL = 8
_KEYS = 100


class NotifiedS3Source(S3Source):
    """Lists a prefix, hears of new objects, and lists it again whenever some may have been missed.

    :param open_channel: makes the channel.
    :param reconcile_interval: seconds between sweeps while the channel is open; ``interval`` applies while it is not.
    """

    def __init__(self, *, open_channel: Callable[[], Channel], reconcile_interval: float, **options: Any) -> None:
        super().__init__(**options)
        self._reconcile_interval = reconcile_interval
        self._open_channel = open_channel
        self._ear: Ear | None = None
        self._clock: tuple[datetime, float] | None = None
        self._tally = Tally(f"{self.about}: notifications")

    @property
    def ear(self) -> Ear:
        """What listens; made on first use, within the event loop."""
        if self._ear is None:
            self._ear = Ear(self._open_channel())
        return self._ear

    def request_sweep(self) -> None:
        """End :meth:`hints` early."""
        self.ear.lost = True
        self.ear.changed.set()

    async def sweep(self) -> AsyncGenerator[Page, None]:
        """List the prefix; what was missed before is covered by it."""
        self.ear.start()
        await self.ear.tried(_PATIENCE)
        self.ear.listing_begins()
        try:
            async with contextlib.aclosing(super().sweep()) as pages:
                async for page in pages:
                    if page.first and page.server_time is not None:
                        self._clock = page.server_time, time.monotonic()
                    yield page
        except Exception:
            self.ear.lost = True
            raise

    async def hints(self, pause: float) -> AsyncGenerator[Page, None]:
        """Look at what was heard, until a sweep is due or called for."""
        ear = self.ear
        started = beat = time.monotonic()
        while True:
            now = time.monotonic()
            due = started + max(pause, self._reconcile_interval if ear.connected else self.interval)
            early = started + max(pause, self.interval)
            if due <= now or (ear.lost and early <= now):
                return
            if not ear.waiting:
                until = min(due, early if ear.lost else due, beat + self.interval) - now
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ear.changed.wait(), max(until, 0.01))
                ear.changed.clear()
            page = await self._confirmed(ear.take(_KEYS))
            if page.events or time.monotonic() - beat >= self.interval:  # an empty page lets newcomers speak up
                beat = time.monotonic()
                yield page
            elif page.settle is not None:
                page.settle(True)

    async def _confirmed(self, heard: list[Heard]) -> Page:
        """Return those of the objects that are there."""
        settles = [each.settle for each in heard if each.settle is not None]

        def settle(stored: bool) -> None:
            for each in settles:
                each(stored)

        gate = asyncio.Semaphore(_PARALLEL)

        async def look(key: str) -> ObjectEvent | None:
            async with gate:
                return await asyncio.to_thread(self._head, key)

        keys = dict.fromkeys(key for each in heard for key in each.keys)
        try:
            found = await asyncio.gather(*(look(key) for key in keys))
        except Exception:
            settle(False)
            await self._drop_hook()
            self.ear.lost = True
            raise
        events = [event for event in found if event is not None]
        return Page(events, hint=True, server_time=self._server_time(), settle=settle if settles else None)

    def _head(self, key: str) -> ObjectEvent | None:
        try:
            event: ObjectEvent | None = self.hook().head(self._bucket, key)
        except (DefinitionError, PermanentError) as error:
            # Where HEAD is not allowed, or the store refuses this key, the listing has to show it.
            self._tally.add("objects that could not be looked at and are left to the listing", quoted(error))
            self.ear.lost = True
            return None
        # A listing tells no version id, and the same object must get the same identity both ways.
        return replace(event, version_id="", reason=Reason.CREATED) if event is not None else None

    def _server_time(self) -> datetime | None:
        if self._clock is None:
            return None
        then, moment = self._clock
        return then + timedelta(seconds=time.monotonic() - moment)

    async def aclose(self) -> None:
        """Close the channel."""
        if self._ear is not None:
            await self._ear.aclose()
        await super().aclose()
