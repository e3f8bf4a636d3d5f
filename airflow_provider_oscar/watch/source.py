# SPDX-License-Identifier: Apache-2.0
"""What a source gives its watchers: pages of listed objects, and how it fails."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum, auto
from functools import cached_property
from typing import TypeVar

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.objects import ObjectEvent, Reason
from airflow_provider_oscar.watch.strategies.base import fingerprint

T = TypeVar("T")

#: Objects of one page, and most that a watcher emits with one.
OBJECTS_PER_PAGE = 200
#: Writes one watcher's state; called once the events of the page are stored.
Commit = Callable[[], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Page:
    """Some objects, seen at one time.

    A *full listing* goes from its ``first`` to its ``last`` page (one page may be both). A page outside a full
    listing is incremental: objects that a notification named, already confirmed by the store.

    :param events: the objects, in the order of the store.
    :param first: a full listing begins here; what an unfinished one gathered is void.
    :param last: the listing is complete: whatever it did not show was not there.
    :param incremental: outside any full listing; proves nothing about other objects.
    :param server_time: the store's clock when the page was made, or None if it does not tell.
    :param not_ready: there, but not to be reported now; listed so that they are not taken as gone.
    :param after: the listing began after this key; what sorts before it is not shown.
    :param on_persisted: called with whether all that follows from the page is stored; None where nobody waits.
    :param unreadable: entries that the store sent and that could not be read; the listing then proves nothing about
        what it does not show.
    :param failure: why the place could not be listed; such a page is incremental and without objects.
    """

    events: Sequence[ObjectEvent]
    first: bool = False
    last: bool = False
    incremental: bool = False
    server_time: datetime | None = None
    not_ready: Sequence[ObjectEvent] = ()
    after: str = ""
    on_persisted: Callable[[bool], None] | None = None
    unreadable: int = 0
    failure: str = ""
    commits: dict[Hashable, Commit] = field(default_factory=dict, init=False)
    """Filled by the watchers that received the page, one each."""
    needs_full_listing: bool = field(default=False, init=False)
    """Set by a watcher that needs a whole listing: it joined meanwhile, or an incremental page does not tell enough."""
    unfinished: bool = field(default=False, init=False)
    """Set by a watcher that has more to emit than one page may lead to, and asks for another one, empty or not."""
    cursors: list[str] = field(default_factory=list, init=False)
    """Filled with the last page of a listing: the keys after which each watcher wants the next one to begin."""
    _digests: tuple[list[int], list[int]] | None = field(default=None, init=False)

    @property
    def now(self) -> datetime:
        """The store's clock, or ours where it does not tell."""
        return self.server_time or datetime.now(tz=UTC)

    def slices(self, size: int) -> Iterator[Page]:
        """Yield the page in parts of at most ``size`` objects, so that no part takes long to judge or to store."""
        if len(self.events) <= size:
            yield self
            return
        for start in range(0, len(self.events), size):
            ends = start + size >= len(self.events)
            yield replace(
                self,
                events=self.events[start : start + size],
                first=self.first and start == 0,
                last=self.last and ends,
                not_ready=self.not_ready if start == 0 else (),
                on_persisted=self.on_persisted if ends else None,
                unreadable=self.unreadable if start == 0 else 0,
            )

    def fingerprints(self) -> tuple[list[int], list[int]]:
        """Return those of :attr:`events` and :attr:`not_ready`; made once for all watchers."""
        if self._digests is None:
            self._digests = (
                [fingerprint(event) for event in self.events],
                [fingerprint(event) for event in self.not_ready],
            )
        return self._digests


class Unconfirmed(Enum):
    """Why an object that a notification named is not reported."""

    UNFINISHED = auto()
    """It is still being written; to be looked at again soon."""
    LISTING = auto()
    """Only a listing can show it."""


