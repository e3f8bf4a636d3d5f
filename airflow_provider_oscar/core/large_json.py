# SPDX-License-Identifier: Apache-2.0
"""Megabytes of JSON, read so that no other thread of the process stands still meanwhile.

Python's reader works through a whole text without giving way: 8 MB of it stop all threads for a second, and with them
the event loop that serves every trigger of a triggerer. Here a text of many values is read so that other threads get
their turn after some thousands of them, and one of more than :data:`MOST_VALUES` is refused, since the garbage
collector gives way to nobody either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from json import decoder, scanner
from typing import Any

#: Makes what is read of ``NaN``, ``Infinity`` and ``-Infinity``.
Constants = Callable[[str], Any]
#: Values of one text; the largest page of an API has a tenth of it.
MOST_VALUES = 1_000_000
#: Characters of one string, which is read without giving way.
LONGEST_STRING = 4 * 1024 * 1024
#: Values that are read without giving way.
AT_ONCE = 50_000
#: Characters of a text in which there can hardly be more.
SMALL = 64 * 1024
#: Characters that are searched without giving way.
_SLICE = 256 * 1024
#: A string, to its end or to that of the text.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def load(
    text: str | bytes, *, at_once: int = AT_ONCE, most_values: int = MOST_VALUES, constants: Constants = float
) -> Any:
    """Return what a JSON text holds, as ``json.loads`` does.

    :param text: or its bytes.
    :param at_once: values that may be read without giving way.
    :param most_values: more are refused.
    :param constants: makes what is read of ``NaN`` and infinite numbers, which JSON does not have.
    :raises ValueError: if it is not JSON, has too many values, or a string that is too long.
    :raises RecursionError: if it is nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    # Those within strings count as well, which is quicker, and seldom matters.
    if sum(_values(text[at : at + _SLICE]) for at in range(0, len(text), _SLICE)) <= at_once:
        return json.loads(text, parse_constant=constants)
    if _longest_run(text, most_values) <= at_once:
        return json.loads(text, parse_constant=constants, object_pairs_hook=_give_way)
    return _Slow(parse_constant=constants).decode(text)


def dump(value: object, **options: Any) -> str:
    """Return a value as JSON, as ``json.dumps`` does; of large ones other threads get their turn meanwhile.

    :param value: what is written.
    :param options: of ``json.dumps``.
    """
    # In pieces the encoder is Python's own, and not the one that gives way to nobody.
    return "".join(json.JSONEncoder(**options).iterencode(value))


def _give_way(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object in Python, between whose instructions other threads get their turn."""
    return dict(pairs)


class _Slow(json.JSONDecoder):
    """Reads every value in Python, for what has many values and few objects."""

    def __init__(self, parse_constant: Constants) -> None:
        super().__init__(parse_constant=parse_constant)
        # The reader's own parts in Python, which its stubs leave out (PEP 399 has every module work without C).
        parts: Any = decoder
        vars(self).update(parse_object=parts.JSONObject, parse_array=parts.JSONArray)
        vars(self).update(scan_once=scanner.py_make_scanner(self))  # type: ignore[attr-defined]


def _longest_run(text: str, most: int) -> int:
    """Return about how many values a text has at most before an object ends, which is when others get their turn.

    :raises ValueError: if there are more than ``most``, or a string is too long.
    """
    values = between = since = at = 0
    while at < len(text):
        quote = text.find('"', at, at + _SLICE)
        part = text[at : quote if quote >= 0 else at + _SLICE]
        at += len(part)
        *ended, rest = part.split("}")
        for each in ended:
            between, values, since = max(between, since + _values(each)), values + _values(each), 0
        count = _values(rest)
        values, since = values + count, since + count
        if values > most:
            raise ValueError(f"it has more than {most} values")
        if quote >= 0:
            at = _after_string(text, quote)
    return max(between, since)


def _after_string(text: str, quote: int) -> int:
    found = _STRING.match(text, quote, quote + LONGEST_STRING)
    end = len(text) if found is None else found.end()
    if end == quote + LONGEST_STRING:
        raise ValueError(f"it has a string of more than {LONGEST_STRING} characters")
    return end


def _values(text: str) -> int:
    return text.count(",") + text.count("[") + text.count("{")
