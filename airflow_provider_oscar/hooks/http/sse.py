# SPDX-License-Identifier: Apache-2.0
"""Server-sent events: bytes in, events out, bounded. Source: WHATWG HTML, section 9.2.6."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Bytes of one line, and of the data of one event; dCache's names a file, and is read on the event loop.
LINE_LIMIT = 64 * 1024
EVENT_LIMIT = 128 * 1024
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event.

    :param event: its type; ``message`` where the server names none.
    :param data: its lines, joined by newlines.
    :param id: what an ``id`` field of this very event said; None if it had none.
    """

    event: str
    data: str
    id: str | None


class SseParser:
    """Feed it what arrives, in pieces of any size; an event that ends with the stream is not complete and not given.

    An event or line above its limit is dropped and counted in :attr:`dropped`: to raise would bring the same event back
    after a reconnection. Who reads must take a drop for a loss of events and look again.

    :param line_limit: most bytes of one line.
    :param event_limit: most bytes of the data of one event.
    """

    def __init__(self, *, line_limit: int = LINE_LIMIT, event_limit: int = EVENT_LIMIT) -> None:
        self.dropped = 0
        self._line_limit = line_limit
        self._event_limit = event_limit
        self._buffer = bytearray()
        self._scanned = 0
        self._after_cr = False
        self._started = False
        self._long_line = False
        self._reset()

    def _reset(self) -> None:
        self._type = ""
        self._data: list[str] = []
        self._size = 0
        self._id: str | None = None
        self._too_big = False

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the events that the next bytes complete."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        self._buffer += data
        if not self._started:
            if len(self._buffer) < len(_BOM) and _BOM.startswith(bytes(self._buffer)):
                return []
            self._started = True
            if self._buffer.startswith(_BOM):
                del self._buffer[: len(_BOM)]
        return self._lines()

    def _lines(self) -> list[SseEvent]:
        events: list[SseEvent] = []
        start = 0
        while (end := _LINE_END.search(self._buffer, max(start, self._scanned))) is not None:
            if end.group() == b"\r" and end.end() == len(self._buffer):
                self._after_cr = True
            event = self._line(bytes(self._buffer[start : end.start()]))
            start = end.end()
            if event is not None:
                events.append(event)
        del self._buffer[:start]
        if len(self._buffer) > self._line_limit:
            self._buffer.clear()
            self._long_line = True
        self._scanned = len(self._buffer)
        return events

    def _line(self, line: bytes) -> SseEvent | None:
        if self._long_line or len(line) > self._line_limit:
            self._long_line = False
            self._too_big = True
            return None
        if not line:
            return self._dispatch()
        name, _, value = line.decode("utf-8", "replace").partition(":")
        self._field(name, value.removeprefix(" "))
        return None

    def _field(self, name: str, value: str) -> None:
        if name == "data":
            self._size += len(value) + 1
            if self._size > self._event_limit:
                self._too_big = True
                self._data.clear()
            elif not self._too_big:
                self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value

    def _dispatch(self) -> SseEvent | None:
        event = None
        if self._too_big:
            self.dropped += 1
        elif self._data:
            event = SseEvent(self._type or "message", "\n".join(self._data), self._id)
        self._reset()
        return event
