# SPDX-License-Identifier: Apache-2.0
"""A large object as byte ranges of which several are on their way at a time (RFC 9110, section 14).

One connection seldom fills a wide link, least of all a long one.
"""

from __future__ import annotations

import threading
import zlib
from typing import Any, Sequence

from airflow_provider_oscar.supervisor.text import setting
from airflow_provider_oscar.supervisor.transport import local_file

CHUNK = 1024 * 1024
#: Smaller objects come as one answer.
RANGES_FROM = 64 * 1024 * 1024
RANGE_SIZE = 16 * 1024 * 1024
#: Ranges of one object on their way at a time.
CREW = 4


class ByteRange:
    """The bytes that one request asks for, and how many of them are there.

    :param start: the first one.
    :param end: the one after the last; None for all that there are.
    """

    def __init__(self, start: int = 0, end: int | None = None) -> None:
        self.start, self.end = start, end
        #: The first one that is missing.
        self.at = start

    @property
    def missing(self) -> bool:
        """Whether any may be."""
        return self.end is None or self.at < self.end

    def header(self) -> dict[str, str]:
        """Return the header that asks for what is missing; none where that is the whole object."""
        if self.end is None:
            return {"Range": f"bytes={self.at}-"} if self.at else {}
        return {"Range": f"bytes={self.at}-{self.end - 1}"}


def ranges_of(size: int | None) -> list[ByteRange]:
    """Return the ranges of an object, which is one range if it is small, or of no known size."""
    if size is None or size < max(setting("RANGES_FROM", RANGES_FROM), 1):
        return [ByteRange()]
    step = max(int(setting("RANGE_SIZE", RANGE_SIZE)), 1)
    return [ByteRange(start, min(start + step, size)) for start in range(0, size, step)]


class Adler32:
    """Adler-32 with the interface of hashlib."""

    def __init__(self) -> None:
        self._value = 1

    def update(self, data: bytes) -> None:
        """Go on with more bytes."""
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        """Return eight digits."""
        return f"{self._value:08x}"


class Digests:
    """Digests of a file whose ranges are written in any order, by several threads.

    Bytes that come in their turn are counted as they come, the others read back when it is theirs.

    :param path: of the file.
    :param ranges: of it, in their order.
    :param digests: objects of hashlib, or like them.
    """

    def __init__(self, path: str, ranges: Sequence[ByteRange], digests: Sequence[Any]) -> None:
        self._path, self._ranges, self._digests = path, ranges, digests
        self._lock = threading.Lock()
        self._counted = 0
        self._front = 0

    def add(self, start: int, chunk: bytes) -> None:
        """Go on, as far as it can be: while one thread counts, the others fetch.

        :param start: where in the file the chunk was just written.
        """
        if self._lock.acquire(blocking=False):
            try:
                if start == self._counted:
                    self._update(chunk)
                if self._waiting() >= CHUNK:
                    self._read_back()
            finally:
                self._lock.release()

    def finish(self) -> None:
        """Count what is left; all ranges have ended."""
        with self._lock:
            if self._waiting():
                self._read_back()

    def _waiting(self) -> int:
        """Return how many bytes are there and not counted, up to the first that is missing."""
        while self._front < len(self._ranges) - 1 and not self._ranges[self._front].missing:
            self._front += 1
        return self._ranges[self._front].at - self._counted

    def _read_back(self) -> None:
        with local_file("read the input file back"), open(self._path, "rb") as file:
            file.seek(self._counted)
            while (left := self._waiting()) > 0:
                data = file.read(min(left, CHUNK))
                if not data:
                    return
                self._update(data)

    def _update(self, data: bytes) -> None:
        for digest in self._digests:
            digest.update(data)
        self._counted += len(data)
