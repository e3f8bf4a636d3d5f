# SPDX-License-Identifier: Apache-2.0
"""A streaming XML reader with bounds, for answers of servers that are not trusted.

The standard library's expat reads and its tree builder builds, so that no Python runs for a tag. What is complete
below the root is handed over after each piece of the document and taken out of the tree: memory follows the entries
kept and not the document. ``<!DOCTYPE`` is refused, and with it every entity trick; depth, size and the number of
elements of one entry are bounded. Subclasses get :meth:`on_root` and :meth:`on_child` and may call
:meth:`count_entry`.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from airflow_provider_oscar.core.errors import PermanentError, TransientError, quoted

#: Deepest nesting that is read; a listing needs about six levels.
DEPTH_LIMIT = 32
#: Most elements of one entry: some stores put all prefixes of a page into one.
ELEMENTS_LIMIT = 50_000
#: Bytes after which what is complete is handed over.
_PIECE = 16 * 1024


class BoundedXml:
    """Base of the parsers of S3 listings and of PROPFIND answers.

    :param what: words for messages, such as ``listing of bucket 'data'``.
    :param max_bytes: most bytes fed in total.
    :param max_entries: most entries counted.
    :param separator: character between namespace and name; None leaves names as written.
    """

    def __init__(self, what: str, *, max_bytes: int, max_entries: int, separator: str | None) -> None:
        self.what = what
        self.entries = 0
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._bytes = 0
        self._root: Element | None = None
        self._builder = TreeBuilder()
        self._expat = expat.ParserCreate(namespace_separator=separator)
        self._expat.buffer_text = True
        self._expat.buffer_size = _PIECE
        self._expat.StartDoctypeDeclHandler = self._doctype
        self._expat.StartElementHandler = self._start_root

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the document.

        :raises PermanentError: if a bound is passed or a DOCTYPE appears.
        :raises TransientError: if the document is not well-formed.
        """
        self._bytes += len(data)
        if self._bytes > self._max_bytes:
            raise PermanentError(f"{self.what}: the answer exceeds {self._max_bytes} bytes; refused")
        for at in range(0, len(data), _PIECE):
            self._parse(data[at : at + _PIECE], final=False)

    def close(self) -> None:
        """Say that the document has ended.

        :raises TransientError: if it ended too early; an answer cut short must not pass for a short listing.
        """
        self._parse(b"", final=True)

    def on_root(self, name: str) -> None:
        """Called with the name of the root."""

    def on_child(self, element: Element) -> None:
        """Called with each element below the root when it is complete, in the order of the document."""

    def count_entry(self) -> None:
        """Count one entry against the bound."""
        self.entries += 1
        if self.entries > self._max_entries:
            raise PermanentError(
                f"{self.what}: more than {self._max_entries} entries; raise the limit or split the directory or prefix"
            )

    def _start_root(self, name: str, attributes: dict[str, str]) -> None:
        self.on_root(name)
        self._root = self._builder.start(name, attributes)
        self._expat.StartElementHandler = self._builder.start
        self._expat.EndElementHandler = self._builder.end
        self._expat.CharacterDataHandler = self._builder.data

    def _parse(self, data: bytes, *, final: bool) -> None:
        complete = False
        try:
            self._expat.Parse(data, final)
            complete = final
        except expat.ExpatError as error:
            raise TransientError(
                f"{self.what}: the answer is not well-formed XML or was cut short "
                f"({quoted(expat.ErrorString(error.code))}, byte {self._expat.CurrentByteIndex}); it is not used"
            ) from error
        except (LookupError, ValueError) as error:
            # The document may name an encoding that Python does not know or cannot use.
            raise TransientError(f"{self.what}: the answer cannot be decoded ({quoted(error)})") from error
        finally:
            self._hand_over(complete=complete)  # also before an error: a bound that was passed first counts

    def _hand_over(self, *, complete: bool) -> None:
        """Take what is complete below the root out of the tree; the last child may still be open."""
        root = self._root
        if root is None:
            return
        children = list(root)
        for number, child in enumerate(children, 1):
            self._check_bounds(child)
            if complete or number < len(children):
                self.on_child(child)
        del root[: len(children) if complete else -1]

    def _check_bounds(self, child: Element) -> None:
        elements = len(list(child.iter()))
        if elements < DEPTH_LIMIT:  # and cannot be nested deeper
            return
        if elements > ELEMENTS_LIMIT:
            raise PermanentError(f"{self.what}: more than {ELEMENTS_LIMIT} XML elements in one entry; refused")
        level = [child]
        for _ in range(1, DEPTH_LIMIT):
            level = [each for element in level for each in element]
        if level:
            raise PermanentError(f"{self.what}: XML nested deeper than {DEPTH_LIMIT} levels; refused")

    def _doctype(self, *_arguments: object) -> None:
        raise PermanentError(f"{self.what}: the answer contains <!DOCTYPE; refused")
