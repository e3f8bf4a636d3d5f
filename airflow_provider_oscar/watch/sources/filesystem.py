# SPDX-License-Identifier: Apache-2.0
"""The source of any file system that fsspec knows: a directory, or the tree below it, listed by polling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_oscar.core.fsspec_urls import WITH_HOST, FsspecUrl
from airflow_provider_oscar.hooks.connections import Connections
from airflow_provider_oscar.hooks.filesystem.buckets import require_bucket
from airflow_provider_oscar.hooks.filesystem.entries import below
from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook
from airflow_provider_oscar.watch.source import Page
from airflow_provider_oscar.watch.sources.directories import DirectorySource

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.filesystem.entries import FileEntry


def _open_hook(location: str) -> FileSystemHook:
    """Make the hook where it is used, in a worker thread: clients of clouds take a second to import."""
    url = FsspecUrl.parse(location)
    hook = FileSystemHook(url.protocol, url.conn_id, host=url.authority)
    _ = hook.fs
    return hook


#: The file systems of this process: one for each protocol, connection and host.
FILE_SYSTEMS: Connections[FileSystemHook] = Connections("file system", _open_hook)


@dataclass(kw_only=True, eq=False)
class FileSystemSource(DirectorySource["FileSystemHook", "FileEntry"]):
    """Lists a place such as ``gs://bucket/prefix`` again and again.

    :param url: the place.
    """

    url: str
    recursive: bool = True
    connections: Connections[FileSystemHook] = FILE_SYSTEMS

    def __post_init__(self) -> None:
        self._location = FsspecUrl.parse(self.url)
        self.container = self._location.url
        self._root = ""
        super().__post_init__()

    @property
    def connection(self) -> str:
        """Protocol, connection and host; without the bucket, since a client of Google or Azure serves all of them."""
        host = self._location.authority if self._location.protocol in WITH_HOST else ""
        return f"{self._location.protocol}://{self.conn_id}@{host}/"

    @property
    def display_name(self) -> str:
        """Place and connection."""
        return f"watching {self.container!r} (connection {self.conn_id or 'none'!r})"

    async def top(self, hook: FileSystemHook) -> str:
        """Return the place as the file system names it."""
        self._root = await self._store.call(lambda: hook.root(self.container))
        return self._root

    def entries(self, hook: FileSystemHook, directory: str, unreadable: Callable[[int], None]) -> Iterator[FileEntry]:
        """Yield the entries of one directory.

        :raises DefinitionError: if the place has none since its bucket is not there.
        """
        empty = True
        for entry in hook.iter_entries(directory, unreadable=unreadable):
            empty = False
            yield entry
        if empty and directory == self._root:
            require_bucket(hook, directory)

    def page(self, batch: list[FileEntry], *, first: bool) -> Page:
        """Return the files."""
        files = ((entry, below(entry.path, self._root)) for entry in batch if not entry.is_directory)
        events = [
            entry.to_event(conn_id=self.conn_id, container=self.container, key=key) for entry, key in files if key
        ]
        return Page(events, first=first)
