# SPDX-License-Identifier: Apache-2.0
"""A streaming XML reader with bounds, for answers of servers that are not trusted.

It is the standard library's expat with limits: no tree is built, so memory follows the entries kept and not the
document; ``<!DOCTYPE`` is refused, and with it every entity trick; depth, size and the text of one element are
bounded. Subclasses get :meth:`on_start` and :meth:`on_end` and may call :meth:`count_entry`.
"""

from __future__ import annotations

from xml.parsers import expat

from airflow_provider_oscar.core.errors import PermanentError, TransientError, quoted

#: Deepest nesting that is read; a listing needs about six levels.
DEPTH_LIMIT = 32
#: Names of elements that are remembered as of no interest; a listing has about twenty.
_MOST_NAMES = 200


class BoundedXml:
    """Base of the parsers of S3 listings and of PROPFIND answers.

    :param what: words for messages, such as ``listing of bucket 'data'``.
    :param max_bytes: most bytes fed in total.
    :param max_entries: most entries counted.
    :param separator: character between namespace and name; None leaves names as written but for their prefix.
    """

    #: Names whose start or end cause a call.
    starts: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()
    #: Names whose text is put into :attr:`values`, without a call.
    leaves: frozenset[str] = frozenset()
    #: Deeper ones are none: what stands in an owner or a tag says nothing of the entry.
    leaf_depth: int = DEPTH_LIMIT
    #: Those that lie no deeper than this cause a call like :attr:`ends`.
    call_depth: int = 0

    def __init__(self, what: str, *, max_bytes: int, max_entries: int, separator: str | None) -> None:
        self.what = what
        self.entries = 0
        self.values: dict[str, str] = {}
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._bytes = 0
        self._done = False
        self._expat = expat.ParserCreate(namespace_separator=separator)
        self._expat.buffer_text = True
        self._expat.buffer_size = 64 * 1024
        self._expat.StartDoctypeDeclHandler = self._doctype
        self._install(separator is None)

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the document.

        :raises PermanentError: if a bound is passed or a DOCTYPE appears.
        :raises TransientError: if the document is not well-formed.
        """
        self._bytes += len(data)
        if self._bytes > self._max_bytes:
            raise PermanentError(f"{self.what}: the answer exceeds {self._max_bytes} bytes; refused")
        self._parse(data, final=False)

    def close(self) -> None:
        """Say that the document has ended.

        :raises TransientError: if it ended too early; an answer cut short must not pass for a short listing.
        """
        self._parse(b"", final=True)
        if not self._done:
            raise TransientError(f"{self.what}: the answer ended before the listing did; it is not used")

    def on_start(self, name: str) -> None:
        """Called at the start of the root, and of an element in :attr:`starts`."""

    def on_end(self, name: str, text: str, depth: int) -> None:
        """Called at the end of an element in :attr:`ends`.

        :param name: of the element.
        :param text: since the last start of an element.
        :param depth: elements around it.
        """

    def count_entry(self) -> None:
        """Count one entry against the bound."""
        self.entries += 1
        if self.entries > self._max_entries:
            raise PermanentError(
                f"{self.what}: more than {self._max_entries} entries; raise the limit or split the directory or prefix"
            )

    def _install(self, strip_prefix: bool) -> None:  # noqa: C901  # one scope is what makes it quick
        """Set the handlers: closures, since they run a dozen times for each entry of a listing."""
        text: list[str] = []
        depth = 0
        #: Names seen of which nothing is to be done at their start; none before the root.
        quiet: set[str] = set()
        starts, ends, leaves, values = self.starts, self.ends, self.leaves, self.values
        on_start, on_end, join, clear = self.on_start, self.on_end, "".join, text.clear
        leaf_depth, call_depth, deepest = self.leaf_depth, self.call_depth, DEPTH_LIMIT

        def start(name: str, _attributes: object) -> None:
            nonlocal depth
            depth += 1
            clear()
            if name not in quiet or depth > deepest:
                unusual(name)

        def unusual(name: str) -> None:
            if depth > DEPTH_LIMIT:
                raise PermanentError(f"{self.what}: XML nested deeper than {DEPTH_LIMIT} levels; refused")
            bare = name.rpartition(":")[2] if strip_prefix else name
            if depth == 1:
                quiet.update(leaves - starts)
            if bare in starts or depth == 1:
                on_start(bare)
            elif len(quiet) < _MOST_NAMES:
                quiet.add(name)

        def end(name: str) -> None:
            nonlocal depth
            depth -= 1
            if name in leaves:
                if call_depth < depth < leaf_depth:
                    values[name] = join(text)
                elif depth < leaf_depth:
                    on_end(name, join(text), depth)
            elif name in ends:
                on_end(name, join(text), depth)
            elif strip_prefix and ":" in name:
                depth += 1
                end(name.rpartition(":")[2])
            elif not depth:
                self._done = True

        self._expat.StartElementHandler = start
        self._expat.EndElementHandler = end
        self._expat.CharacterDataHandler = text.append

    def _parse(self, data: bytes, *, final: bool) -> None:
        try:
            self._expat.Parse(data, final)
        except expat.ExpatError as error:
            raise TransientError(
                f"{self.what}: the answer is not well-formed XML or was cut short "
                f"({quoted(expat.ErrorString(error.code))}, byte {self._expat.CurrentByteIndex}); it is not used"
            ) from error
        except (LookupError, ValueError) as error:
            # The document may name an encoding that Python does not know or cannot use.
            raise TransientError(f"{self.what}: the answer cannot be decoded ({quoted(error)})") from error

    def _doctype(self, *_arguments: object) -> None:
        raise PermanentError(f"{self.what}: the answer contains <!DOCTYPE; refused")
