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
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.filters import Sentinels
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.watch.memory import Memory
from airflow_provider_oscar.watch.pages import Page
from airflow_provider_oscar.watch.strategies import (
    ALGORITHMS,
    AnyState,
    CursorState,
    Settling,
    Start,
    TimestampState,
    WatchOptions,
    fingerprint,
)
from airflow_provider_oscar.watch.trouble import Trouble

log = logging.getLogger(__name__)

#: Sweeps after which it is tried again to forget what could not be forgotten before.
_PATIENCE = 50
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Policy:
    """What a watcher wants to see.

    :param accepts: whether an object is of interest.
    :param start: what to do without a state: ``now`` or ``all``.
    :param options: how far the memory reaches.
    :param quiet_period: how long an object must look the same before it is believed to be complete.
    :param algorithm: how it is remembered what was reported: ``timestamp``, ``snapshot`` or ``cursor``.
    :param sentinel: name or ending of the file that says that others are complete; empty for none.
    """

    accepts: Callable[[ObjectEvent], bool]
    start: Start
    options: WatchOptions
    quiet_period: timedelta = timedelta(0)
    algorithm: str = TimestampState.algorithm
    sentinel: str = ""

    @property
    def holds_back(self) -> bool:
        """Whether objects wait for the end of a sweep, when all is known of what may release them."""
        return bool(self.quiet_period or self.sentinel)


