# SPDX-License-Identifier: Apache-2.0
"""The dCache source: a directory (or a tree) listed over REST or PROPFIND.

Only whole files that can be read now are offered to watchers. Files that are there but on tape are offered
as not ready, so that they stay known; unfinished uploads, which have no size in dCache, are not offered at all.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, PermanentError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, Reason
from airflow_provider_oscar.hooks.connections import Connections
from airflow_provider_oscar.watch.notifications.listener import SkipCounter
from airflow_provider_oscar.watch.source import Page, Unconfirmed
from airflow_provider_oscar.watch.sources.directories import DirectorySource

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.dcache import DCacheHook
    from airflow_provider_oscar.hooks.dcache.entries import NamespaceEntry


def _open_hook(conn_id: str) -> DCacheHook:
    """Make the hook where it is used, in a worker thread."""
    from airflow_provider_oscar.hooks.dcache import DCacheHook

    hook = DCacheHook(conn_id)
    _ = hook.settings  # reads the connection here
    return hook


#: The dCache connections of this process.
DCACHE_CONNECTIONS: Connections[DCacheHook] = Connections("dCache", _open_hook)


@dataclass(kw_only=True, eq=False)
class DCacheSource(DirectorySource["DCacheHook", "NamespaceEntry"]):
    """Lists a directory again and again.

    :param path: absolute directory.
    """

    path: str
    connections: Connections[DCacheHook] = DCACHE_CONNECTIONS

    def __post_init__(self) -> None:
        super().__post_init__()
        self._skipped = SkipCounter(f"{self.display_name}: notifications")

    @property
    def display_name(self) -> str:
        """Directory and connection."""
        return f"watching dCache directory {self.path!r} (connection {self.conn_id!r})"

    @property
    def container(self) -> str:
        """The directory as events name it."""
        return "/" + "/".join(part for part in self.path.split("/") if part)

    async def has_frontend(self) -> bool:
        """Whether the connection names a REST frontend, which sends notifications."""
        async with self._store.hook() as hook:
            return bool(hook.settings.frontend_url)

    async def namespace_base(self) -> str:
        """Where the connection's paths begin in dCache's namespace."""
        async with self._store.hook() as hook:
            return hook.settings.namespace_base

    async def top(self, hook: DCacheHook) -> str:
        """Return the directory."""
        return self.container

    def entries(self, hook: DCacheHook, directory: str, unreadable: Callable[[int], None]) -> Iterator[NamespaceEntry]:
        """Yield the entries of one directory."""
        return hook.iter_entries(directory, unreadable=unreadable)

    def page(self, batch: list[NamespaceEntry], *, first: bool) -> Page:
        """Return whole files as objects, and those on tape as not ready."""
        ready: list[ObjectEvent] = []
        not_ready: list[ObjectEvent] = []
        for entry in batch:
            if not entry.is_directory and (entry.size is not None or entry.unsized):
                event = entry.to_event(conn_id=self.conn_id, container=self.container)
                (ready if entry.complete else not_ready).append(event)
        return Page(ready, first=first, not_ready=not_ready)

    async def look_up(self, key: str, reason: Reason) -> ObjectEvent | Unconfirmed | None:
        """Return the file a notification named, if it is whole."""
        from airflow_provider_oscar.hooks.dcache.entries import join

        try:
            async with self._store.hook() as hook:
                entry = await self._store.call(lambda: hook.stat(join(self.container, key)))
        except BadInputError:  # no name of a file: strangers write messages
            return None
        except (DefinitionError, PermanentError) as error:
            self._skipped.add("objects that could not be looked at and are left to the listing", quoted(error))
            return Unconfirmed.LISTING
        if entry is None or entry.is_directory:
            return None
        if entry.complete:
            return entry.to_event(conn_id=self.conn_id, container=self.container, reason=reason)
        return Unconfirmed.UNFINISHED if entry.size is None else None

    async def expand(self, key: str) -> AsyncGenerator[Page, None]:
        """Watch a directory that appeared, and offer what is in it already; the next full listing does so again."""
        if not self.recursive:
            return
        waiting = [f"{self.container.rstrip('/')}/{key}"]
        visited = 0
        async with self._store.hook() as hook:
            while waiting and (visited := visited + 1) <= self.max_directories:
                directory = waiting.pop()
                try:
                    if self.before_listing is not None:
                        await self.before_listing(directory)
                    entries = await self._store.call(lambda: hook.list_entries(directory))  # noqa: B023
                except (PermanentError, DefinitionError):
                    continue  # gone already, or closed to us; the next full listing says which
                yield Page(self.page(entries, first=False).events, incremental=True)
                waiting.extend(entry.path for entry in entries if entry.is_directory)
