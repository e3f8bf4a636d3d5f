# SPDX-License-Identifier: Apache-2.0
"""A large file as a row of objects: what was sent stays sent, whatever happens to the rest.

A POST policy cannot open a multipart upload, whose key and id would have to be known before the command has run. So
the parts are objects of their own below the output prefix; when the job has ended, our side joins them within the
store (UploadPartCopy) and removes them. Each part is compared with the store's tag like any other upload.
"""

from __future__ import annotations

import hashlib
import os
import threading
from typing import BinaryIO, Callable

from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.parallel import in_parallel
from airflow_provider_oscar.supervisor.ranges import CHUNK
from airflow_provider_oscar.supervisor.stage_in import new_digest
from airflow_provider_oscar.supervisor.text import encoded, quoted, setting
from airflow_provider_oscar.supervisor.transport import local_file

#: Below the output prefix; our side removes what is there when the job has ended.
PARTS_PREFIX = ".airflow-oscar-parts/"
#: What the parts of a key are called besides: a slash and five digits.
PART_SUFFIX_LENGTH = 6
#: Smaller files go in one request, and are ready at once.
PARTS_FROM = 64 * 1024 * 1024
#: The least S3 takes as a part, with room: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
SMALLEST_PART = 5 * 1024 * 1024
PART_SIZE = 8 * 1024 * 1024
PARTS_LIMIT = 10_000
#: Largest object of S3.
S3_OBJECT_LIMIT = 5 * 1024**4
#: Parts of one file on their way at a time.
CREW = 4


def part_size(size: int) -> int:
    """Return how large the parts of a file are, the last one apart."""
    wanted = max(int(setting("PART_SIZE", PART_SIZE)), SMALLEST_PART)
    return max(wanted, -(-size // PARTS_LIMIT))


def goes_in_parts(size: int) -> bool:
    """Return whether a file of this size does."""
    return size > max(setting("PARTS_FROM", PARTS_FROM), SMALLEST_PART)


def part_key(key: str, number: int) -> str:
    """Return where a part is, below the output prefix.

    :param number: from 1 on.
    """
    return f"{PARTS_PREFIX}{key}/{number:05d}"


class Region:
    """A piece of a file, read at its own position, so that several threads can share the descriptor."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._descriptor, self._start, self._size, self._at = file.fileno(), start, size, 0

    def seek(self, position: int) -> int:
        """Go to a position within the piece."""
        self._at = position
        return position

    def read(self, count: int) -> bytes:
        """Read on."""
        data = os.pread(self._descriptor, min(count, self._size - self._at), self._start + self._at)
        self._at += len(data)
        return data


class MultipartUpload:
    """One file on its way in parts; an attempt sends those that are still missing.

    :param post: sends one object and returns its MD5, or None where the store's tags are not that.
    :param key: below the output prefix.
    """

    def __init__(self, post: Callable[[str, Region, int], bytes | None], key: str, size: int) -> None:
        self._post, self._key, self.size = post, key, size
        self._part = part_size(size)
        self._sums: dict[int, bytes | None] = {}
        self._sha256 = ""
        self._stop = threading.Event()

    @property
    def count(self) -> int:
        """Parts that are stored."""
        return len(self._sums)

    def attempt(self, file: BinaryIO) -> dict[str, object]:
        """Send what is missing, and return the fields of the manifest that describe it.

        :raises StageError: if a part cannot be sent.
        :raises OSError: if the connection broke.
        """
        parts = range(1, -(-self.size // self._part) + 1)
        self._stop.clear()
        missing: list[int] = [] if self._sha256 else [0]
        missing += [number for number in parts if number not in self._sums]
        failures = [
            found
            for found in in_parallel(lambda number: self._step(file, number), missing, int(setting("PART_CREW", CREW)))
            if isinstance(found, Exception)
        ]
        # What no repetition mends is said before what one may.
        for error in sorted(failures, key=lambda each: not (isinstance(each, StageError) and each.permanent)):
            raise error
        described: dict[str, object] = {"size": self._part, "count": len(parts)}
        sums = [self._sums[number] for number in parts]
        if all(sums):
            # As S3 tags an object that was joined of parts.
            described["etag"] = "{}-{}".format(_md5(b"".join(each or b"" for each in sums)), len(parts))
        return {"sha256": self._sha256, "parts": described}

    def _step(self, file: BinaryIO, number: int) -> None:
        if self._stop.is_set():
            return
        try:
            if number == 0:
                self._sha256 = self._digest(file)
                return
            start = (number - 1) * self._part
            size = min(self._part, self.size - start)
            self._sums[number] = self._post(part_key(self._key, number), Region(file, start, size), size)
        except Exception:
            self._stop.set()
            raise

    def _digest(self, file: BinaryIO) -> str:
        """Return the checksum of the whole file, made beside the transfers."""
        region, digest = Region(file, 0, self.size), hashlib.sha256()
        with local_file(f"read output {quoted(self._key)}"):
            for chunk in iter(lambda: region.read(CHUNK), b""):
                digest.update(chunk)
        return digest.hexdigest()


def _md5(data: bytes) -> str:
    digest = new_digest("md5")
    digest.update(data)
    return str(digest.hexdigest())


def longest_key(key_limit: int) -> int:
    """Return how many bytes the key of a file in parts may have.

    :param key_limit: of one object.
    """
    return key_limit - len(encoded(PARTS_PREFIX)) - PART_SUFFIX_LENGTH