@dataclass
class _Sweep:
    """What was noted since the first page of a sweep.

    :param gather: whether to note each object, for :meth:`TimestampState.advance`.
    :param known: objects listed that are remembered.
    :param held: objects that are to be reported once they are said to be complete.
    """

    gather: bool
    known: int = 0
    skipped: int = 0
    sighted: dict[int, Any] = field(default_factory=dict)
    held: list[ObjectEvent] = field(default_factory=list)
    sentinels: Sentinels | None = None


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
        self._new_state = ALGORITHMS[policy.algorithm]
        self._state: AnyState | None = None
        self._sentinels = Sentinels(policy.sentinel) if policy.sentinel else None  # of the last complete sweep
        self._loaded = False
        self._sweep: _Sweep | None = None  # None outside a sweep that was seen from its start
        self._gathering = True
        self._held = 0  # remembered objects after the last gathering sweep
        self._waited = 0  # sweeps since then
        self._fresh: Sequence[ObjectEvent] = ()
        self._settling = Settling()
        self._skipped_before = 0

    async def look(self, page: Page) -> Sequence[ObjectEvent]:
        """Return the objects of the page to emit, oldest first."""
        self._fresh = ()
        if page.first:
            if not self._loaded:
                await self._load()
            self._sweep = self._begun(page)
        if not self._loaded or (self._sweep is None and not page.hint):
            self._sweep = None
            page.wants_sweep = page.wants_sweep or page.hint
            return ()
        if page.hint and self._sentinels is not None:
            page.wants_sweep = page.wants_sweep or self._may_release(page, self._sentinels)
            return ()
        now = page.server_time or datetime.now(tz=UTC)
        sweep = _Sweep(gather=False) if page.hint or self._sweep is None else self._sweep
        if sweep.sentinels is not None:
            sweep.sentinels.note(page.events)
        digests, unready = page.fingerprints()
        accepted = self._unknown(page.events, digests, sweep, now)
        self._unknown(page.unready, unready, sweep, now)
        if self._state is None and not page.hint:
            sweep.held += accepted if self._sentinels is not None else ()
            return ()
        state = self._state or self._new_state()
        fresh = state.candidates(accepted, now=now, options=self._policy.options)
        self._fresh = self._released(fresh, page, sweep, now) if self._policy.holds_back else fresh
        return self._fresh

    def _begun(self, page: Page) -> _Sweep | None:
        """Return the notes on a sweep that begins, or None if it begins too late for this watcher."""
        state = self._state
        if page.after and not (isinstance(state, CursorState) and state.start_after >= page.after):
            page.wants_sweep = True
            return None
        sentinels = Sentinels(self._policy.sentinel) if self._policy.sentinel else None
        return _Sweep(gather=self._gathering or state is None, sentinels=sentinels)

    def _may_release(self, page: Page, sentinels: Sentinels) -> bool:
        """Whether a hint names a sentinel, or what one released that was there before."""
        return any(sentinels.is_one(event) or sentinels.released(event) is not None for event in page.events)

    async def done(self, page: Page) -> None:
        """Take what :meth:`look` returned as emitted, and leave on the page what is to be stored."""
        if not self._loaded:
            return
        if self._state is not None and self._fresh:
            self._state = self._state.with_emitted(self._fresh)
            if self._sweep is not None:
                self._sweep.known += len(self._fresh)
        if page.last and self._sweep is not None:
            await self._complete(page, self._sweep)
            self._sweep = None
        if page.last and self._new_state is CursorState:
            page.resumes.append(self._state.start_after if isinstance(self._state, CursorState) else "")
        if self._state is not None:
            state = self._state
            page.commits[self._memory.asset_name, self._memory.key] = lambda: self._save(state)

    async def _load(self) -> None:
        try:
            state = await self._memory.load()
            if state is not None and not isinstance(state, self._new_state):
                raise DefinitionError(f"it holds a {state.algorithm!r} memory, which this watcher cannot use; clear it")
            self._state = state
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
            self._state = self._new_state()

    def _forgotten_until(self, now: datetime) -> datetime:
        """Return the time up to which :meth:`TimestampState.candidates` finds nothing, to pass over it cheaply."""
        horizon = self._state.horizon if isinstance(self._state, TimestampState) else None
        return _LONG_AGO if horizon is None else min(horizon, now - self._policy.options.lookback)

    def _unknown(
        self, events: Sequence[ObjectEvent], digests: Sequence[int], sweep: _Sweep, now: datetime
    ) -> list[ObjectEvent]:
        """Return the objects that are of interest and not remembered, and count the others."""
        forgotten = self._forgotten_until(now)
        passed = self._state.start_after if isinstance(self._state, CursorState) else ""
        by_key = self._new_state is CursorState
        seen = self._state.seen if self._state is not None else frozenset[int]()
        unknown = []
        for event, digest in zip(events, digests, strict=True):
            if digest in seen:
                sweep.known += 1
            elif event.modified > forgotten and (not passed or event.key > passed) and self._wanted(event, sweep):
                unknown.append(event)
            else:
                continue
            if sweep.gather:
                sweep.sighted[digest] = event.key if by_key else event.modified
        return unknown

    def _wanted(self, event: ObjectEvent, sweep: _Sweep) -> bool:
        try:
            if not self._policy.accepts(event) or (self._sentinels is not None and self._sentinels.is_one(event)):
                return False
            _require_storable(event)
        except Exception as error:  # noqa: BLE001 - one poisoned key must not hide the others
            sweep.skipped += 1
            if sweep.skipped > self._skipped_before:
                log.warning("%s: key %s is skipped: %s", self._about, quoted(event.key), quoted(error))
            return False
        return True

    def _released(self, fresh: list[ObjectEvent], page: Page, sweep: _Sweep, now: datetime) -> Sequence[ObjectEvent]:
        """Hold back what may still be written to; decided once per sweep, when all of it is known."""
        if page.hint:
            return ()
        sweep.held += fresh
        if not page.last:
            return ()
        quiet = sweep.held
        if self._policy.quiet_period:
            self._settling, quiet = self._settling.settle(sweep.held, now=now, quiet_period=self._policy.quiet_period)
        if sweep.sentinels is None:
            return quiet
        return [event for event in quiet if sweep.sentinels.released(event) is not None]

    async def _complete(self, page: Page, sweep: _Sweep) -> None:
        """Forget what is gone and what need not be remembered.

        That needs everything the sweep showed, which is gathered only if the sweep before gave reason to.
        """
        now = page.server_time or datetime.now(tz=UTC)
        if self._state is None:  # start="now": all that the first complete listing shows is known
            known = frozenset(sweep.sighted)
            if sweep.sentinels is not None:  # what waits for its sentinel is new when that comes
                known -= {fingerprint(event) for event in sweep.held if sweep.sentinels.released(event) is None}
            self._state = self._new_state(seen=known)
            log.warning("%s: %d objects were there already and are not reported", self._about, len(known))
        if sweep.gather:
            self._state = await asyncio.to_thread(_advanced, self._state, sweep.sighted, now, self._policy.options)
        self._sentinels = sweep.sentinels
        self._gathering = self._worth_gathering(sweep, len(self._state.seen))
        if sweep.skipped != self._skipped_before:
            log.warning("%s: %d keys are skipped at every listing", self._about, sweep.skipped)
            self._skipped_before = sweep.skipped

    def _worth_gathering(self, sweep: _Sweep, held: int) -> bool:
        """Whether the next sweep is to find out what can be forgotten."""
        if sweep.gather:
            self._held, self._waited = held, 0
            return False
        self._waited += 1
        options = self._policy.options
        limits = {CursorState: options.lookback_keys, TimestampState: options.remember}
        too_many = self._new_state in limits and held > limits[self._new_state]
        return sweep.known < held or (too_many and (held > 1.2 * self._held or self._waited >= _PATIENCE))

    async def _save(self, state: AnyState) -> None:
        try:
            await self._memory.save(state)
        except Exception as error:
            self._writing.failed(error)
            raise
        self._writing.passed()


def _advanced(state: AnyState, sighted: dict[int, Any], now: datetime, options: WatchOptions) -> AnyState:
    return state.advance(sighted, now=now, options=options)


def _require_storable(event: ObjectEvent) -> None:
    """Refuse what Airflow's messages or database cannot hold: lone surrogates, and NUL in PostgreSQL's JSON.

    :raises ValueError: if there is any.
    """
    for text in (event.key, event.container, event.etag, event.version_id):
        text.encode("utf-8")
        if "\0" in text:
            raise ValueError("it holds a NUL character, which Airflow's database cannot store")
