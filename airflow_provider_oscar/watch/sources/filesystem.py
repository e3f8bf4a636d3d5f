# SPDX-License-Identifier: Apache-2.0
"""The source for any file system of fsspec: one directory, or a tree, listed again and again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from airflow_provider_oscar.watch.connections import Connections
from airflow_provider_oscar.watch.source import Page, Source

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook


def _open_hook(place: str) -> FileSystemHook:
    """Make the hook where it is used, in a worker thread; ``place`` is ``scheme:conn_id``."""
    from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook

    scheme, _, conn_id = place.partition(":")
    hook = FileSystemHook(scheme, conn_id)
    hook.get_conn()
    return hook


#: The file systems of this process, by scheme and connection.
FILE_SYSTEMS: Connections[FileSystemHook] = Connections("file system", _open_hook)


class FileSystemSource(Source):
    """Lists a directory.

    :param url: of the directory.
    :param conn_id: Airflow connection; empty for none.
    :param recursive: whether directories below it are listed as well.
    :param max_directories: more of them are an error.
    :param interval: seconds between two listings.
    :param connections: where the hook comes from.
    """

    def __init__(
        self,
        *,
        url: str,
        conn_id: str,
        recursive: bool,
        max_directories: int,
        interval: float,
        connections: Connections[FileSystemHook] = FILE_SYSTEMS,
    ) -> None:
        self.interval = interval
        self._url = url
        self._recursive = recursive
        self._max_directories = max_directories
        self._connections = connections
        self._place = f"{url.partition('://')[0]}:{conn_id}"
        self._store = connections.acquire(self._place)

    @property
    def about(self) -> str:
        """Directory and connection."""
        return f"watching {self._url!r} ({self._place})"

    async def full_listing(self) -> AsyncGenerator[Page, None]:
        """List the directory, or the whole tree, once."""
        first = True
        async with self._store.hook() as hook:
            pages = hook.list_pages(self._url, recursive=self._recursive, max_directories=self._max_directories)
            try:
                while (found := await self._store.call(lambda: next(pages, None))) is not None:
                    yield Page(found.events, first=first, unreadable=found.unreadable)
                    first = False
            finally:
                with contextlib.suppress(ValueError):  # a worker thread may still be in it after a cancellation
                    getattr(pages, "close", lambda: None)()
        yield Page((), first=first, last=True)

    async def aclose(self) -> None:
        """Give the connection back."""
        self._connections.release(self._place)
