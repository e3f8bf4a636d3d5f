# SPDX-License-Identifier: Apache-2.0
"""A streaming XML reader with bounds, for answers of servers that are not trusted.

No tree is built, so memory follows the entries kept and not the document; ``<!DOCTYPE`` is refused, and with it
every entity trick. Subclasses hear :meth:`on_start` and :meth:`on_end` and may call :meth:`count_entry`.
"""

from __future__ import annotations

from xml.parsers import expat

from airflow_provider_oscar.core.errors import PermanentError, TransientError, quoted

#: Deepest nesting that is read; a listing needs about six levels.
DEPTH_LIMIT = 32


class BoundedXml:
    """Base of the parsers of S3 listings and of PROPFIND answers.

    :param what: words for messages, such as ``listing of bucket 'data'``.
    :param max_bytes: most bytes fed in total.
    :param max_entries: most entries counted.
    :param separator: character between namespace and name; None leaves names as written.
    """

    #: Names whose start and end are told; each call spared counts, with a dozen elements for an entry.
    starts: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()

    def __init__(self, what: str, *, max_bytes: int, max_entries: int, separator: str | None) -> None:
        self.what = what
        self.entries = 0
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._bytes = 0
        self._depth = 0
        self._done = False
        self._text: list[str] = []
        self._expat = expat.ParserCreate(namespace_separator=separator)
        self._expat.buffer_text = True
        self._expat.buffer_size = 64 * 1024
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._text.append
        self._expat.StartDoctypeDeclHandler = self._doctype

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the document.

        :raises PermanentError: if a bound is passed or a DOCTYPE appears.
        :raises TransientError: if the document is not well-formed.
        """
        self._count_bytes(data)
        self._parse(data, final=False)

    def close(self) -> None:
        """Say that the document has ended.

        :raises TransientError: if it ended too early; an answer cut short must not pass for a short listing.
        """
        self._parse(b"", final=True)
        if not self._done:
            raise TransientError(f"{self.what}: the answer ended before the listing did; it is not believed")

    def on_start(self, name: str) -> None:
        """Hear the start of the root, or of an element in :attr:`starts`."""

    def on_end(self, name: str, text: str) -> None:
        """Hear the end of an element in :attr:`ends`, with the text since the last tag."""

    def count_entry(self) -> None:
        """Count one entry against the bound."""
        self.entries += 1
        if self.entries > self._max_entries:
            raise PermanentError(
                f"{self.what}: more than {self._max_entries} entries; raise the limit or split the directory or prefix"
            )

    def _count_bytes(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > self._max_bytes:
            raise PermanentError(f"{self.what}: the answer exceeds {self._max_bytes} bytes; refused")

    def _parse(self, data: bytes, *, final: bool) -> None:
        try:
            self._expat.Parse(data, final)
        except expat.ExpatError as error:
            raise TransientError(
                f"{self.what}: the answer is not well-formed XML or was cut short "
                f"({quoted(expat.ErrorString(error.code))}, byte {self._expat.CurrentByteIndex}); it is not believed"
            ) from error
        except (LookupError, ValueError) as error:
            # The document may name an encoding that Python does not know or cannot use.
            raise TransientError(f"{self.what}: the answer cannot be decoded ({quoted(error)})") from error

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise PermanentError(f"{self.what}: XML nested deeper than {DEPTH_LIMIT} levels; refused")
        if self._text:
            self._text.clear()
        if self._depth == 1 or name in self.starts:
            self.on_start(name)

    def _end(self, name: str) -> None:
        self._depth -= 1
        if name in self.ends:
            self.on_end(name, "".join(self._text))
        if self._text:
            self._text.clear()
        if self._depth == 0:
            self._done = True

    def _doctype(self, *_arguments: object) -> None:
        raise PermanentError(f"{self.what}: the answer contains <!DOCTYPE; refused")
