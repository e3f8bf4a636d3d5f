# SPDX-License-Identifier: Apache-2.0
"""One entry of an fsspec listing, read from a dictionary whose keys each file system names differently; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_provider_oscar.core.objects import ObjectEvent, Reason, StoreType, normalised_etag
from airflow_provider_oscar.core.times import in_utc, parse_iso, read_http

EPOCH = datetime.fromtimestamp(0, UTC)
#: Where file systems say what changes with the content, the best first: gcsfs; s3fs, adlfs, webdav4; HTTP; Git.
_TAGS = (
    "generation", "ETag", "etag", "md5Hash", "Content-MD5", "content_md5", "md5", "sha256", "Digest", "content_hash",
    "blob_id", "sha", "hex", "crc32c", "checksum", "e_tag",
)  # fmt: skip
#: Where they say when that was: s3fs, adlfs, local and sftp, webdav4, gcsfs, WebHDFS, SMB, Dropbox, FTP, HTTP; memory.
_TIMES = (
    "LastModified", "last_modified", "mtime", "modified", "updated", "modificationTime", "modification_time",
    "last_write_time", "server_modified", "modify", "Last-Modified", "date_time", "created",
)  # fmt: skip
#: Seconds of the year 5138; what is above is milliseconds, as in WebHDFS.
_MILLISECONDS = 1e11


class UnreadableEntryError(ValueError):
    """An entry of a listing that nothing can be made of."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file or directory.

    :param path: as the file system names it; hostile text.
    :param key: relative to the directory that was asked for.
    :param is_directory: whether it can be listed.
    :param size: bytes, or None where the listing does not tell.
    :param modified: UTC; the epoch where nothing is told.
    :param etag: what the store says changes with the content; may be empty.
    """

    path: str
    key: str
    is_directory: bool
    size: int | None
    modified: datetime
    etag: str

    @property
    def versioned(self) -> bool:
        """Whether it is told which version this is."""
        return bool(self.etag) or self.modified != EPOCH

    def to_event(self, *, conn_id: str, container: str, key: str, reason: Reason = Reason.LISTED) -> ObjectEvent:
        """Return the event of this file.

        :param conn_id: connection, or empty.
        :param container: the watched place, as a URL.
        :param key: relative to the place.
        :param reason: how it was noticed.
        """
        return ObjectEvent(StoreType.FSSPEC, conn_id, container, key, self.size, self.etag, "", self.modified, reason)


def read_entry(info: object, directory: str) -> FileEntry | None:
    """Read one dictionary of a listing; None for what is neither a file nor a directory to go into.

    That is the directory itself (stores of objects list a marker for it), a device, or a link to a directory, which
    could lead round in circles.

    :param info: what ``ls(detail=True)`` shows.
    :param directory: what was listed, as the file system names it.
    :raises UnreadableEntryError: if it has no name, one outside the directory, or one that cannot be a path.
    """
    if not isinstance(info, Mapping) or not isinstance(info.get("name"), str):
        raise UnreadableEntryError("no name")
    name = str(info["name"]).rstrip("/")
    key = below(name, directory)
    if key is None:
        raise UnreadableEntryError("not in the directory")
    if not key:
        return None
    if "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
        raise UnreadableEntryError("not a path")
    kind = info.get("type", "file")
    is_directory = kind == "directory"
    if kind not in ("file", "directory") or (is_directory and info.get("islink")):
        return None
    size = None if is_directory else info.get("size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise UnreadableEntryError("a size that is none")
    return FileEntry(
        path=name,
        key=key,
        is_directory=is_directory,
        size=size,
        modified=next((when for when in map(read_time, _values(info, _TIMES)) if when is not None), EPOCH),
        etag=next((tag for tag in map(_tag, _values(info, _TAGS)) if tag), ""),
    )


def below(name: str, directory: str) -> str | None:
    """Return a path relative to a directory, empty for the directory itself, None for what is elsewhere.

    Some file systems name entries with a leading slash where the directory has none, or the other way round.

    :param name: path of a listing.
    :param directory: as the file system names it.
    """
    path, base = name.strip("/"), directory.strip("/")
    if path == base:
        return ""
    if not base:
        return path
    return path[len(base) + 1 :] if path.startswith(f"{base}/") else None


def _values(info: Mapping[str, object], names: tuple[str, ...]) -> list[object]:
    nested = info.get("content_settings")  # adlfs
    more = {**nested, **info} if isinstance(nested, Mapping) else info
    return [more[name] for name in names if more.get(name) is not None]


def _tag(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    return normalised_etag(str(value)) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def read_time(value: object) -> datetime | None:
    """Read a time as file systems tell it: a datetime, seconds or milliseconds, ISO 8601, HTTP's, FTP's, or a tuple."""
    try:
        if isinstance(value, datetime):
            return in_utc(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS else value, UTC)
        if isinstance(value, (tuple, list)) and len(value) >= 6:  # zip
            year, month, day, hour, minute, second = (int(part) for part in value[:6])
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        if isinstance(value, str):
            return _read_text(value.strip())
    except (ValueError, OverflowError, OSError, TypeError):
        pass
    return None


def _read_text(text: str) -> datetime | None:
    digits = text.partition(".")[0]
    if len(digits) == 14 and digits.isascii() and digits.isdigit():  # RFC 3659 2.3, in UTC
        return datetime.strptime(f"{digits}+0000", "%Y%m%d%H%M%S%z")
    return parse_iso(text) or read_http(text)
