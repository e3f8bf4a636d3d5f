# SPDX-License-Identifier: Apache-2.0
"""One watcher: which objects of the pages of a place are new to it, and what it must remember.

Its state is its own, even when many watchers share one listing, so a watcher that joins later or has
another filter gets all its objects. Within the process the state runs ahead of what is stored; should
the watcher fail, its successor starts from the stored state and emits again what was not acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from msgspec.structs import replace

from airflow_provider_oscar.core.backoff import LoggedBackoff, describe
from airflow_provider_oscar.core.errors import quoted
from airflow_provider_oscar.core.filters import Sentinels
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.times import read_iso
from airflow_provider_oscar.watch.forgetting import Forgetting
from airflow_provider_oscar.watch.policy import Policy, require_storable
from airflow_provider_oscar.watch.source import OBJECTS_PER_PAGE, Page
from airflow_provider_oscar.watch.state_store import WatchStateStore
from airflow_provider_oscar.watch.status import WatcherStatus
from airflow_provider_oscar.watch.strategies import STRATEGIES, Fingerprints, Start, WatchOptions, WatchState
from airflow_provider_oscar.watch.strategies.base import Listed
from airflow_provider_oscar.watch.strategies.stability import ChangeDetector, ReleaseQueue, StabilityFilter
from airflow_provider_oscar.watch.threads import filter_in_thread, own_thread

log = logging.getLogger(__name__)

#: Thread for sorting and forgetting of a large listing.
_PRUNING = "watch-prune"

#: Receives the statuses of watchers, for metrics.
Report = Callable[[str, WatcherStatus], None]


@dataclass
class _Listing:
    """What was noted since the first page of a full listing.

    :param listed: what is needed to forget what is gone; None while there is no reason to.
    :param count: objects shown.
    :param known: those of them that are remembered.
    :param held: objects to be reported once they are complete, by fingerprint.
    """

    listed: Listed | None
    sentinels: Sentinels | None = None
    count: int = 0
    known: int = 0
    unreadable: int = 0
    held: dict[int, ObjectEvent] = field(default_factory=dict)


class Watcher:
    """Turns pages into new objects.

    For each page call :meth:`process`, emit what it returns, then call :meth:`commit`. Neither raises.

    :param display_name: the place and the asset, for messages.
    :param report: receives each status, for metrics.
    :param clock: seconds of a steady clock.
    :param policy: which objects are new.
    :param store: keeps what is known.
    """

    def __init__(
        self,
        display_name: str,
        policy: Policy,
        store: WatchStateStore,
        *,
        report: Report | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = display_name
        self._policy = policy
        self._store = store
        self._report = report
        self._clock = clock
        asset = f"the state of asset {store.asset_name!r}"
        self._reading = LoggedBackoff(log, f"{display_name}: reading {asset}")
        self._writing = LoggedBackoff(log, f"{display_name}: writing {asset}; nothing is lost meanwhile")
        self._strategy = STRATEGIES[policy.strategy]
        self._state: WatchState | None = None
        self._loaded = False
        self._baseline: Callable[[ObjectEvent], bool] | None = None
        # Airflow drops events of an asset that no DAG names any more, so what its watcher reported last may be lost
        # though it is remembered; it is reported once more, and what had its run makes none.
        self._again_since: datetime | None = None
        self._storable = False  # the state may be stored: it does not depend on a first listing that is under way
        self._listing: _Listing | None = None  # None outside a listing that was seen from its start
        self._sentinels = Sentinels(policy.sentinel) if policy.sentinel else None  # of the last complete listing
        self._quiet = StabilityFilter()
        self._changes = ChangeDetector()
        self._released = ReleaseQueue()
        self._forgetting = Forgetting(policy.options)
        self._emitting: Mapping[int, ObjectEvent] = {}
        self._passed: set[int] = set()
        self.status = WatcherStatus(display_name=display_name)
        self._status_saved = self.status
        self._status_time = clock()

    async def process(self, page: Page) -> Sequence[ObjectEvent]:
        """Return the objects of the page to emit, oldest first."""
        self._emitting, self._passed = {}, set()
        if page.failure:
            if not self._loaded:
                await self._load()
            self.status = self.status.failed(page.failure, datetime.now(tz=UTC))
            self._report_status()
            return ()
        if page.first:
            if not self._loaded:
                await self._load()
            self._listing = self._begin(page)
        if not self._loaded or (self._listing is None and not page.incremental):
            self._listing = None
            page.needs_full_listing |= page.incremental
            return ()
        if page.incremental and self._sentinels is not None:
            page.needs_full_listing |= self._may_release(page, self._sentinels)
            self._emitting = self._next_part(page)
            return tuple(self._emitting.values())
        if page.incremental and (self._state is None or not self._storable):
            page.needs_full_listing |= bool(page.events)
            return ()
        listing = _Listing(None) if page.incremental or self._listing is None else self._listing
        candidates = await self._candidates(page, listing)
        self._emitting = self._release(candidates, page, listing)
        return sorted(self._emitting.values(), key=lambda event: (event.modified, event.key))

    def _begin(self, page: Page) -> _Listing | None:
        """Return the notes on a listing that begins, or None if it begins too late for this watcher."""
        if page.after and (self._state is None or not self._state.covers(page.after)):
            page.needs_full_listing = True
            return None
        if not self._loaded:
            return None
        if self._state is None and self.status.failing_since:
            self._start_at_first_attempt(page)
        self._changes.begin()
        self._released.begin(self._state.seen if self._state is not None else ())
        sentinels = Sentinels(self._policy.sentinel) if self._policy.sentinel else None
        return _Listing({} if self._forgetting.due or not self._storable else None, sentinels)

    async def _candidates(self, page: Page, listing: _Listing) -> dict[int, ObjectEvent]:
        """Return the objects of interest that are not known, and note what the page showed."""
        if listing.sentinels is not None:
            listing.sentinels.note(page.events)
        state = self._state or self._strategy()
        digests, not_ready = page.fingerprints()
        unknown = partial(state.unknown, now=page.now, options=self._policy.options, listed=listing.listed)
        new, known = unknown(page.events, digests)
        _, waiting = unknown(page.not_ready, not_ready)
        listing.count += len(page.events) + len(page.not_ready)
        listing.known += known + waiting
        listing.unreadable += page.unreadable
        if self._again_since is not None:
            recent = zip(digests, page.events, strict=True)
            new |= {digest: each for digest, each in recent if each.modified >= self._again_since}
        if not self._policy.in_thread:
            return self._wanted(new)
        return await filter_in_thread("watch-match", self._wanted, new)

    def _wanted(self, new: Mapping[int, ObjectEvent]) -> dict[int, ObjectEvent]:
        candidates = {digest: event for digest, event in new.items() if self._is_wanted(event)}
        self._passed.update(new.keys() - candidates.keys())
        return candidates

    def _is_wanted(self, event: ObjectEvent) -> bool:
        try:
            if not self._policy.accepts(event) or (self._sentinels is not None and self._sentinels.is_one(event)):
                self.status = self.status.left_out(event)
                return False
            if self._baseline is not None and self._baseline(event):
                self.status = replace(self.status, skipped_at_start=self.status.skipped_at_start + 1)
                return False
            require_storable(event)
        except Exception as error:  # noqa: BLE001 - one poisoned key must not hide the others
            self.status = replace(self.status, skipped=self.status.skipped + 1)
            log.warning("%s: key %s is skipped: %s", self._name, quoted(event.key), describe(error))
            return False
        return True

    def _release(self, candidates: dict[int, ObjectEvent], page: Page, listing: _Listing) -> dict[int, ObjectEvent]:
        """Return what is to be emitted now, and hold back the rest.

        What may be released by a sentinel or a quiet period is decided once per listing, when all of it is known.
        """
        if self._state is None:  # start="now": what the first complete listing shows is known
            listing.held |= candidates
            return {}
        if not self._policy.holds_back:
            return self._steady(candidates)
        if page.incremental:
            return self._next_part(page)
        listing.held |= candidates
        if not page.last:
            return {}
        quiet = listing.held
        if self._policy.quiet_period:
            self._quiet, quiet = self._quiet.release(quiet, now=page.now, quiet_period=self._policy.quiet_period)
        if listing.sentinels is not None:
            quiet = {digest: each for digest, each in quiet.items() if listing.sentinels.released(each) is not None}
        self._released.add(self._steady(quiet))
        return self._next_part(page)

    def _next_part(self, page: Page) -> dict[int, ObjectEvent]:
        """Return as much of what was released as may follow from one page, and ask for another page for the rest."""
        part = self._released.take(OBJECTS_PER_PAGE)
        page.unfinished |= bool(self._released)
        return part

    def _steady(self, new: dict[int, ObjectEvent]) -> dict[int, ObjectEvent]:
        before = len(self._changes.unstable)
        passed = self._changes.stable(new.items())
        unstable = self._changes.unstable
        if unstable and not before:
            log.warning(
                "%s: %d objects, such as %s, are another version at every listing though their size stays, probably "
                "because the store makes up their times or entity tags; they are held back until two listings agree",
                self._name,
                len(unstable),
                quoted(next(iter(unstable))),
            )
        return passed

    def _may_release(self, page: Page, sentinels: Sentinels) -> bool:
        """Whether an incremental page names a sentinel, or what one released that was there before."""
        return any(sentinels.is_one(event) or sentinels.released(event) is not None for event in page.events)

    async def commit(self, page: Page) -> None:
        """Take what :meth:`process` returned as emitted, and leave on the page what is to be stored."""
        if not self._loaded:
            return
        if self._emitting:
            self._count_emitted()
        if self._state is not None and (self._emitting or self._passed):
            self._state = self._state.remembering([*self._emitting, *self._passed])
            if self._listing is not None:
                self._listing.known += len(self._emitting) + len(self._passed)
        if page.last and self._listing is not None:
            await self._complete(page, self._listing)
            self._listing = None
        if page.last and self._strategy.needs_key_order:
            page.cursors.append(self._state.resume_after if self._state is not None else "")
        state = self._state if self._storable else None
        page.commits[self._store.asset_name, self._store.key] = lambda: self._save(state)

    def _count_emitted(self) -> None:
        youngest = max(event.modified for event in self._emitting.values())
        self.status = replace(
            self.status,
            emitted=self.status.emitted + len(self._emitting),
            waiting=max(0, self.status.waiting - len(self._emitting))
            if self._policy.holds_back
            else self.status.waiting,
            last_event=youngest.isoformat(),
            lag=round(max(0.0, (datetime.now(tz=UTC) - youngest).total_seconds()), 3),
        )

    async def _load(self) -> None:
        try:
            state = await self._store.load()
            status = await self._store.load_status()
        except Exception as error:  # noqa: BLE001 - the watch waits rather than guess what was emitted
            self._reading.record_failure(error)
            self.status = self.status.failed(f"its state cannot be read: {describe(error)}", datetime.now(tz=UTC))
            return
        self._reading.reset()
        self._loaded = True
        if status is not None:
            self.status = replace(status, display_name=self._name)
        if state is None:
            self._start()
            return
        self._forgetting.note_loaded()
        if self._store.predecessor:
            self._inherit(state)
        else:
            self._state, self._storable = state, True
            log.info("%s: goes on from %d remembered objects", self._name, len(state.seen))
        if self._store.since is not None:  # of another asset, which no DAG names any more
            self._again_since, self._storable = self._store.since, False

    def _start(self) -> None:
        """Begin without any knowledge of the place."""
        start = self._policy.start
        if self._store.since is not None and start is not Start.ALL:  # never later than the watcher before it stopped
            start = self._store.since if start is Start.NOW else min(start, self._store.since)
        words = "is taken as known and not reported"
        if start is Start.ALL:
            self._state, self._storable, words = self._strategy(), True, "is all reported"
        elif isinstance(start, datetime):
            self._state, self._baseline = self._strategy(), lambda event: event.modified < start
            words = f"is reported if it was modified at {start.isoformat()} or later"
        log.warning(
            "%s: no state in the store of asset %r, so start=%r applies: what is there now %s. If this watcher ran "
            "before, its state was removed, as Airflow does when no active DAG names the asset any more, or its place "
            "was changed",
            self._name,
            self._store.asset_name,
            start.isoformat() if isinstance(start, datetime) else start.value,
            words,
        )

    def _start_at_first_attempt(self, page: Page) -> None:
        """Begin with what came since the first attempt: what could not be listed until now must not hide it."""
        waited = datetime.now(tz=UTC) - read_iso(self.status.failing_since)
        since = page.now - max(waited, timedelta(0))
        self._state, self._baseline = self._strategy(), lambda event: event.modified < since
        text = since.isoformat(timespec="seconds")
        log.warning("%s: can be listed now; what was modified since the first attempt (%s) is new", self._name, text)

    def _inherit(self, state: WatchState) -> None:
        """Begin with what a predecessor of another filter, or strategy, knew to be listed."""
        log.warning(
            "%s: the choice of objects was changed from %s to %s; it starts with the %d objects that were known to be "
            "listed, of which none is reported again, and reports what came since",
            self._name,
            self._store.predecessor,
            self._store.identity.choice,
            len(state.seen),
        )
        if state.name == self._strategy.name:
            self._state, self._storable = state, True
            return
        self._baseline = state.forgets(datetime.max.replace(tzinfo=UTC), WatchOptions(lookback=timedelta(0)))
        self._state, self._storable = self._strategy(seen=state.seen), self._baseline is None

    async def _complete(self, page: Page, listing: _Listing) -> None:
        """Forget what is gone and what need not be remembered.

        That needs everything the listing showed, which is gathered only if the listing before gave reason to.
        """
        if self._state is None:  # start="now"
            waiting = set[int]()
            if listing.sentinels is not None:  # what waits for its sentinel is new when that comes
                held = listing.held.items()
                waiting = {digest for digest, event in held if listing.sentinels.released(event) is None}
            known = Fingerprints(digest for digest in listing.listed or () if digest not in waiting)
            self._state = self._strategy(seen=known)
            self.status = replace(self.status, skipped_at_start=len(listing.held) - len(waiting))
            log.warning("%s: %d objects were there already and are not reported", self._name, len(known))
        self._storable, self._baseline, self._again_since = True, None, None
        forgets = self._forgetting.due and not listing.unreadable
        if listing.listed is not None and forgets:
            prune = partial(self._state.pruned, listing.listed, now=page.now, options=self._policy.options)
            self._state = await asyncio.get_running_loop().run_in_executor(own_thread(_PRUNING), prune)
        self._sentinels = listing.sentinels
        self._forgetting.note_listing(self._state, known=listing.known, done=forgets)
        self._note_complete(listing, self._state)

    def _note_complete(self, listing: _Listing, state: WatchState) -> None:
        if listing.unreadable and listing.unreadable != self.status.unreadable:
            log.warning(
                "%s: %d entries of the listing could not be read, so the objects are not seen, and nothing is taken "
                "as gone",
                self._name,
                listing.unreadable,
            )
        unstable = len(self._changes.unstable)
        held = sum(digest not in state.seen for digest in listing.held)
        self.status = replace(
            self.status.succeeded(),
            last_listing=datetime.now(tz=UTC).isoformat(timespec="seconds"),
            listed=listing.count,
            known=len(state.seen),
            waiting=held + (0 if self._policy.holds_back else unstable),
            unstable=unstable,
            unreadable=listing.unreadable,
        )
        self._report_status()

    def _report_status(self) -> None:
        if self._report is not None:
            self._report(self._store.asset_name, self.status)

    async def _save(self, state: WatchState | None) -> None:
        try:
            if state is not None:
                await self._store.save(state)
            now = self._clock()
            if self.status.is_due(self._status_saved, now - self._status_time):
                status = self.status
                await self._store.save_status(status)
                self._status_saved, self._status_time = status, now
        except Exception as error:
            self._writing.record_failure(error)
            raise
        self._writing.reset()
