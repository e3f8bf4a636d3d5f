# SPDX-License-Identifier: Apache-2.0
"""Label and field selectors, as the query parameters ``labelSelector`` and ``fieldSelector`` carry them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from oscar_testbed.errors import RejectedError

Test = Callable[[Mapping[str, Any]], bool]
_SET = re.compile(r"^\s*(\S+)\s+(in|notin)\s+\(([^)]*)\)\s*$")


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def label_selector(text: str) -> Test:
    """Test over a whole object for a ``labelSelector``; an empty one accepts everything.

    :raises RejectedError: for a requirement that is not understood.
    """
    tests = [_label_requirement(part) for part in _split(text)]

    def matches(candidate: Mapping[str, Any]) -> bool:
        labels = candidate.get("metadata", {}).get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _label_requirement(text: str) -> Test:
    found = _SET.match(text)
    if found:
        key, word, values = found[1], found[2], {value.strip() for value in found[3].split(",")}
        if word == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if "!=" in text:
        key, _, value = (part.strip() for part in text.partition("!="))
        return lambda labels: labels.get(key) != value
    if "=" in text:
        key, _, value = (part.strip() for part in text.partition("="))
        value = value.removeprefix("=").strip()
        return lambda labels: labels.get(key) == value
    if re.fullmatch(r"!?[\w./-]+", text):
        wanted = not text.startswith("!")
        key = text.removeprefix("!")
        return lambda labels: (key in labels) is wanted
    raise RejectedError(f"unable to parse requirement: {text!r}")


def field_selector(text: str, known: Collection[str] | None = None) -> Test:
    """Test over a whole object for a ``fieldSelector``; a field that is absent counts as empty.

    :param known: fields that may be named; None for all.
    :raises RejectedError: for a requirement that is not ``path=value`` or ``path!=value``, or of another field.
    """
    wanted: list[tuple[list[str], str, bool]] = []
    for part in _split(text):
        path, mark, value = part.partition("!=") if "!=" in part else part.partition("=")
        if not mark or not path:
            raise RejectedError(f"invalid field selector: {part!r}; can't understand it")
        if known is not None and path.strip() not in known:
            raise RejectedError(f"field label not supported: {path.strip()}")
        wanted.append((path.strip().split("."), value.removeprefix("=").strip(), mark == "="))

    def matches(candidate: Mapping[str, Any]) -> bool:
        return all((_field(candidate, path) == value) is equal for path, value, equal in wanted)

    return matches


def _field(candidate: Any, path: list[str]) -> str:
    for step in path:
        candidate = candidate.get(step) if isinstance(candidate, Mapping) else None
    return "" if candidate is None else str(candidate)
