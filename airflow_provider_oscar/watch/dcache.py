# SPDX-License-Identifier: Apache-2.0
"""The dCache source: a directory (or a tree) listed over REST or PROPFIND, in a worker thread.

Only whole files that can be read now are offered to watchers. Files that are there but on tape are told
as unready, so that they stay known; unfinished uploads, which have no size in dCache, are not told at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from airflow_provider_oscar.core.errors import PermanentError, TransientError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.watch.pages import Page, Source

#: Entries handed over at a time, so that judging them never holds the event loop for long.
PAGE_SIZE = 1000
#: A listing that lost everything is believed after so many in a row: a door that fails answers with an empty one.
_EMPTY_IN_A_ROW = 3


@dataclass(frozen=True)
class Place:
    """What is listed.

    :param conn_id: Airflow connection of type ``dcache``.
    :param path: absolute directory.
    :param recursive: whether directories below it are listed as well.
    :param max_directories: more of them are an error.
    """

    conn_id: str
    path: str
    recursive: bool = False
    max_directories: int = 1000


def _open_hook(conn_id: str) -> Any:
    """Make the hook where it is used, in the worker thread."""
    from airflow_provider_oscar.hooks.dcache import DCacheHook

    return DCacheHook(conn_id)


class DCacheSource(Source):
    """Lists a directory again and again; :class:`~.inotify.InotifySource` adds notifications to it.

    :param interval: seconds between sweeps.
    :param open_hook: makes the hook; called again after a failure, so that a corrected connection is used.
    """

    def __init__(self, place: Place, *, interval: float, open_hook: Callable[[str], Any] = _open_hook) -> None:
        self.place = place
        self.interval = interval
        self._open_hook = open_hook
        self._hook: Any = None
        self._opening = asyncio.Lock()
        self._filled: dict[str, int] = {}

    @property
    def about(self) -> str:
        """Directory and connection."""
        return f"watching dCache directory {self.place.path!r} (connection {self.place.conn_id!r})"

    @property
    def container(self) -> str:
        """The directory as events name it."""
        return "/" + "/".join(part for part in self.place.path.split("/") if part)

    async def hook(self) -> Any:
        """Return the hook, made anew after a failure."""
        async with self._opening:
            if self._hook is None:
                self._hook = await asyncio.to_thread(self._open)
            return self._hook

    def _open(self) -> Any:
        hook = self._open_hook(self.place.conn_id)
        _ = hook.settings  # reads the connection here, in the worker thread
        return hook

    async def sweep(self) -> AsyncGenerator[Page, None]:
        """List the directory, or the whole tree, once."""
        first = True
        doubtful = ""
        try:
            hook = await self.hook()
            waiting, visited = deque([self.container]), 0
            while waiting:
                visited += 1
                if visited > self.place.max_directories:
                    raise PermanentError(
                        f"{self.about}: more than max_directories={self.place.max_directories} directories; "
                        "watch a smaller part or raise the limit"
                    )
                directory = waiting.popleft()
                await self.before_listing(directory)
                count = 0
                with _closing(hook.iter_entries(directory)) as entries:
                    while batch := await asyncio.to_thread(lambda: list(islice(entries, PAGE_SIZE))):  # noqa: B023
                        count += len(batch)
                        page = await asyncio.to_thread(self._page, batch, first=first)
                        first = False
                        yield page
                        if self.place.recursive:
                            waiting.extend(entry.path for entry in batch if entry.is_directory)
                if not self._plausible(directory, count):
                    doubtful = directory
        except Exception:
            await self._drop_hook()
            raise
        if doubtful:
            raise TransientError(
                f"{self.about}: the listing of {quoted(doubtful)} was suddenly empty; not believed until it was so "
                f"{_EMPTY_IN_A_ROW} times"
            )
        yield Page((), first=first, last=True)

    async def before_listing(self, directory: str) -> None:
        """Called with each directory of a sweep."""

    def _page(self, batch: list[Any], *, first: bool) -> Page:
        ready: list[ObjectEvent] = []
        unready: list[ObjectEvent] = []
        for entry in batch:
            if not entry.is_directory and entry.size is not None:
                event = entry.to_event(conn_id=self.place.conn_id, container=self.container)
                (ready if entry.complete else unready).append(event)
        return Page(ready, first=first, unready=unready)

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

    async def _drop_hook(self) -> None:
        hook, self._hook = self._hook, None
        if hook is not None:
            await asyncio.to_thread(hook.close)

    async def aclose(self) -> None:
        """Close the hook's connections."""
        await self._drop_hook()


@contextmanager
def _closing(entries: Generator[Any, None, None]) -> Iterator[Iterator[Any]]:
    """Close a generator at the end, unless a worker thread is still in it after a cancellation: it ends by itself."""
    try:
        yield entries
    finally:
        with suppress(ValueError):
            entries.close()
