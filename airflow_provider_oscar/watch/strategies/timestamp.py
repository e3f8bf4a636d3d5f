# SPDX-License-Identifier: Apache-2.0
"""Remembers every version listed while they are few, else at least those younger than the look-back; the default.

It misses a version only if more than ``max_entries`` are listed and its time lies more than ``lookback`` before the
store's clock at the poll that first lists it, and not after the low watermark.

When the store's clock steps back, the watermark is lowered to ``now - lookback``. Versions forgotten between the two
are then emitted a second time: at least once, never not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Self, cast

from msgspec.structs import force_setattr

from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.times import in_utc
from airflow_provider_oscar.watch.strategies.base import StateHeader, WatchOptions, WatchState
from airflow_provider_oscar.watch.strategies.fingerprints import Fingerprints

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestampState(WatchState):
    """Versions by time.

    :param watermark: versions modified at or before it are taken as seen; None while nothing had to be forgotten.
        It never passes the store's clock minus the look-back, nor a version that is not acknowledged.
    """

    name: ClassVar[str] = "timestamp"

    watermark: datetime | None = None

    def note(self, event: ObjectEvent) -> datetime:
        """Return the time of modification."""
        return event.modified

    def forgets(self, now: datetime, options: WatchOptions) -> Callable[[ObjectEvent], bool] | None:
        """Return what tells that an object lies at or before the watermark."""
        watermark = self._watermark_at(now, options)
        return None if watermark is None else lambda event: event.modified <= watermark

    def pruned(self, listed: Mapping[int, object], *, now: datetime, options: WatchOptions) -> Self:
        """Return the state without versions that are gone; what exceeds ``max_entries`` is forgotten oldest first."""
        times = cast("Mapping[int, datetime]", listed)
        state = replace(self, watermark=self._watermark_at(now, options))
        kept = state.seen.kept(times)
        excess = len(kept) - options.max_entries
        if excess > 0:
            limit = state._forgettable(times, now, options)
            old = sorted(times[digest] for digest in kept if times[digest] <= limit)
            if old:
                watermark = old[min(excess, len(old)) - 1]
                kept = Fingerprints(digest for digest in kept if times[digest] > watermark)
                state = replace(state, watermark=max(watermark, state.watermark or watermark))
        return replace(state, seen=kept)

    def exceeds_limit(self, options: WatchOptions) -> bool:
        """Whether more than ``max_entries`` are remembered."""
        return len(self.seen) > options.max_entries

    def header(self) -> TimestampHeader:
        """Return the watermark."""
        return TimestampHeader(watermark=self.watermark)

    def _watermark_at(self, now: datetime, options: WatchOptions) -> datetime | None:
        # It never passed "now - lookback", so if it lies beyond it today the clock went back.
        return None if self.watermark is None else min(self.watermark, now - options.lookback)

    def _forgettable(self, times: Mapping[int, datetime], now: datetime, options: WatchOptions) -> datetime:
        """Return the time up to which the watermark may rise."""
        floor = self.watermark or _EPOCH
        waiting = (time for digest, time in times.items() if time > floor and digest not in self.seen)
        return min(now - options.lookback, min(waiting, default=now) - _TICK)


class TimestampHeader(StateHeader, frozen=True, kw_only=True, tag=TimestampState.name):
    """Of the strategy that remembers at least the versions younger than its look-back.

    :param watermark: null while nothing had to be forgotten.
    """

    watermark: datetime | None

    def __post_init__(self) -> None:
        if self.watermark is not None:
            force_setattr(self, "watermark", in_utc(self.watermark))

    def state(self, seen: Fingerprints) -> TimestampState:
        """Return the state."""
        return TimestampState(seen=seen, watermark=self.watermark)
