# SPDX-License-Identifier: Apache-2.0
"""Follows a source as the triggerer does, and stores what it tells when a test says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

from airflow_provider_oscar.watch.producer import WatchProducer
from airflow_provider_oscar.watch.source import Page
from airflow_provider_oscar.watch.sources.notified import NotifiedSource


class Watch:
    """What a source told: keys in the order of their first page, and how many listings there were."""

    def __init__(self, source: NotifiedSource) -> None:
        self.source = source
        self.heard: dict[str, str] = {}
        self.listings = 0
        self.storing = True
        self.failing = 0
        self._held: list[Page] = []
        self._producer: Any = None

    @property
    def connected(self) -> bool:
        """Whether the channel is open."""
        return self.source.channel is not None

    async def follow(self) -> None:
        self._producer = WatchProducer(lambda: self.source)
        try:
            async for page, _ in self._producer.open_stream():
                for event in page.events:
                    self.heard.setdefault(event.key, event.reason.value)
                self.listings += page.last
                self._held.append(page)
                if self.storing:
                    await self.store()
        finally:
            await self._producer.aclose()

    async def store(self) -> None:
        """Say that the events of all pages so far are stored, or failed."""
        held, self._held = self._held, []
        for page in held:
            failed = bool(self.failing and page.events)
            self.failing -= failed
            await self._producer.advance([AdvanceItem(page, AdvanceOutcome(acked=not failed, failed=int(failed)))])

    async def until(self, condition: Callable[[], bool], *, seconds: float = 120) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - the condition is about other people's state
                await asyncio.sleep(0.02)


@asynccontextmanager
async def following(source: NotifiedSource) -> AsyncIterator[Watch]:
    """Follow a source from its first listing on."""
    watch = Watch(source)
    task = asyncio.create_task(watch.follow())
    try:
        await watch.until(lambda: watch.listings > 0)
        yield watch
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
