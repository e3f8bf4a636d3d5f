# SPDX-License-Identifier: Apache-2.0
"""Frames of STOMP 1.2 to bytes and back; pure. Source: the specification, https://stomp.github.io/stomp-specification-1.2.html."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from airflow_provider_oscar.core.errors import PermanentError, quoted

#: Bytes of one frame; Rucio's messages take about a kilobyte.
LONGEST_FRAME = 4 * 1024 * 1024
_ESCAPES = (("\\", "\\\\"), ("\r", "\\r"), ("\n", "\\n"), (":", "\\c"))
_PLAIN = {"\\r": "\r", "\\n": "\n", "\\c": ":", "\\\\": "\\"}
#: Their headers are not escaped, so that servers of version 1.0 understand them.
_UNESCAPED = frozenset({"CONNECT", "CONNECTED"})


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    :param command: such as ``SUBSCRIBE``.
    :param headers: the first of each name counts.
    :param body: bytes.
    """

    command: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = b""

    def encode(self) -> bytes:
        """Return the frame as it is sent, with its length where it has a body."""
        headers = dict(self.headers)
        if self.body:
            headers["content-length"] = str(len(self.body))
        plain = self.command in _UNESCAPED
        lines = [f"{_escaped(name, name, plain)}:{_escaped(name, value, plain)}" for name, value in headers.items()]
        return "\n".join([self.command, *lines, "", ""]).encode() + self.body + b"\0"


class FrameParser:
    """Makes frames of the bytes of a connection, in pieces of any length."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now; line ends between frames are signs of life and nothing else.

        :raises PermanentError: if it is not STOMP.
        """
        self._buffer += data
        while True:
            start = len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))
            del self._buffer[:start]
            found = self._take()
            if found is None:
                break
            yield found
        if len(self._buffer) > LONGEST_FRAME:
            raise PermanentError(f"the broker sent a frame of more than {LONGEST_FRAME} bytes")

    def _take(self) -> Frame | None:
        ends = [at + len(mark) for mark in (b"\n\n", b"\n\r\n") if (at := self._buffer.find(mark)) >= 0]
        if not ends:
            if b"\0" in self._buffer:
                raise PermanentError(f"the broker does not speak STOMP: {quoted(bytes(self._buffer[:80]))}")
            return None
        begin = min(ends)
        if self._buffer.find(b"\0", 0, begin) >= 0:
            raise PermanentError(f"the broker does not speak STOMP: {quoted(bytes(self._buffer[:80]))}")
        try:
            # Not splitlines(), which knows line ends that are ordinary characters here.
            command, *lines = (
                line.removesuffix("\r") for line in bytes(self._buffer[:begin]).decode().split("\n")[:-2]
            )
            headers = _read_headers(lines, plain=command in _UNESCAPED)
            length = int(headers["content-length"]) if "content-length" in headers else None
        except (ValueError, KeyError) as error:
            raise PermanentError(f"the broker does not speak STOMP: {quoted(bytes(self._buffer[:80]))}") from error
        if length is None:
            end = self._buffer.find(b"\0", begin)
        elif not 0 <= length <= LONGEST_FRAME:
            raise PermanentError(f"the broker sent a frame of {length} bytes; expected at most {LONGEST_FRAME}")
        else:
            end = begin + length if len(self._buffer) > begin + length else -1
        if end < 0:
            return None
        if self._buffer[end]:
            raise PermanentError("the broker sent a frame that is longer than it says")
        body = bytes(self._buffer[begin:end])
        del self._buffer[: end + 1]
        return Frame(command, headers, body)


def _read_headers(lines: list[str], *, plain: bool) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(line)
        headers.setdefault(_unescaped(name, plain), _unescaped(value, plain))
    return headers


def _escaped(name: str, text: str, plain: bool) -> str:
    if plain:
        if "\n" in text or "\r" in text:  # the value is not shown: it may be the password
            raise PermanentError(f"the header {quoted(name)} cannot be sent to a broker: it has a line end")
        return text
    for raw, escape in _ESCAPES:
        text = text.replace(raw, escape)
    return text


def _unescaped(text: str, plain: bool) -> str:
    if plain or "\\" not in text:
        return text
    found, at = [], 0
    while at < len(text):
        if text[at] != "\\":
            found.append(text[at])
            at += 1
            continue
        found.append(_PLAIN[text[at : at + 2]])  # another escape is an error
        at += 2
    return "".join(found)
