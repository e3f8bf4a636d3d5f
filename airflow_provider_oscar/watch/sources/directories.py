# SPDX-License-Identifier: Apache-2.0
"""What sources of directories share: a tree is listed directory by directory, within bounds."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, PermanentError, quoted
from airflow_provider_oscar.hooks.connections import Closable, Connections
from airflow_provider_oscar.watch.source import (
    EmptyListingGuard,
    ListingSource,
    Page,
    closing_unless_at_work,
    empty_listing_error,
)

#: Entries handed over at a time, so that judging them never holds the event loop for long.
ENTRIES_PER_PAGE = 1000


class Entry(Protocol):
    """One name in a directory."""

    @property
    def path(self) -> str:
        """As the store names it."""

    @property
    def is_directory(self) -> bool:
        """Whether it can be listed."""


H = TypeVar("H", bound=Closable)
E = TypeVar("E", bound=Entry)


@dataclass(kw_only=True, eq=False)
class DirectorySource(ListingSource, Generic[H, E]):
    """Lists a directory, or the whole tree below it, again and again.

    :param conn_id: Airflow connection; empty for none.
    :param recursive: whether directories below it are listed as well.
    :param max_directories: more of them are an error.
    :param interval: seconds between full listings.
    :param connections: where the hook comes from.
    """

    conn_id: str
    recursive: bool = False
    max_directories: int = 1000
    interval: float
    connections: Connections[H]

    def __post_init__(self) -> None:
        self._store = self.connections.acquire(self.connection)
        self._empty_listings = EmptyListingGuard()

    @property
    def connection(self) -> str:
        """What the connection is known by to :attr:`connections`."""
        return self.conn_id

    @abstractmethod
    async def top(self, hook: H) -> str:
        """Return the directory to begin with, as the store names it."""

    @abstractmethod
    def entries(self, hook: H, directory: str, unreadable: Callable[[int], None]) -> Iterator[E]:
        """Yield the entries of one directory; runs in a thread."""

    @abstractmethod
    def page(self, batch: list[E], *, first: bool) -> Page:
        """Return what watchers are shown of some entries."""

    async def full_listing(self) -> AsyncGenerator[Page, None]:
        """List the directory, or the whole tree, once.

        A directory below it that is gone meanwhile is passed over; one that may not be listed counts as an entry that
        cannot be read, so that it hides no other.
        """
        first, doubtful = True, ""
        unreadable: list[int] = []
        async with self._store.hook() as hook:
            top = await self.top(hook)
            waiting, visited = deque([top]), 0
            while waiting:
                visited += 1
                if visited > self.max_directories:
                    raise PermanentError(
                        f"{self.display_name}: more than max_directories={self.max_directories} directories; "
                        "watch a smaller part or raise the limit"
                    )
                directory = waiting.popleft()
                count, unread = 0, sum(unreadable)
                try:
                    async with aclosing(self._watched_batches(hook, directory, unreadable.append)) as batches:
                        async for batch in batches:
                            count += len(batch)
                            yield self.page(batch, first=first)
                            first = False
                            if self.recursive:
                                waiting.extend(entry.path for entry in batch if entry.is_directory)
                except (BadInputError, DefinitionError) as error:
                    if directory == top:
                        raise
                    unreadable.append(isinstance(error, DefinitionError))
                    continue
                if not self._empty_listings.plausible(count + sum(unreadable) - unread, directory):
                    doubtful = directory
        if doubtful:
            raise empty_listing_error(f"{self.display_name}: directory {quoted(doubtful)}")
        yield Page((), first=first, last=True, unreadable=sum(unreadable))

    async def _watched_batches(
        self, hook: H, directory: str, unreadable: Callable[[int], None]
    ) -> AsyncGenerator[list[E]]:
        """Watch a directory where there are notifications, then list it."""
        refused: PermanentError | None = None
        if self.before_listing is not None:
            try:
                await self.before_listing(directory)
            except PermanentError as error:  # perhaps it is gone, which the listing tells
                refused = error
        async with aclosing(self._batches(hook, directory, unreadable)) as batches:
            async for batch in batches:
                yield batch
        if refused is not None:
            raise refused

    async def _batches(self, hook: H, directory: str, unreadable: Callable[[int], None]) -> AsyncGenerator[list[E]]:
        with closing_unless_at_work(self.entries(hook, directory, unreadable)) as entries:
            while batch := await self._store.call(lambda: list(islice(entries, ENTRIES_PER_PAGE))):
                yield batch

    async def aclose(self) -> None:
        """Give the connection back."""
        self.connections.release(self.connection)
