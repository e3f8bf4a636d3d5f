# SPDX-License-Identifier: Apache-2.0
"""What a subscriber to storage events of the embedded dCache may ask for, and dCache's words where it may not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

PLAIN = frozenset(
    {
        "IN_ACCESS", "IN_ATTRIB", "IN_CLOSE_WRITE", "IN_CLOSE_NOWRITE", "IN_CREATE", "IN_DELETE", "IN_DELETE_SELF",
        "IN_MODIFY", "IN_MOVE_SELF", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_OPEN",
    }
)  # fmt: skip
_MACROS = {
    "IN_ALL_EVENTS": PLAIN,
    "IN_CLOSE": frozenset({"IN_CLOSE_WRITE", "IN_CLOSE_NOWRITE"}),
    "IN_MOVE": frozenset({"IN_MOVED_FROM", "IN_MOVED_TO"}),
}
_MODIFIERS = frozenset({"IN_MASK_ADD", "IN_ONESHOT", "IN_ONLYDIR"})
_UNSUPPORTED = frozenset({"IN_DONT_FOLLOW", "IN_EXCL_UNLINK"})
#: The JSON schema of a selector; its pattern is not enforced.
INOTIFY_SCHEMA = {
    "$id": "http://dcache.org/frontend/events/namespaceSelectors#",
    "$schema": "http://json-schema.org/draft-06/schema#",
    "description": "path of a directory to watch",
    "type": "object",
    "required": ["path"],
    "properties": {
        "path": {
            "title": "The path of the file or directory to watch",
            "description": "The target must exist when the request is made.  "
            "The watch will follow the target, if it is moved.",
            "type": "string",
            "pattern": "^/(.*[^/])?$",
        },
        "flags": {
            "title": "Control which events are selected",
            "description": "See inotify(7) for the meaning of these flags.",
            "type": "array",
            "items": {"type": "string", "enum": sorted({*PLAIN, *_MACROS, *_MODIFIERS, *_UNSUPPORTED})},
        },
    },
    "additionalProperties": False,
}


class EventError(Exception):
    """A refused request, with its HTTP status.

    :param stream: whether it asked for an event stream, by which name the answer then goes.
    """

    def __init__(self, status: int, message: str, *, stream: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.stream = stream


def read_selector(selector: Any) -> tuple[frozenset[str], bool]:
    if not isinstance(selector, dict) or not isinstance(selector.get("path"), str):
        raise EventError(400, "Bad selector: Bad selector value: path is missing")
    if unknown := sorted(set(selector) - {"path", "flags"}):
        raise EventError(400, f'Bad selector: Bad selector value: Unrecognized field "{unknown[0]}"')
    given = selector.get("flags")
    if given is None:
        return PLAIN, False
    if not isinstance(given, list):
        raise EventError(400, "Bad selector: Bad selector value: flags must be a list")
    return _expand(given), "IN_ONESHOT" in given


def _expand(given: Iterable[Any]) -> frozenset[str]:
    flags: set[str] = set()
    for name in given:
        if name in _MACROS:
            flags |= _MACROS[name]
        elif name in PLAIN:
            flags.add(name)
        elif name in _UNSUPPORTED:
            raise EventError(400, f"Bad selector: Unsupported flags: [{name}]")
        elif name not in _MODIFIERS:
            raise EventError(
                400, f"Bad selector: Bad selector value: not one of the values accepted: {str(name)[:40]!r}"
            )
    return frozenset(flags)


def read_metronome(selector: Any) -> tuple[float, str, int | None]:
    if not isinstance(selector, dict) or set(selector) - {"delay", "frequency", "message", "count"}:
        raise EventError(400, "Bad selector: expected delay or frequency, message, count")
    if ("delay" in selector) == ("frequency" in selector):
        raise EventError(400, 'Bad selector: "frequency" and "delay" cannot both be specified')
    try:
        delay = float(selector["delay"]) if "delay" in selector else 1 / float(selector["frequency"])
        count = int(selector["count"]) if "count" in selector else None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise EventError(400, "Bad selector: not a number") from error
    if delay > 300:
        raise EventError(400, 'Bad selector: "delay" is too big (more than 300.000)')
    if delay < 1e-6:
        raise EventError(400, 'Bad selector: "delay" is too small (less than 0.000001)')
    return delay, str(selector.get("message", "tick")), count
