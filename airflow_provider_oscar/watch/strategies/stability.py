# SPDX-License-Identifier: Apache-2.0
"""Objects that are not to be reported yet: that may still grow, that change at every look, or that are too many."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import nsmallest

from airflow_provider_oscar.core.objects import ObjectEvent

#: Listings in a row in which an object of the same size was another version each time, until it is held back.
MOST_CHANGES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilityFilter:
    """Releases objects once they look the same for a quiet period.

    For stores that list unfinished uploads (plain WebDAV). It need not be stored: after a restart the wait begins
    again.

    :param waiting: when each version was first listed, by fingerprint.
    """

    waiting: Mapping[int, datetime] = field(default_factory=dict)

    def release(
        self, candidates: Mapping[int, ObjectEvent], *, now: datetime, quiet_period: timedelta
    ) -> tuple[StabilityFilter, dict[int, ObjectEvent]]:
        """Return the next state and the objects that did not change for ``quiet_period``.

        :param candidates: all candidates of this listing, by fingerprint; what is missing is forgotten.
        :param now: any clock, always the same one; if it steps back the wait begins again.
        :param quiet_period: how long; zero lets everything pass.
        """
        waiting = {digest: min(self.waiting.get(digest, now), now) for digest in candidates}
        quiet = {digest: event for digest, event in candidates.items() if now - waiting[digest] >= quiet_period}
        return StabilityFilter(waiting=waiting), quiet


class ReleaseQueue:
    """What a listing released all at once, handed over in parts.

    A sentinel or the end of a quiet period releases any number of objects with one page, and Airflow gives the events
    of a page 300 seconds to be stored. What took longer would be emitted again from its start, without end.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, ObjectEvent] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def begin(self, seen: Container[int]) -> None:
        """Take note that a full listing begins, which shows again what is not handed over yet.

        :param seen: what is remembered; what is reported once more though it is remembered stays.
        """
        self._waiting = {digest: event for digest, event in self._waiting.items() if digest in seen}

    def add(self, released: Mapping[int, ObjectEvent]) -> None:
        """Add what was released.

        :param released: by fingerprint.
        """
        self._waiting |= released

    def take(self, most: int) -> dict[int, ObjectEvent]:
        """Return the next part, oldest first.

        :param most: objects of it.
        """
        # Each listing shows again all that waits; to sort that each time held the event loop for three times as long.
        taken = dict(nsmallest(most, self._waiting.items(), key=lambda item: (item[1].modified, item[1].key)))
        for digest in taken:
            del self._waiting[digest]
        return taken


@dataclass(slots=True)
class _Change:
    digest: int
    size: int | None
    listing: int
    count: int


class ChangeDetector:
    """Notices objects that are another version at every listing, though nothing about them changed but a mark.

    Proxies and back ends without times of their own show such objects. Each "version" would be a run, without end. An
    object that keeps its size and is another version in several listings in a row is held back until two listings
    agree. One whose size changes is being written to, which is real.
    """

    def __init__(self) -> None:
        self._listing = 0
        self._changes: dict[str, _Change] = {}
        self.unstable: dict[str, ObjectEvent] = {}
        """Objects held back, by key."""

    def begin(self) -> None:
        """Take note that a full listing begins; what was not new in the one before is stable."""
        self._listing += 1
        self._changes = {key: each for key, each in self._changes.items() if each.listing >= self._listing - 1}
        self.unstable = {key: event for key, event in self.unstable.items() if key in self._changes}

    def stable(self, new: Iterable[tuple[int, ObjectEvent]]) -> dict[int, ObjectEvent]:
        """Return those new versions that may be reported."""
        passed: dict[int, ObjectEvent] = {}
        for digest, event in new:
            before = self._changes.get(event.key)
            count = 0
            if before is not None and before.size == event.size and before.digest != digest:
                count = before.count + (before.listing < self._listing)
            self._changes[event.key] = _Change(digest, event.size, self._listing, count)
            if count < MOST_CHANGES:
                passed[digest] = event
                self.unstable.pop(event.key, None)
            else:
                self.unstable[event.key] = event
        return passed
