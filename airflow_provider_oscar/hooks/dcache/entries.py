# SPDX-License-Identifier: Apache-2.0
"""One name in a namespace, as a listing or a look at it shows."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from airflow_provider_oscar.core.errors import BadInputError, DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent, Reason, StoreType

#: A PNFS-ID, of Chimera or of the older PNFS, and what a door appends.
_DOOR_TAG = re.compile(r"([0-9A-F]{36}|[0-9A-F]{24})_-?\d+")
EPOCH = datetime.fromtimestamp(0, UTC)
#: Localities in which a file can be read at once. NONE means that it is still being uploaded.
READABLE = frozenset({"ONLINE", "ONLINE_AND_NEARLINE"})


class NamespaceEntry(msgspec.Struct, frozen=True):
    """A file or directory.

    :param path: absolute path below the connection's root, decoded; hostile text.
    :param is_directory: whether it can be listed.
    :param size: bytes; None for directories, and for files of dCache that are still being uploaded.
    :param modified: the server's time, UTC; the epoch where it told none.
    :param etag: normalised entity tag; the PNFS-ID for a file of dCache, whichever way it was looked at.
    :param locality: dCache's word (ONLINE, NEARLINE, ...); empty where the server has no such notion.
    :param pnfsid: dCache's id of the file, which changes when it is overwritten; may be empty.
    :param checksums: pairs of lower-case type (``adler32``, ``md5``, ``sha256``) and hex value.
    :param unsized: whether a missing size says nothing: dCache knows it once the upload is over, other servers may
        never know it.
    """

    path: str
    is_directory: bool
    size: int | None
    modified: datetime
    etag: str
    locality: str = ""
    pnfsid: str = ""
    checksums: tuple[tuple[str, str], ...] = ()
    unsized: bool = False

    @property
    def name(self) -> str:
        """Last segment of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def complete(self) -> bool:
        """Whether this is a whole file that can be read now; an unknown locality means not yet."""
        if self.is_directory or (self.locality and self.locality not in READABLE):
            return False
        return self.size is not None or self.unsized

    def to_event(self, *, conn_id: str, container: str, reason: Reason = Reason.LISTED) -> ObjectEvent:
        """Return the event of this file, as seen from a watched directory."""
        return ObjectEvent(
            StoreType.DCACHE,
            conn_id,
            container,
            relative(self.path, container),
            self.size,
            self.etag,
            "",
            self.modified,
            reason,
        )


def split_etag(etag: str) -> tuple[str, str]:
    """Return (entity tag, PNFS-ID) for a door's tag: dCache's is the PNFS-ID, ``_``, and 32 bits of the time.

    The PNFS-ID alone is the version, as the REST frontend tells it; for the tag of another server it is empty.
    Source: dCache 12.0, ``DcacheFileResource.getUniqueId``.
    """
    found = _DOOR_TAG.fullmatch(etag) if "_" in etag else None
    return (found[1], found[1]) if found else (etag, "")


def clean_path(path: str) -> str:
    """Return an absolute path without empty segments and trailing slash.

    :raises DefinitionError: if it is relative, or has ``.``, ``..`` or NUL in it.
    """
    segments = [segment for segment in path.split("/") if segment]
    if not path.startswith("/") or "\0" in path or any(segment in (".", "..") for segment in segments):
        raise DefinitionError(f"cannot use the path {path!r}; expected an absolute one without '.' and '..' segments")
    return "/" + "/".join(segments)


def join(container: str, key: str) -> str:
    """Return the absolute path of a key below a directory.

    :raises BadInputError: if the key leads elsewhere; strangers name keys.
    """
    try:
        return clean_path(f"{container.rstrip('/')}/{key}")
    except DefinitionError as error:
        raise BadInputError(str(error)) from error


def relative(path: str, container: str) -> str:
    """Return a path relative to a directory that holds it."""
    base = container.rstrip("/") + "/"
    if not path.startswith(base):
        raise DefinitionError(f"{path!r} is not below {container!r}")
    return path[len(base) :]


def encoded(path: str) -> str:
    """Percent-encode an absolute path, segment by segment."""
    return quote(clean_path(path), safe="/~", errors="surrogateescape")
