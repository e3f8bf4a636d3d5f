# SPDX-License-Identifier: Apache-2.0
"""The sensors' way of looking: no memory, only a moment from which on objects are new."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime

from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

from airflow_provider_oscar.model.objects import ObjectEvent, Reason
from airflow_provider_oscar.triggers._watch.pages import Page
from airflow_provider_oscar.triggers._watch.producer import WatchProducer

#: Most objects returned; they go through a trigger event and XCom.
BATCH_LIMIT = 1000


async def first_found(
    producer: WatchProducer, accepts: Callable[[ObjectEvent], bool], *, since: datetime | None
) -> list[ObjectEvent]:
    """Wait for the first listing (or notification) that shows new objects; return them, oldest first.

    :param since: store's time from which on objects are new; None to take all. A file that was moved in is new.
    """

    def new(event: ObjectEvent) -> bool:
        return accepts(event) and (since is None or event.modified >= since or event.reason is Reason.MOVED)

    found: list[ObjectEvent] = []
    async with aclosing(producer.open_stream()) as pages:
        async for page, payload in pages:
            found = _gathered(found, page, [event for event in page.events if new(event)])
            await producer.advance([AdvanceItem(payload, AdvanceOutcome(acked=1, failed=0))])
            if found and (page.last or page.hint):
                break
    return sorted(found, key=lambda event: (event.modified, event.key))[:BATCH_LIMIT]


def _gathered(before: list[ObjectEvent], page: Page, fresh: list[ObjectEvent]) -> list[ObjectEvent]:
    return fresh if page.first or page.hint else before + fresh
