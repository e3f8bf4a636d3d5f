# SPDX-License-Identifier: Apache-2.0
"""The sensors' way of looking: no memory, only a moment from which on objects are new."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime

from airflow_provider_oscar._airflow import AdvanceItem, AdvanceOutcome
from airflow_provider_oscar.core.filters import Sentinels
from airflow_provider_oscar.core.objects import ObjectEvent, Reason
from airflow_provider_oscar.watch.producer import WatchProducer
from airflow_provider_oscar.watch.source import Page
from airflow_provider_oscar.watch.threads import own_thread

#: Most objects returned; they go through a trigger event and XCom.
BATCH_LIMIT = 1000
#: Thread in which regular expressions are matched.
_MATCHING = "sensor-match"


class Since:
    """Finds the objects that are new since a moment.

    :param accepts: whether an object is of interest.
    :param moment: store's time from which on objects are new; None to take all. A file that was moved in is new.
    :param sentinel: name or ending of the file that says that others are complete; an object is then new if it or its
        sentinel is. Empty for none.
    """

    def __init__(self, accepts: Callable[[ObjectEvent], bool], moment: datetime | None, sentinel: str = "") -> None:
        self._accepts = accepts
        self._moment = moment
        self._sentinel = sentinel
        self._sentinels: Sentinels | None = None
        self._found: list[ObjectEvent] = []

    def process(self, page: Page) -> list[ObjectEvent]:
        """Return the new objects, oldest first, once a listing is complete or an incremental page tells enough."""
        if page.first or page.incremental:
            self._found = []
            self._sentinels = Sentinels(self._sentinel) if self._sentinel else None
        if self._sentinels is None:
            self._found += [event for event in page.events if self._is_new(event) and self._accepts(event)]
            return self._ordered(self._found) if page.last or page.incremental else []
        self._sentinels.note(page.events)
        self._found += [event for event in page.events if self._accepts(event)]
        if page.incremental:
            page.needs_full_listing = bool(page.events)  # the rest is not known between listings
            return []
        return self._released(self._sentinels) if page.last else []

    def _released(self, sentinels: Sentinels) -> list[ObjectEvent]:
        dated = [(event, sentinels.released(event)) for event in self._found]
        return self._ordered(
            [event for event, when in dated if when is not None and (self._is_new(event) or self._recent(when))]
        )

    def _ordered(self, events: list[ObjectEvent]) -> list[ObjectEvent]:
        # Pages may overlap, and show a key once more when it was overwritten meanwhile: then the newest counts.
        ordered = sorted(events, key=lambda event: (event.modified, event.key))
        newest = {event.key: event for event in ordered}
        return [event for event in ordered if newest[event.key] is event]

    def _is_new(self, event: ObjectEvent) -> bool:
        return self._recent(event.modified) or event.reason is Reason.MOVED

    def _recent(self, moment: datetime) -> bool:
        return self._moment is None or moment >= self._moment


async def wait_for_first(
    producer: WatchProducer,
    accepts: Callable[[ObjectEvent], bool],
    *,
    since: datetime | None,
    sentinel: str = "",
    one_listing: bool = False,
    in_thread: bool = False,
) -> list[ObjectEvent]:
    """Wait for the first listing (or notification) that shows new objects; return them, oldest first.

    :param since: store's time from which on objects are new; None to take all. A file that was moved in is new.
    :param sentinel: name or ending of the file that says that others are complete; objects are then as new as it.
    :param one_listing: end with the first complete listing, whatever it shows.
    :param in_thread: ``accepts`` may take a tenth of a second for one object, so that it is asked in a thread.
    """
    strategy = Since(accepts, since, sentinel)
    async with aclosing(producer.open_stream()) as pages:
        async for page, payload in pages:
            if in_thread:
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(own_thread(_MATCHING), strategy.process, page)
            else:
                found = strategy.process(page)
            await producer.advance([AdvanceItem(payload, AdvanceOutcome(acked=1, failed=0))])
            if found or (one_listing and page.last):
                return found[:BATCH_LIMIT]
    return []
