# SPDX-License-Identifier: Apache-2.0
"""One watcher's view of the pages of a place: what is new to it, and what it must remember.

Its state is its own, even when many watchers share one listing, so a watcher that joins later or has
another filter gets all its objects. Within the process the state runs ahead of what is stored; should
the watcher fail, its successor starts from the stored state and emits again what was not acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_oscar.model.errors import quoted
from airflow_provider_oscar.model.objects import ObjectEvent
from airflow_provider_oscar.model.watermark import AnyState, Settling, Start, TimestampState, WatchOptions
from airflow_provider_oscar.triggers._watch.memory import Memory
from airflow_provider_oscar.triggers._watch.pages import Page
from airflow_provider_oscar.triggers._watch.trouble import Trouble

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """What a watcher wants to see.

    :param accepts: whether an object is of interest.
    :param start: what to do without a state: ``now`` or ``all``.
    :param options: how far the memory reaches.
    :param quiet_period: how long an object must look the same before it is believed to be complete.
    """

    accepts: Callable[[ObjectEvent], bool]
    start: Start
    options: WatchOptions
    quiet_period: timedelta = timedelta(0)


class View:
    """Turns pages into new objects.

    For each page call :meth:`look`, emit what it returns, then call :meth:`done`. Neither raises.

    :param about: the place and the asset, for messages.
    """

    def __init__(self, about: str, policy: Policy, memory: Memory) -> None:
        self._about = about
        self._policy = policy
        self._memory = memory
        self._reading = Trouble(log, f"{about}: reading the state of asset {memory.asset_name!r}")
        self._writing = Trouble(log, f"{about}: writing the state of asset {memory.asset_name!r}")
        self._state: AnyState | None = None
        self._loaded = False
        self._sighted: dict[int, Any] | None = None  # None outside a sweep that was seen from its start
        self._fresh: Sequence[ObjectEvent] = ()
        self._unsettled: list[ObjectEvent] = []
        self._settling = Settling()
        self._skipped = 0
        self._skipped_before = 0

    async def look(self, page: Page) -> Sequence[ObjectEvent]:
        """Return the objects of the page to emit, oldest first."""
        self._fresh = ()
        if page.first:
            self._sighted = {}
            self._unsettled = []
            self._skipped = 0
            if not self._loaded:
                await self._load()
        if not self._loaded or (self._sighted is None and not page.hint):
            self._sighted = None
            page.wants_sweep = page.hint
            return ()
        now = page.server_time or datetime.now(tz=UTC)
        accepted = await asyncio.to_thread(self._accepted, page.events)
        state = self._state or TimestampState()
        if self._sighted is not None and not page.hint:
            self._sighted |= await asyncio.to_thread(state.sight, accepted)
            if page.unready:
                self._sighted |= await asyncio.to_thread(state.sight, self._accepted(page.unready))
        if self._state is None and not page.hint:
            return ()
        fresh = await asyncio.to_thread(lambda: state.candidates(accepted, now=now, options=self._policy.options))
        self._fresh = self._settled(fresh, page, now) if self._policy.quiet_period else fresh
        return self._fresh

    async def done(self, page: Page) -> None:
        """Take what :meth:`look` returned as emitted, and leave on the page what is to be stored."""
        if not self._loaded:
            return
        if self._state is not None and self._fresh:
            self._state = self._state.with_emitted(self._fresh)
        if page.last and self._sighted is not None:
            await self._complete(page)
        if self._state is not None:
            state = self._state
            page.commits[self._memory.asset_name, self._memory.key] = lambda: self._save(state)

    async def _load(self) -> None:
        try:
            self._state = await self._memory.load()
        except Exception as error:  # noqa: BLE001 - the watch waits rather than guess what was emitted
            self._reading.failed(error)
            return
        self._reading.passed()
        self._loaded = True
        if self._state is not None:
            log.info("%s: goes on from %d remembered objects", self._about, len(self._state.seen))
            return
        log.warning(
            "%s: no state in the store of asset %r, so start=%r applies: what is there now %s. If this watcher ran "
            "before, its state was removed, as Airflow does when no active DAG names the asset any more, or its place "
            "or filter was changed",
            self._about,
            self._memory.asset_name,
            self._policy.start.value,
            "is all reported" if self._policy.start is Start.ALL else "is taken as known and not reported",
        )
        if self._policy.start is Start.ALL:
            self._state = TimestampState()

    def _accepted(self, events: Sequence[ObjectEvent]) -> list[ObjectEvent]:
        accepted = []
        for event in events:
            try:
                if self._policy.accepts(event):
                    _require_storable(event)
                    accepted.append(event)
            except Exception as error:  # noqa: BLE001 - one poisoned key must not hide the others
                self._skipped += 1
                if self._skipped > self._skipped_before:
                    log.warning("%s: key %s is skipped: %s", self._about, quoted(event.key), quoted(error))
        return accepted

    def _settled(self, fresh: list[ObjectEvent], page: Page, now: datetime) -> Sequence[ObjectEvent]:
        """Hold back what may still be written to; decided once per sweep, when all of it is known."""
        if page.hint:
            return ()
        self._unsettled += fresh
        if not page.last:
            return ()
        self._settling, settled = self._settling.settle(
            self._unsettled, now=now, quiet_period=self._policy.quiet_period
        )
        return settled

    async def _complete(self, page: Page) -> None:
        sighted = self._sighted or {}
        self._sighted = None
        now = page.server_time or datetime.now(tz=UTC)
        if self._state is None:  # start="now": all that the first complete listing shows is known
            self._state = TimestampState(seen=frozenset(sighted))
            log.warning("%s: %d objects were there already and are not reported", self._about, len(sighted))
        state = self._state
        self._state = await asyncio.to_thread(lambda: state.advance(sighted, now=now, options=self._policy.options))
        if self._skipped != self._skipped_before:
            log.warning("%s: %d keys are skipped at every listing", self._about, self._skipped)
            self._skipped_before = self._skipped

    async def _save(self, state: AnyState) -> None:
        try:
            await self._memory.save(state)
        except Exception as error:
            self._writing.failed(error)
            raise
        self._writing.passed()


def _require_storable(event: ObjectEvent) -> None:
    """Refuse what Airflow's messages or database cannot hold: lone surrogates, and NUL in PostgreSQL's JSON.

    :raises ValueError: if there is any.
    """
    for text in (event.key, event.container, event.etag, event.version_id):
        text.encode("utf-8")
        if "\0" in text:
            raise ValueError("it holds a NUL character, which Airflow's database cannot store")
