# SPDX-License-Identifier: Apache-2.0
"""When a watcher finds out what of its memory can be forgotten: that takes all that a listing shows."""

from __future__ import annotations

from airflow_provider_oscar.watch.source import EmptyListingGuard
from airflow_provider_oscar.watch.strategies import WatchOptions, WatchState

#: Listings after which it is tried again to forget what could not be forgotten before.
_AGAIN_AFTER = 50


class Forgetting:
    """Tells of each listing whether it is used to forget what is gone, from what the one before it showed.

    The first listings after a memory was loaded are not. Sources do not trust a place that is suddenly empty, but know
    of no time before them: a disk that is not mounted yet after a reboot would have everything forgotten, and reported
    once more.

    :param options: reach of the memory.
    """

    def __init__(self, options: WatchOptions) -> None:
        self._options = options
        self._next = True
        self._doubtful = 0
        self._kept = 0  # versions remembered after the last time
        self._listings = 0  # since then

    @property
    def due(self) -> bool:
        """Whether the next complete listing is used."""
        return self._next and not self._doubtful

    def note_loaded(self) -> None:
        """Take note that what is remembered is of another time."""
        self._doubtful = EmptyListingGuard.IN_A_ROW - 1

    def note_listing(self, state: WatchState, *, known: int, done: bool) -> None:
        """Take note of a complete listing.

        :param state: what is remembered after it.
        :param known: versions it showed that are remembered.
        :param done: it was used.
        """
        self._doubtful = max(0, self._doubtful - 1)
        kept = len(state.seen)
        if done:
            self._kept, self._listings, self._next = kept, 0, False
            return
        self._listings += 1
        again = kept > 1.2 * self._kept or self._listings >= _AGAIN_AFTER
        self._next = known < kept or (state.exceeds_limit(self._options) and again)
