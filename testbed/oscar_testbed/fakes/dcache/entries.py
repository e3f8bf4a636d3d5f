# SPDX-License-Identifier: Apache-2.0
"""Files and directories of the embedded dCache as values, what is told of them, and the paths that name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_MAX_NAME_BYTES = 1024
#: PNFS-ID of the root.
ROOT_ID = "0" * 36


class NamespaceError(Exception):
    """A refused operation, with the HTTP status the doors answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or directory as it was when looked at; times in seconds by the store's clock."""

    pnfsid: str
    parent: str
    name: str
    directory: bool
    size: int | None
    mtime: float
    created: float
    adler32: str
    stored_locality: str
    xattrs: Mapping[str, str]

    @property
    def locality(self) -> str:
        """``fileLocality``; NONE for directories and for files still being written."""
        return "NONE" if self.directory or self.size is None else self.stored_locality

    @property
    def online(self) -> bool:
        """Whether the bytes can be read now."""
        return self.locality in ("ONLINE", "ONLINE_AND_NEARLINE")

    @property
    def etag(self) -> str:
        """Entity tag without quotes: PNFS-ID and a hash of the modification time."""
        return f"{self.pnfsid}_{int(self.mtime * 1000) & 0xFFFFFFFF}"


@dataclass(frozen=True, slots=True)
class Happening:
    """What the namespace tells its listener.

    :param watched: PNFS-ID of the entry whose watchers are told.
    :param name: name of the child it happened to, or None if it happened to ``watched`` itself.
    """

    watched: str
    name: str | None
    mask: tuple[str, ...]
    cookie: str | None = None


def split_path(path: str) -> list[str]:
    """The names along an absolute path.

    :raises NamespaceError: for names no file can have.
    """
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            names = names[:-1]  # dCache resolves dots, and no path leads out of the root
        elif name not in ("", "."):
            names.append(name)
    for name in names:
        if "\0" in name:
            raise NamespaceError(400, "the path holds a name that is not allowed")
        try:
            too_long = len(name.encode("utf-8")) > _MAX_NAME_BYTES
        except UnicodeEncodeError as error:
            raise NamespaceError(400, "the path is not UTF-8") from error
        if too_long:
            raise NamespaceError(400, f"a name in the path is longer than {_MAX_NAME_BYTES} bytes")
    return names
