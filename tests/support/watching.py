# SPDX-License-Identifier: Apache-2.0
"""A dCache directory that is watched in this process, without a triggerer, so that it is quick."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

from airflow_provider_oscar.watch.arguments.dcache import DCacheArguments
from airflow_provider_oscar.watch.producer import WatchProducer
from airflow_provider_oscar.watch.sources.notified import NotifiedSource


class Watch:
    """What a source told: keys in the order of their first page, with the reason, and how many listings there were."""

    def __init__(self, source: Callable[[], NotifiedSource]) -> None:
        self._make_source = source
        self._source: NotifiedSource | None = None
        self.heard: dict[str, str] = {}
        self.listings = 0
        #: Cleared while nothing is acknowledged, so that notifications pile up.
        self.acknowledging = asyncio.Event()
        self.acknowledging.set()

    @property
    def source(self) -> NotifiedSource:
        assert self._source is not None
        return self._source

    @property
    def connected(self) -> bool:
        """Whether the notifications' stream is open."""
        return self._source is not None and self._source.channel is not None

    @property
    def channel(self) -> str:
        """Path of the event channel, open or not; empty while there is none."""
        listener = self.source.listener
        return "" if listener is None else listener.channel._channel  # type: ignore[attr-defined]

    async def follow(self) -> None:
        self._source = self._make_source()
        producer = WatchProducer(lambda: self.source)
        try:
            async for page, payload in producer.open_stream():
                for event in page.events:
                    self.heard.setdefault(event.key, event.reason.value)
                self.listings += page.last
                await self.acknowledging.wait()
                await producer.advance([AdvanceItem(payload, AdvanceOutcome(acked=1, failed=0))])
        finally:
            await producer.aclose()

    async def until(self, condition: Callable[[], bool], *, seconds: float = 120) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - the condition is about other people's state
                await asyncio.sleep(0.02)

    async def hears(self, key: str, reason: str) -> None:
        await self.until(lambda: key in self.heard)
        assert self.heard[key] == reason


@asynccontextmanager
async def watching(
    path: str, *, poll_interval: float = 60, connected: bool = True, **options: Any
) -> AsyncIterator[Watch]:
    """Watch a directory of the connection ``dcache_default``.

    :param connected: whether to begin when notifications are heard.
    """
    arguments = DCacheArguments(
        asset_name="inbox", conn_id="dcache_default", path=path, poll_interval=poll_interval, reconcile_interval=60,
        **options,
    )  # fmt: skip
    watch = Watch(arguments.source)  # type: ignore[arg-type]
    task = asyncio.create_task(watch.follow())
    try:
        await watch.until(lambda: watch.listings > 0 and (watch.connected or not connected), seconds=60)
        yield watch
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
