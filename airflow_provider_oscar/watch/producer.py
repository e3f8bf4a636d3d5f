# SPDX-License-Identifier: Apache-2.0
"""Runs one source for all watchers of a place, and writes their state when events are stored.

The framework broadcasts each page to the watchers that are there, waits until each has moved past it and
all events they made of it are in Airflow's database, and calls :meth:`WatchProducer.advance`. Only then,
and only if no watcher failed on the page, are the commits run that the watchers left on it. A commit
holds everything its watcher knew at that time, so that a later one covers those that were skipped.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from contextlib import aclosing
from functools import cache

from airflow_provider_oscar._airflow import AdvanceItem, SharedStreamProducer
from airflow_provider_oscar.core.backoff import LoggedBackoff, describe
from airflow_provider_oscar.watch.source import OBJECTS_PER_PAGE, Commit, ListingSource, Page

log = logging.getLogger(__name__)

#: Pages handed out and not yet advanced. With :data:`.OBJECTS_PER_PAGE` they bound the framework's queues and how many
#: events must be stored before Airflow's acknowledgement timeout (300 s) strikes.
PAGES_OUTSTANDING = 4


@cache
def _spare_collections() -> None:
    """Take what the process holds now, Airflow's modules above all, out of garbage collection; once.

    A first poll allocates enough to set off a full collection, which else stalls every trigger of the process: 80 ms
    measured for 100 000 keys, 20 ms with this.
    """
    gc.freeze()


class WatchProducer(SharedStreamProducer):
    """Hands out the pages of ``source`` forever; no error of the source ends it.

    :param make_source: makes what is listed, on the first use, since the factory must not touch the network.
    :param outstanding: pages handed out and not yet advanced.
    """

    def __init__(self, make_source: Callable[[], ListingSource], *, outstanding: int = PAGES_OUTSTANDING) -> None:
        self._make_source = make_source
        self._source: ListingSource | None = None
        self._limit = outstanding
        self._outstanding = 0
        self._room = asyncio.Event()
        self._unsaved: dict[Hashable, Commit] = {}
        self._saving = asyncio.Lock()

    async def open_stream(self) -> AsyncGenerator[tuple[Page, Page], None]:
        """Yield every page twice: once for the watchers, once for :meth:`advance`."""
        source = self._source = self._make_source()
        _spare_collections()
        backoff = LoggedBackoff(log, source.display_name)
        pause = 0.0
        while True:
            for make_pages, ends in ((source.full_listing, True), (lambda: source.incremental(pause), False)):  # noqa: B023
                try:
                    async with aclosing(make_pages()) as pages:
                        async for whole in pages:
                            for page in whole.slices(OBJECTS_PER_PAGE):
                                await self._wait_for_room()
                                yield page, page
                    pause = 0.0
                    if ends:
                        backoff.reset()
                except Exception as error:  # noqa: BLE001 - whatever a source raises, the watch goes on
                    pause = backoff.record_failure(error)
                    await self._wait_for_room()
                    failed = Page((), incremental=True, failure=describe(error))
                    yield failed, failed
                    if not ends:
                        await asyncio.sleep(pause)
                await self._save()

    async def _wait_for_room(self) -> None:
        while self._outstanding >= self._limit:
            self._room.clear()
            await self._room.wait()
        self._outstanding += 1

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Write the state of the watchers whose events are stored; never raises."""
        for page, outcome in batch:
            if outcome.is_clean:
                self._unsaved.update(page.commits)
            if page.on_persisted is not None:
                page.on_persisted(outcome.is_clean)
            if self._source is not None:
                self._direct(self._source, page)
        self._outstanding -= len(batch)
        self._room.set()
        await self._save()

    def _direct(self, source: ListingSource, page: Page) -> None:
        """Have the source's next page, and its next listing, be what the watchers of the page need."""
        if page.unfinished:
            source.request_page()
        if page.needs_full_listing:
            source.resume_after("")
            source.request_full_listing()
        elif page.cursors:
            source.resume_after(min(page.cursors))

    def request_page(self) -> None:
        """Have a page follow soon; for who acknowledges a page only after the next one."""
        if self._source is not None:
            self._source.request_page()

    async def _save(self) -> None:
        """Run the commits that are due; one that fails stays due, and logs that itself."""
        async with self._saving:  # so that an older state never overwrites a newer one
            due, self._unsaved = self._unsaved, {}
            for watcher, commit in due.items():
                try:
                    await commit()
                except Exception:  # noqa: BLE001 - the commit has logged it; a newer one may have come meanwhile
                    self._unsaved.setdefault(watcher, commit)

    async def aclose(self) -> None:
        """Close the source."""
        if self._source is not None:
            await self._source.aclose()