class EmptyListingGuard:
    """When a listing without any entry is trusted of a place that had some: after so many in a row.

    A server that fails, a proxy in its place, or a file system that is not mounted answers with an empty one.
    """

    IN_A_ROW = 3

    def __init__(self) -> None:
        self._left: dict[str, int] = {}

    def plausible(self, count: int, location: str = "") -> bool:
        """Take note of a listing, and return whether it may be trusted.

        :param count: its entries, those that cannot be read included.
        :param location: which of several.
        """
        if count:
            self._left[location] = self.IN_A_ROW
            return True
        left = self._left.get(location, 0) - 1
        if left <= 0:
            self._left.pop(location, None)
            return True
        self._left[location] = left
        return False

    def require(self, count: int, display_name: str, location: str = "") -> None:
        """Take note of a listing.

        :param count: its entries.
        :param display_name: words for the message.
        :param location: which of several.
        :raises TransientError: if it is not to be trusted yet.
        """
        if not self.plausible(count, location):
            raise empty_listing_error(display_name)


def empty_listing_error(display_name: str) -> TransientError:
    """Return the error of a listing that is not trusted.

    :param display_name: words for the message.
    """
    return TransientError(
        f"{display_name}: the listing was suddenly empty; not trusted until it was so {EmptyListingGuard.IN_A_ROW} "
        "times"
    )


class ListingSource(ABC):
    """One place that is listed again and again; owned by one producer, so never used concurrently.

    :param interval: seconds between the end of one listing and the start of the next.
    """

    interval: float
    before_listing: Callable[[str], Awaitable[None]] | None = None
    """Called with each directory before it is listed, where there are directories and notifications of them."""

    @property
    @abstractmethod
    def display_name(self) -> str:
        """Words for messages: the place and the connection."""

    @abstractmethod
    def full_listing(self) -> AsyncGenerator[Page, None]:
        """List everything once.

        :raises OscarProviderError: if the listing could not be completed; the next one starts afresh.
        """

    async def incremental(self, pause: float) -> AsyncGenerator[Page, None]:
        """Pass the time until the next full listing, which may come earlier when it is called for.

        A source without notifications just waits, and yields an empty page whenever one is asked for.

        :param pause: seconds that must pass in any case, after a failure; 0 otherwise.
        """
        ends = asyncio.get_running_loop().time() + max(pause, self.interval)
        while await self._asked_before(ends):
            yield Page((), incremental=True)

    async def _asked_before(self, ends: float) -> bool:
        """Wait until a page is asked for, or a time of the event loop has come; return whether one was."""
        try:
            async with asyncio.timeout_at(ends):
                await self._page_asked.wait()
        except TimeoutError:
            return False
        self._page_asked.clear()
        return True

    @cached_property
    def _page_asked(self) -> asyncio.Event:
        return asyncio.Event()

    async def look_up(self, key: str, reason: Reason) -> ObjectEvent | Unconfirmed | None:
        """Look at one object that a notification named.

        :param key: its key.
        :param reason: how it came to be.
        :return: the object as a listing shows it, or None if it is not there.
        """
        return Unconfirmed.LISTING

    async def expand(self, key: str) -> AsyncGenerator[Page, None]:
        """List a directory that appeared, where there are directories."""
        for page in tuple[Page, ...]():
            yield page

    def request_full_listing(self) -> None:  # noqa: B027 - a source without notifications lists soon anyway
        """End :meth:`incremental` early."""

    def request_page(self) -> None:
        """Have :meth:`incremental` yield a page soon, though nothing is new."""
        self._page_asked.set()

    def resume_after(self, key: str) -> None:  # noqa: B027 - most sources cannot
        """Have listings begin after a key; empty for whole ones. Only asked for by watchers that use key cursors."""

    async def aclose(self) -> None:  # noqa: B027 - most sources hold nothing
        """Release connections; must not raise."""


@contextmanager
def closing_unless_at_work(entries: Iterator[T]) -> Iterator[Iterator[T]]:
    """Close a generator at the end, unless a worker thread is still in it after a cancellation: it ends by itself."""
    try:
        yield entries
    finally:
        with suppress(ValueError):
            getattr(entries, "close", lambda: None)()
