# SPDX-License-Identifier: Apache-2.0
"""A reader of long lists that learns what an entry looks like, and then reads its likes at a fraction of the cost.

The entries of a listing differ in their texts and hardly ever in their tags. The first of each shape goes through
expat (:class:`~airflow_provider_oscar.hooks.http.xml.BoundedXml`); its tags, byte by byte, become a regular expression.
An entry that matches it, in the same place, has the same structure, so the same calls are made with its texts.
Whatever matches no shape, or holds anything unusual, goes through expat.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_oscar.hooks.http.xml import BoundedXml

#: Different shapes kept; files, directories and odd ones need about four.
_SHAPES = 6
#: Longest entry that is waited for, and the longest that is learned; others go through expat as they come.
_LONGEST_ENTRY = 64 * 1024
_LONGEST_SHAPE = 8 * 1024
_TAG = re.compile(rb"(<[^<>]*>)")
#: What XML forbids or changes in a text; expat knows what to do with it.
_CONTROLS = bytes({*range(32)} - {9, 10})
_ODD = (b"]]>", b"\xef\xbf\xbe", b"\xef\xbf\xbf")
_ENTITY = re.compile(r"&(?:#(\d{1,7})|([a-z]+));")
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


class _Unknown(Exception):
    """An entity that is left to expat."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """One learned shape.

    :param match: matches a whole entry; its groups are the texts.
    :param calls: what the entry causes: whether an element ends, its name, and the group of its text or -1.
    """

    match: Callable[[bytes, int], re.Match[bytes] | None]
    calls: tuple[tuple[bool, str, int], ...]


class ShapedXml(BoundedXml):
    """Reads like its base, told only how entries are called.

    Entries are children of the root; :meth:`on_start` and :meth:`on_end` hear of them as they would otherwise.
    """

    #: Local name of the repeated element.
    entry: str = ""

    def __init__(self, what: str, *, max_bytes: int, max_entries: int, separator: str | None) -> None:
        super().__init__(what, max_bytes=max_bytes, max_entries=max_entries, separator=separator)
        self._end_tag = re.compile(rb"</(?:[\w.-]+:)?" + self.entry.encode() + rb"\s*>")
        self._shapes: list[_Shape] = []
        self._carry = b""
        self._between = False  # at the root's level, where an entry may begin
        self._learning = True
        self._expat.XmlDeclHandler = self._declaration

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the document; raises as the base does."""
        self._count_bytes(data)
        data, self._carry = self._carry + data, b""
        if _odd(data):
            self._slowly(data)
            return
        at = 0
        while at < len(data):
            if self._between:
                at = self._quickly(data, at)
            end = self._end_tag.search(data, at)
            if end is None:
                if self._between and len(data) - at <= _LONGEST_ENTRY:
                    self._carry = data[at:]
                else:
                    self._slowly(data[at:])
                return
            self._learn(data[at : end.end()])
            at = end.end()

    def close(self) -> None:
        """Say that the document has ended; raises as the base does."""
        rest, self._carry = self._carry, b""
        if rest:
            self._slowly(rest)
        super().close()

    def _slowly(self, data: bytes) -> None:
        self._parse(data, final=False)
        self._between = False

    def _quickly(self, data: bytes, at: int) -> int:
        """Read entries of known shapes; return where they end."""
        shapes, start, end = self._shapes, self.on_start, self.on_end
        found: re.Match[bytes] | None
        while True:
            for shape in shapes:
                found = shape.match(data, at)
                if found is not None:
                    break
            else:
                return at
            try:
                texts = [_text(raw) for raw in found.groups()]
            except (_Unknown, UnicodeDecodeError):
                return at
            for ends, name, group in shape.calls:
                if ends:
                    end(name, texts[group] if group >= 0 else "")
                else:
                    start(name)
            at = found.end()

    def _learn(self, data: bytes) -> None:
        """Read one entry, or the document up to the end of the first, through expat; remember its shape."""
        learning = self._between and len(self._shapes) < _SHAPES and len(data) <= _LONGEST_SHAPE
        heard: list[tuple[bool, str]] = []
        if learning:
            self._listen(heard)
        try:
            self._parse(data, final=False)
        finally:
            if learning:
                self._expat.StartElementHandler, self._expat.EndElementHandler = self._start, self._end
        self._between = self._depth == 1 and self._learning
        if learning and self._between and (shape := self._shape(data, heard)) is not None:
            self._shapes.append(shape)

    def _listen(self, heard: list[tuple[bool, str]]) -> None:
        """Note every tag as well, wanted or not."""

        def start(name: str, attributes: dict[str, str]) -> None:
            heard.append((False, name))
            self._start(name, attributes)

        def end(name: str) -> None:
            heard.append((True, name))
            self._end(name)

        self._expat.StartElementHandler, self._expat.EndElementHandler = start, end

    def _shape(self, data: bytes, heard: list[tuple[bool, str]]) -> _Shape | None:
        """Return the shape of an entry whose tags expat told in this order, or None if it has anything unusual."""
        if b"<!" in data or b"<?" in data:
            return None
        parts = _TAG.split(data)  # text, tag, text, tag, …
        pattern: list[bytes] = []
        calls: list[tuple[bool, str, int]] = []
        told, groups = iter(heard), 0
        for text, tag, before in zip(parts[::2], parts[1::2], (b"", *parts[1::2]), strict=False):
            varies = bool(text.strip()) or (_opens(before) and tag.startswith(b"</"))
            pattern += (b"([^<]*)" if varies else text, re.escape(tag))
            group = groups if varies and tag.startswith(b"</") else -1
            groups += varies
            for ends in _ends_of(tag):
                was_end, name = next(told, (not ends, ""))
                if was_end is not ends:
                    return None
                if name in (self.ends if ends else self.starts):
                    calls.append((ends, name, group))
        if next(told, None) is not None or parts[-1]:
            return None
        return _Shape(re.compile(b"".join(pattern)).match, tuple(calls))

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        self._learning = encoding is None or encoding.lower() in ("utf-8", "utf8")


def _ends_of(tag: bytes) -> tuple[bool, ...]:
    """Return what expat makes of a tag: a start, an end, or both."""
    if tag.startswith(b"</"):
        return (True,)
    return (False, True) if tag.endswith(b"/>") else (False,)


def _opens(tag: bytes) -> bool:
    return _ends_of(tag) == (False,)


def _odd(data: bytes) -> bool:
    return len(data.translate(None, _CONTROLS)) != len(data) or any(part in data for part in _ODD)


def _text(raw: bytes) -> str:
    text = raw.decode()
    if "&" in text:
        text = text.replace("&#34;", '"').replace("&quot;", '"')
        if "&" in text:
            return _unescaped(text)
    return text


def _unescaped(text: str) -> str:
    left = _ENTITY.sub("", text)
    if "&" in left:
        raise _Unknown

    def one(match: re.Match[str]) -> str:
        number, name = match.groups()
        if name is not None:
            if name not in _NAMED:
                raise _Unknown
            return _NAMED[name]
        code = int(number)
        if code < 32 or 0xD800 <= code < 0xE000 or code > 0xFFFD:
            raise _Unknown
        return chr(code)

    return _ENTITY.sub(one, text)
