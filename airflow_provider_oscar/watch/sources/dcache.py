# SPDX-License-Identifier: Apache-2.0
"""The dCache source: a directory (or a tree) listed over REST or PROPFIND.

Only whole files that can be read now are offered to watchers. Files that are there but on tape are offered
as not ready, so that they stay known; unfinished uploads, which have no size in dCache, are not offered at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_oscar.core.errors import PermanentError, TransientError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, Reason
from airflow_provider_oscar.watch.connections import Connections
from airflow_provider_oscar.watch.source import Page, Source
from airflow_provider_oscar.watch.sources.notified import Unconfirmed

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.dcache import DCacheHook
    from airflow_provider_oscar.hooks.dcache.entries import NamespaceEntry

#: Entries handed over at a time, so that judging them never holds the event loop for long.
PAGE_SIZE = 1000
#: A listing that lost everything is believed after so many in a row: a door that fails answers with an empty one.
_EMPTY_IN_A_ROW = 3


def _open_hook(conn_id: str) -> DCacheHook:
    """Make the hook where it is used, in a worker thread."""
    from airflow_provider_oscar.hooks.dcache import DCacheHook

    hook = DCacheHook(conn_id)
    _ = hook.settings  # reads the connection here
    return hook


#: The dCache connections of this process.
DCACHE_CONNECTIONS: Connections[DCacheHook] = Connections("dCache", _open_hook)


async def _watch_nothing(directory: str) -> None:
    """Stand for notifications where there are none."""


class DCacheSource(Source):
    """Lists a directory again and again.

    :param conn_id: Airflow connection of type ``dcache``.
    :param path: absolute directory.
    :param recursive: whether directories below it are listed as well.
    :param max_directories: more of them are an error.
    :param interval: seconds between full listings.
    :param connections: where the hook comes from.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        path: str,
        recursive: bool = False,
        max_directories: int = 1000,
        interval: float,
        connections: Connections[DCacheHook] = DCACHE_CONNECTIONS,
    ) -> None:
        self.interval = interval
        self.before_listing: Callable[[str], Awaitable[None]] = _watch_nothing
        """Called with each directory before it is listed."""
        self._conn_id = conn_id
        self._path = path
        self._recursive = recursive
        self._max_directories = max_directories
        self._connections = connections
        self._store = connections.acquire(conn_id)
        self._filled: dict[str, int] = {}

    @property
    def about(self) -> str:
        """Directory and connection."""
        return f"watching dCache directory {self._path!r} (connection {self._conn_id!r})"

    @property
    def container(self) -> str:
        """The directory as events name it."""
        return "/" + "/".join(part for part in self._path.split("/") if part)

    async def has_frontend(self) -> bool:
        """Whether the connection names a REST frontend, which sends notifications."""
        async with self._store.hook() as hook:
            return bool(hook.settings.frontend_url)

    async def full_listing(self) -> AsyncGenerator[Page, None]:
        """List the directory, or the whole tree, once."""
        first, doubtful = True, ""
        unreadable: list[int] = []
        async with self._store.hook() as hook:
            waiting, visited = deque([self.container]), 0
            while waiting:
                visited += 1
                if visited > self._max_directories:
                    raise PermanentError(
                        f"{self.about}: more than max_directories={self._max_directories} directories; "
                        "watch a smaller part or raise the limit"
                    )
                directory = waiting.popleft()
                await self.before_listing(directory)
                count, unread = 0, sum(unreadable)
                with _closing(hook.iter_entries(directory, unreadable=unreadable.append)) as entries:
                    while batch := await self._store.call(lambda: list(islice(entries, PAGE_SIZE))):  # noqa: B023
                        count += len(batch)
                        yield self._page(batch, first=first)
                        first = False
                        if self._recursive:
                            waiting.extend(entry.path for entry in batch if entry.is_directory)
                if not self._plausible(directory, count + sum(unreadable) - unread):
                    doubtful = directory
        if doubtful:
            raise TransientError(
                f"{self.about}: the listing of {quoted(doubtful)} was suddenly empty; not believed until it was so "
                f"{_EMPTY_IN_A_ROW} times"
            )
        yield Page((), first=first, last=True, unreadable=sum(unreadable))

    def _page(self, batch: list[NamespaceEntry], *, first: bool) -> Page:
        ready: list[ObjectEvent] = []
        not_ready: list[ObjectEvent] = []
        for entry in batch:
            if not entry.is_directory and (entry.size is not None or entry.unsized):
                event = entry.to_event(conn_id=self._conn_id, container=self.container)
                (ready if entry.complete else not_ready).append(event)
        return Page(ready, first=first, not_ready=not_ready)

    def _plausible(self, directory: str, count: int) -> bool:
        """Whether an empty listing may be believed."""
        if count:
            self._filled[directory] = _EMPTY_IN_A_ROW
            return True
        left = self._filled.get(directory, 0) - 1
        if left <= 0:
            self._filled.pop(directory, None)
            return True
        self._filled[directory] = left
        return False

    async def look(self, key: str, reason: Reason) -> ObjectEvent | Unconfirmed | None:
        """Return the file a notification named, if it is whole."""
        path = f"{self.container.rstrip('/')}/{key}"
        async with self._store.hook() as hook:
            entry = await self._store.call(lambda: hook.stat(path))
        if entry is None or entry.is_directory:
            return None
        if entry.complete:
            return entry.to_event(conn_id=self._conn_id, container=self.container, reason=reason)
        return Unconfirmed.UNFINISHED if entry.size is None else None

    async def expand(self, key: str) -> AsyncGenerator[Page, None]:
        """Watch a directory that appeared, and offer what is in it already; the next full listing does so again."""
        if not self._recursive:
            return
        waiting = [f"{self.container.rstrip('/')}/{key}"]
        visited = 0
        async with self._store.hook() as hook:
            while waiting and (visited := visited + 1) <= self._max_directories:
                directory = waiting.pop()
                await self.before_listing(directory)
                entries = await self._store.call(lambda: hook.list_entries(directory))  # noqa: B023
                yield Page(self._page(entries, first=False).events, hint=True)
                waiting.extend(entry.path for entry in entries if entry.is_directory)

    async def aclose(self) -> None:
        """Give the connection back."""
        self._connections.release(self._conn_id)


@contextmanager
def _closing(entries: Iterator[NamespaceEntry]) -> Iterator[Iterator[NamespaceEntry]]:
    """Close a generator at the end, unless a worker thread is still in it after a cancellation: it ends by itself."""
    try:
        yield entries
    finally:
        with suppress(ValueError):
            getattr(entries, "close", lambda: None)()
