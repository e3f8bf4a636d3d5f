# SPDX-License-Identifier: Apache-2.0
"""What a file system says of one file, read as an object: every implementation of fsspec has names of its own.

Source of the names: ``info()`` and ``ls(detail=True)`` of fsspec 2026.9 (local, memory, sftp, http, ftp, webhdfs),
s3fs, gcsfs and adlfs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

from airflow_provider_oscar.core.objects import ObjectEvent, Source
from airflow_provider_oscar.core.times import in_utc, read_http, read_iso

#: Fields that change with the content, the best first.
_TAGS = ("ETag", "etag", "e_tag", "md5Hash", "content_md5", "crc32c", "checksum")
#: Fields with the time of modification, the best first; of a file that is written anew, ``created`` is one.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "modificationTime", "modify", "created")
#: Stands for a time that the file system does not tell; never our clock.
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)
#: Seconds above this are milliseconds, as WebHDFS has them.
_MILLISECONDS = 1e11


def tag_of(info: Mapping[str, object]) -> str:
    """Return what changes with the content, or an empty text."""
    for name in _TAGS:
        value = info.get(name)
        if isinstance(value, bytes | bytearray):
            return bytes(value).hex()
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value).removeprefix("W/").strip('"')
    return ""


def time_of(info: Mapping[str, object]) -> datetime | None:
    """Return the time of modification, or None where there is none that can be read."""
    for name in _TIMES:
        value = info.get(name)
        try:
            if isinstance(value, datetime):
                return in_utc(value)
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                return datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS else value, tz=UTC)
            if isinstance(value, str) and value:
                return _read(value)
        except (ValueError, OverflowError, OSError):
            continue
    return None


def event_of(info: Mapping[str, object], *, url: str, root: str, conn_id: str) -> ObjectEvent | None:
    """Return the event of a file, or None if what is said of it cannot be read.

    :param info: as ``ls`` says it.
    :param url: of the watched directory.
    :param root: the same as the file system names it.
    :param conn_id: Airflow connection; may be empty.
    """
    name, size = info.get("name"), info.get("size")
    base = root.rstrip("/")
    if not isinstance(name, str) or not name.startswith(f"{base}/") or not name[len(base) + 1 :]:
        return None
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        return None
    return ObjectEvent(
        source=Source.FSSPEC,
        conn_id=conn_id,
        container=url,
        key=name[len(base) + 1 :],
        size=size,
        etag=tag_of(info),
        version_id="",
        modified=time_of(info) or _UNKNOWN,
    )


def _read(text: str) -> datetime:
    try:
        return read_iso(text)
    except ValueError:
        return read_http(text)
