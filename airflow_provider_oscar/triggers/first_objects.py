# SPDX-License-Identifier: Apache-2.0
"""The trigger of the sensors: waits for new objects once, and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_oscar.core.backoff import describe
from airflow_provider_oscar.core.errors import quoted
from airflow_provider_oscar.core.filters import FilterArgument, ObjectFilter
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.patterns import SlowPatternError
from airflow_provider_oscar.core.words import require_word
from airflow_provider_oscar.triggers.stored import StoredTrigger
from airflow_provider_oscar.watch.arguments.base import WatchArguments
from airflow_provider_oscar.watch.arguments.dcache import DCacheArguments
from airflow_provider_oscar.watch.arguments.filesystem import FileSystemArguments
from airflow_provider_oscar.watch.arguments.s3 import S3Arguments
from airflow_provider_oscar.watch.policy import require_storable
from airflow_provider_oscar.watch.producer import WatchProducer
from airflow_provider_oscar.watch.strategies.since import wait_for_first

log = logging.getLogger(__name__)

#: Keys of which it is told that they are skipped.
_MOST_TOLD = 100


class ObjectsTrigger(StoredTrigger):
    """Waits for new objects once and reports ``{"objects": [ObjectEvent.to_dict(), …]}``; belongs to the sensors.

    :param kind: ``s3``, ``dcache`` or ``fsspec``; decides which of the others count.
    :param location: where to look: the arguments of ``S3NewObjectTrigger`` or ``DCacheNewObjectTrigger`` that say so.
    :param filter: conditions on an object.
    :param poll_interval: seconds between listings.
    :param since: ISO 8601 time of the store from which on objects are new; None to take all.
    :param batch: return all new objects of a listing, not the oldest alone.
    :param sentinel: as for watchers; an object is new if it or its sentinel is.
    :raises DefinitionError: for an argument that cannot be used.
    """

    def __init__(
        self,
        *,
        kind: str,
        location: Mapping[str, Any],
        filter: FilterArgument = None,
        poll_interval: float = 10.0,
        since: str | None = None,
        batch: bool = False,
        sentinel: str = "",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kind = kind
        self.location = dict(location)
        self.filter = ObjectFilter.from_argument(filter)
        self.poll_interval = poll_interval
        self.since = since
        self.batch = batch
        self.sentinel = sentinel
        self._skipped: set[str] = set()
        self.watch()

    def watch(self) -> WatchArguments:
        """Return the arguments of a watcher that looks at the same place."""
        kinds: dict[str, type[WatchArguments]] = {
            "s3": S3Arguments,
            "dcache": DCacheArguments,
            "fsspec": FileSystemArguments,
        }
        require_word(self.kind, kinds, "kind of the store")
        return kinds[self.kind](
            asset_name="sensor",
            filter=self.filter,
            poll_interval=self.poll_interval,
            sentinel=self.sentinel,
            **self.location,
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event and end."""
        yield TriggerEvent({"objects": await self._find()})

    async def poll_once(self, limit: float) -> list[dict[str, object]]:
        """Return what one listing shows, for a sensor that pokes; nothing if there is nothing new.

        :param limit: seconds the listing may take.
        """
        try:
            async with asyncio.timeout(limit):
                return await self._find(one_listing=True)
        except TimeoutError:
            return []

    async def _find(self, *, one_listing: bool = False) -> list[dict[str, object]]:
        since = datetime.fromisoformat(self.since) if self.since else None
        producer = WatchProducer(self.watch().source)
        try:
            found = await wait_for_first(
                producer,
                self._accepts,
                since=since,
                sentinel=self.sentinel,
                one_listing=one_listing,
                in_thread=bool(self.filter.regex),
            )
        finally:
            await producer.aclose()
        return [event.to_dict() for event in (found if self.batch else found[:1])]

    def _accepts(self, found: ObjectEvent) -> bool:
        """Whether an object is of interest, and one that Airflow can hold: a name that it cannot ends the triggerer."""
        if found.key in self._skipped:
            return False
        try:
            if not self.filter.accepts(found):
                return False
            require_storable(found)
        except (ValueError, SlowPatternError) as error:
            if len(self._skipped) < _MOST_TOLD:
                self._skipped.add(found.key)
                log.warning("key %s is skipped: %s", quoted(found.key), describe(error))
            return False
        return True
