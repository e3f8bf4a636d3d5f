# SPDX-License-Identifier: Apache-2.0
"""Remembers the last keys: cheapest, for layouts where each new key sorts after almost all others.

It misses a version whose key sorts below the last ``lookback_keys`` keys. A listing that is not in the order of keys,
as of stores that know none, moves no cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import ClassVar, Self, cast

from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.watch.strategies.base import StateHeader, WatchOptions, WatchState
from airflow_provider_oscar.watch.strategies.fingerprints import Fingerprints


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorState(WatchState):
    """The last keys.

    :param start_after: key to list from (exclusive, in the order of UTF-8 bytes, S3's ``StartAfter``). Python compares
        code points, which is the same order.
    """

    name: ClassVar[str] = "cursor"
    needs_key_order: ClassVar[bool] = True

    start_after: str = ""

    def note(self, event: ObjectEvent) -> str:
        """Return the key."""
        return event.key

    def forgets(self, now: datetime, options: WatchOptions) -> Callable[[ObjectEvent], bool] | None:
        """Return what tells that an object sorts up to the cursor."""
        start_after = self.start_after
        return (lambda event: event.key <= start_after) if start_after else None

    def pruned(self, listed: Mapping[int, object], *, now: datetime, options: WatchOptions) -> Self:
        """Return the state with the cursor moved, up to the first version that is still to be emitted."""
        keys = cast("Mapping[int, str]", listed)
        waiting = min((key for digest, key in keys.items() if digest not in self.seen), default=None)
        kept = {digest: key for digest, key in keys.items() if digest in self.seen}
        handled = sorted(kept.values()) if _in_order(keys.values()) else []
        passed = [
            key for key in handled[: max(0, len(handled) - options.lookback_keys)] if waiting is None or key < waiting
        ]
        start_after = max(passed[-1] if passed else "", self.start_after)
        seen = Fingerprints(digest for digest, key in kept.items() if key > start_after)
        return replace(self, seen=seen, start_after=start_after)

    def exceeds_limit(self, options: WatchOptions) -> bool:
        """Whether more than ``lookback_keys`` are remembered."""
        return len(self.seen) > options.lookback_keys

    def covers(self, after: str) -> bool:
        """Whether the cursor stands at a key or behind it."""
        return self.start_after >= after

    @property
    def resume_after(self) -> str:
        """The cursor."""
        return self.start_after

    def header(self) -> CursorHeader:
        """Return the cursor."""
        return CursorHeader(start_after=self.start_after)


def _in_order(keys: Iterable[str]) -> bool:
    return all(before <= after for before, after in pairwise(keys))


class CursorHeader(StateHeader, frozen=True, kw_only=True, tag=CursorState.name):
    """Of the strategy that remembers the last keys.

    :param start_after: the cursor.
    """

    start_after: str

    def state(self, seen: Fingerprints) -> CursorState:
        """Return the state."""
        return CursorState(seen=seen, start_after=self.start_after)
