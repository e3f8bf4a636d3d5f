# SPDX-License-Identifier: Apache-2.0
"""The namespace of the embedded dCache and the bytes of its files.

Names live in SQLite and bytes in files called by PNFS-ID, so that no name from outside ever becomes a
local path. A file has no size until its upload is committed, as in real dCache.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Self

from oscar_testbed.fakes.dcache.entries import ROOT_ID, Entry, Happening, NamespaceError, split_path
from oscar_testbed.faults import DCacheFaults

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    pnfsid TEXT PRIMARY KEY, parent TEXT NOT NULL, name TEXT NOT NULL, directory INTEGER NOT NULL,
    size INTEGER, mtime REAL NOT NULL, created REAL NOT NULL, adler32 TEXT NOT NULL DEFAULT '',
    locality TEXT NOT NULL DEFAULT 'NONE', xattrs TEXT NOT NULL DEFAULT '{}', UNIQUE (parent, name))
"""
_COLUMNS = "pnfsid, parent, name, directory, size, mtime, created, adler32, locality, xattrs"


class Namespace:
    """A tree of entries; every method may be called from any thread.

    :param directory: holds ``names.db`` and ``pool/``.
    :param faults: for the clock and for broken uploads.
    """

    def __init__(self, directory: Path, faults: DCacheFaults) -> None:
        self.faults = faults
        self._pool = directory / "pool"
        self._pool.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._database = sqlite3.connect(directory / "names.db", check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute(_SCHEMA)
        self.hidden: set[str] = set()
        self.listener: Callable[[Happening], None] = lambda happening: None
        row = self._database.execute(f"SELECT {_COLUMNS} FROM entries WHERE parent = ''").fetchone()
        self.root = _entry(row) if row else self._insert("", "", directory=True)

    def close(self) -> None:
        """Close the database; the data stay."""
        with self._lock:
            self._database.close()

    def now(self) -> float:
        """The store's clock, in seconds since the epoch."""
        return time.time() + self.faults.clock_offset.total_seconds()

    def stat(self, path: str) -> Entry | None:
        """The entry at an absolute path, or None."""
        with self._lock:
            entry: Entry | None = self.root
            for name in split_path(path):
                if entry is None or not entry.directory:
                    return None
                entry = self._child(entry.pnfsid, name)
            return self._refresh(entry) if entry is not None else None

    def require(self, path: str) -> Entry:
        """The entry at a path.

        :raises NamespaceError: 404 if there is none.
        """
        if (entry := self.stat(path)) is None:
            raise NamespaceError(404, f"No such file or directory {path}")
        return entry

    def forbid(self, path: str) -> None:
        """Let nobody list a directory from now on, as one of mode 0700 of somebody else's."""
        self.hidden.add(self.require(path).pnfsid)

    def listable(self, directory: Entry) -> bool:
        """Whether a directory may be listed."""
        return directory.pnfsid not in self.hidden

    def links(self, directory: Entry) -> int:
        """Number of links of a directory: itself, its name, and its directories' ``..``."""
        with self._lock:
            row = self._database.execute(
                "SELECT count(*) FROM entries WHERE parent = ? AND directory = 1", (directory.pnfsid,)
            ).fetchone()
        return 2 + int(row[0])

    def by_id(self, pnfsid: str) -> tuple[Entry, str] | None:
        """An entry and its present path."""
        with self._lock:
            found = self._select("pnfsid = ?", pnfsid)
            if not found:
                return None
            names: list[str] = []
            step = found[0]
            while step.parent:
                names.append(step.name)
                step = self._select("pnfsid = ?", step.parent)[0]
            return found[0], "/" + "/".join(reversed(names))

    def children(self, directory: Entry) -> list[Entry]:
        """The direct children, in no promised order. Watchers hear of the listing."""
        with self._lock:
            found = self._select("parent = ?", directory.pnfsid)
        for mask in ("IN_OPEN", "IN_CLOSE_NOWRITE"):
            self._tell(directory, mask)
        return found

    def mkdir(self, path: str, *, parents: bool = False) -> Entry:
        """Make a directory; with ``parents`` also those above, and one that exists is returned.

        :raises NamespaceError: 409 if it exists or its parent does not.
        """
        with self._lock:
            entry = self.root
            names = split_path(path)
            for depth, name in enumerate(names):
                last = depth == len(names) - 1
                child = self._child(entry.pnfsid, name)
                if child is None and (parents or last):
                    child = self._insert(entry.pnfsid, name, directory=True)
                    self._tell(child, "IN_CREATE")
                elif child is None or not child.directory or (last and not parents):
                    raise NamespaceError(409, "exists already, or a parent is not a directory")
                entry = child
            return entry

    def begin_upload(self, path: str, *, only_new: bool = False) -> Upload:
        """Create the entry of a file, without size, and return the transfer that fills it.

        Missing parents are made; an existing file is deleted first, as dCache does.

        :param path: of the file.
        :param only_new: refuse to replace a file; of several at once one gets through, as in dCache.
        :raises NamespaceError: 409 if the path is a directory, or below a file; 412 if a file is not to be replaced.
        """
        with self._lock:
            names = split_path(path)
            if not names:
                raise NamespaceError(409, "is a directory")
            parent = self.mkdir("/" + "/".join(names[:-1]), parents=True) if names[1:] else self.root
            old = self._child(parent.pnfsid, names[-1])
            if old is not None:
                if old.directory:
                    raise NamespaceError(409, "is a directory")
                if only_new:
                    raise NamespaceError(412, "exists")
                self._remove(old)
            entry = self._insert(parent.pnfsid, names[-1], directory=False)
            self._tell(entry, "IN_CREATE")
            self._tell(entry, "IN_OPEN")
            return Upload(self, entry, self._pool / entry.pnfsid)

    def put(self, path: str, data: bytes, *, locality: str = "ONLINE") -> Entry:
        """Write a whole file.

        :param locality: ``ONLINE``, ``ONLINE_AND_NEARLINE`` or ``NEARLINE`` (on tape only).
        """
        with self.begin_upload(path) as upload:
            upload.write(data)
            upload.commit(locality=locality)
        return self.require(path)

    def open(self, entry: Entry) -> BinaryIO:
        """Open the bytes of a file.

        :raises NamespaceError: 409 while it is being written or if it is not online.
        """
        if not entry.online:
            raise NamespaceError(409, f"cannot be read now, its locality is {entry.locality}")
        return (self._pool / entry.pnfsid).open("rb")

    def move(self, source: str, destination: str) -> None:
        """Rename; a file at the destination is replaced.

        :raises NamespaceError: 404, or 409 if the destination is a directory, below the source, or has no parent.
        """
        with self._lock:
            entry = self.require(source)
            names = split_path(destination)
            if not names or not entry.parent or split_path(source) == names[: len(split_path(source))]:
                raise NamespaceError(409, "cannot be moved there")
            parent = self.stat("/" + "/".join(names[:-1]))
            if parent is None or not parent.directory:
                raise NamespaceError(409, "the destination has no parent directory")
            old = self._child(parent.pnfsid, names[-1])
            if old is not None:
                if old.directory:
                    raise NamespaceError(409, "the destination is a directory")
                self._remove(old)
            cookie = secrets.token_urlsafe(6)
            self._update(entry.pnfsid, parent=parent.pnfsid, name=names[-1])
            for changed in {entry.parent, parent.pnfsid}:
                self._update(changed, mtime=self.now())
            kind = ("IN_ISDIR",) if entry.directory else ()
            self.listener(Happening(entry.parent, entry.name, ("IN_MOVED_FROM", *kind), cookie))
            self.listener(Happening(parent.pnfsid, names[-1], ("IN_MOVED_TO", *kind), cookie))
            self.listener(Happening(entry.pnfsid, None, ("IN_MOVE_SELF", *kind)))

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """Delete an entry.

        :raises NamespaceError: 404, or 400 for a directory that is not empty unless ``recursive``.
        """
        with self._lock:
            entry = self.require(path)
            if not entry.parent:
                raise NamespaceError(400, "Cannot delete file system root.")
            if entry.directory and not recursive and self._select("parent = ?", entry.pnfsid):
                raise NamespaceError(400, f"Directory is not empty: {path}")
            self._remove(entry)

    def set_xattrs(self, path: str, attributes: Mapping[str, str], mode: str = "EITHER") -> None:
        """Set extended attributes; CREATE refuses existing names, MODIFY absent ones, both with 409."""
        with self._lock:
            entry = self.require(path)
            for name in attributes:
                if (mode == "CREATE" and name in entry.xattrs) or (mode == "MODIFY" and name not in entry.xattrs):
                    raise NamespaceError(409, "Attribute already exist" if mode == "CREATE" else "No such attribute")
            self._update(entry.pnfsid, xattrs=json.dumps({**entry.xattrs, **attributes}))

    def remove_xattrs(self, path: str, names: Iterable[str]) -> None:
        """Remove extended attributes; 409 if one is absent."""
        with self._lock:
            entry = self.require(path)
            left = dict(entry.xattrs)
            for name in names:
                if left.pop(name, None) is None:
                    raise NamespaceError(409, "No such attribute")
            self._update(entry.pnfsid, xattrs=json.dumps(left))

    def set_locality(self, path: str, locality: str) -> None:
        """Say where the bytes are: ``ONLINE``, ``NEARLINE`` (tape only), ``ONLINE_AND_NEARLINE``, ``LOST``..."""
        with self._lock:
            entry = self.require(path)
            self._update(entry.pnfsid, locality=locality)
            self._tell(entry, "IN_ATTRIB")

    def finish(self, entry: Entry, *, size: int | None, written: int, adler32: str, locality: str, keep: bool) -> None:
        """End an upload (called by :class:`Upload`); the closing event comes in every case, as in dCache."""
        with self._lock:
            # The pool remembers where the transfer began: after a rename this is still the old name.
            if written:
                self._tell_old_name(entry, "IN_MODIFY")
            if size is not None:
                now = self.now()
                self._update(entry.pnfsid, size=size, adler32=adler32, locality=locality, mtime=now)
            for mask in ("IN_ATTRIB",) if size is not None else ("IN_ATTRIB", "IN_ATTRIB"):
                self._tell(entry, mask)
            self._tell_old_name(entry, "IN_CLOSE_WRITE")
            if size is None and not keep and (found := self.by_id(entry.pnfsid)):
                self._remove(found[0])

    def _insert(self, parent: str, name: str, *, directory: bool) -> Entry:
        now = self.now()
        pnfsid = "0000" + secrets.token_hex(16).upper() if parent else ROOT_ID
        self._database.execute(
            "INSERT INTO entries (pnfsid, parent, name, directory, mtime, created) VALUES (?, ?, ?, ?, ?, ?)",
            (pnfsid, parent, name, int(directory), now, now),
        )
        if parent:
            self._update(parent, mtime=now)
        return self._select("pnfsid = ?", pnfsid)[0]

    def _remove(self, entry: Entry) -> None:
        for child in self._select("parent = ?", entry.pnfsid):
            self._remove(child)
        self._database.execute("DELETE FROM entries WHERE pnfsid = ?", (entry.pnfsid,))
        self._update(entry.parent, mtime=self.now())
        (self._pool / entry.pnfsid).unlink(missing_ok=True)
        kind = ("IN_ISDIR",) if entry.directory else ()
        self.listener(Happening(entry.pnfsid, None, ("IN_DELETE_SELF", *kind)))
        self.listener(Happening(entry.parent, entry.name, ("IN_DELETE", *kind)))

    def _child(self, parent: str, name: str) -> Entry | None:
        found = self._select("parent = ? AND name = ?", parent, name)
        return found[0] if found else None

    def _refresh(self, entry: Entry) -> Entry | None:
        found = self._select("pnfsid = ?", entry.pnfsid)
        return found[0] if found else None

    def _select(self, condition: str, *values: str) -> list[Entry]:
        with self._lock:
            rows = self._database.execute(f"SELECT {_COLUMNS} FROM entries WHERE {condition}", values).fetchall()
        return [_entry(row) for row in rows]

    def _update(self, pnfsid: str, **changes: object) -> None:
        names = ", ".join(f"{name} = ?" for name in changes)
        self._database.execute(f"UPDATE entries SET {names} WHERE pnfsid = ?", (*changes.values(), pnfsid))

    def tell_read(self, entry: Entry, mask: str) -> None:
        """Tell of a reader: ``IN_OPEN``, ``IN_ACCESS``, ``IN_CLOSE_NOWRITE``."""
        with self._lock:
            self._tell(entry, mask)

    def _tell_old_name(self, entry: Entry, mask: str) -> None:
        """Tell of an entry under the name it had."""
        self.listener(Happening(entry.parent, entry.name, (mask,)))
        self.listener(Happening(entry.pnfsid, None, (mask,)))

    def _tell(self, entry: Entry, mask: str) -> None:
        kind = ("IN_ISDIR",) if entry.directory else ()
        if entry.parent:
            self.listener(Happening(entry.parent, entry.name, (mask, *kind)))
        self.listener(Happening(entry.pnfsid, None, (mask, *kind)))


class Upload:
    """A file being written: committed once, or broken off when the block ends without a commit."""

    def __init__(self, namespace: Namespace, entry: Entry, path: Path) -> None:
        self.entry = entry
        self.size = 0
        self._namespace = namespace
        self._file = path.open("wb")
        self._adler32 = zlib.adler32(b"")
        self._done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    @property
    def adler32(self) -> str:
        """Checksum of what was written so far, 8 hex digits."""
        return f"{self._adler32:08x}"

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)
        self._adler32 = zlib.adler32(data, self._adler32)
        self.size += len(data)

    def commit(self, *, locality: str = "ONLINE") -> None:
        """Give the file its size, checksum and locality, at once."""
        self._end(size=self.size, locality=locality)

    def abort(self) -> None:
        """Break the upload off; nothing if it is committed."""
        self._end(size=None, locality="NONE")

    def _end(self, *, size: int | None, locality: str) -> None:
        if self._done:
            return
        self._done = True
        self._file.flush()
        self._file.close()
        self._namespace.finish(
            self.entry,
            size=size,
            written=self.size,
            adler32=self.adler32,
            locality=locality,
            keep=self._namespace.faults.keep_partial_uploads,
        )


def _entry(row: tuple[object, ...]) -> Entry:
    pnfsid, parent, name, directory, size, mtime, created, adler32, locality, xattrs = row
    return Entry(
        str(pnfsid), str(parent), str(name), bool(directory), size if isinstance(size, int) else None,
        float(str(mtime)), float(str(created)), str(adler32), str(locality), json.loads(str(xattrs)),
    )  # fmt: skip
