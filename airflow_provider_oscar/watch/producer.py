# SPDX-License-Identifier: Apache-2.0
"""Runs one source for all watchers of a place, and writes their memory when events are stored.

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
from airflow_provider_oscar.watch.pages import Commit, Page, Source
from airflow_provider_oscar.watch.trouble import Trouble

log = logging.getLogger(__name__)

#: Objects of one page, and pages handed out and not yet advanced. Together they bound the framework's queues and
#: how many events must be stored before Airflow's acknowledgement timeout (300 s) strikes.
PAGE_SIZE = 200
PAGES_OUTSTANDING = 4


@cache
def _spare_collections() -> None:
    """Take what the process holds now, Airflow's modules above all, out of garbage collection; once.

    A first poll allocates enough to set off a full collection, which else stalls every trigger of the process: 80 ms
    measured for 100 000 keys, 20 ms with this.
    """
    gc.freeze()


class WatchProducer(SharedStreamProducer):
    """Hands out the pages of ``source`` for ever; no error of the source ends it.

    :param source: what to list; made on the first use, since the factory must not touch the network.
    """

    def __init__(self, make_source: Callable[[], Source], *, outstanding: int = PAGES_OUTSTANDING) -> None:
        self._make_source = make_source
        self._source: Source | None = None
        self._limit = outstanding
        self._outstanding = 0
        self._room = asyncio.Event()
        self._unsaved: dict[Hashable, Commit] = {}
        self._saving = asyncio.Lock()

    async def open_stream(self) -> AsyncGenerator[tuple[Page, Page], None]:
        """Yield every page twice: once for the watchers, once for :meth:`advance`."""
        source = self._source = self._make_source()
        _spare_collections()
        trouble = Trouble(log, source.about)
        while True:
            pause = 0.0
            try:
                async with aclosing(source.sweep()) as pages:
                    async for whole in pages:
                        for page in whole.slices(PAGE_SIZE):
                            await self._wait_for_room()
                            yield page, page
                trouble.passed()
            except Exception as error:  # noqa: BLE001 - whatever a source raises, the watch goes on
                pause = trouble.failed(error)
            await self._save()
            try:
                async with aclosing(source.hints(pause)) as pages:
                    async for whole in pages:
                        for page in whole.slices(PAGE_SIZE):
                            await self._wait_for_room()
                            yield page, page
            except Exception as error:  # noqa: BLE001 - as above
                await asyncio.sleep(trouble.failed(error))

    async def _wait_for_room(self) -> None:
        while self._outstanding >= self._limit:
            self._room.clear()
            await self._room.wait()
        self._outstanding += 1

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Write the memory of the watchers whose events are stored; never raises."""
        for page, outcome in batch:
            if outcome.is_clean:
                self._unsaved.update(page.commits)
            if page.settle is not None:
                page.settle(outcome.is_clean)
            if self._source is not None:
                self._direct(self._source, page)
        self._outstanding -= len(batch)
        self._room.set()
        await self._save()

    def _direct(self, source: Source, page: Page) -> None:
        """Tell the source what the watchers of the page need of the next sweep."""
        if page.wants_sweep:
            source.resume_after("")
            source.request_sweep()
        elif page.resumes:
            source.resume_after(min(page.resumes))

    async def _save(self) -> None:
        """Run the commits that are due; one that fails stays due, and says so itself."""
        async with self._saving:  # so that an older memory never overwrites a newer one
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
