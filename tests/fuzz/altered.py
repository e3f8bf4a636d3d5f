# SPDX-License-Identifier: Apache-2.0
"""Turns the fuzzer's bytes into small changes of a right JSON document: raw bytes seldom get past the JSON reader."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

_ODD: list[Any] = [
    None, True, -1, 0, 2**63, 1e308, float("inf"), float("nan"), "", " ", "a/../b", "/", "\0", "\ud800", "é" * 600,
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-02T03:04:05", "1e9", "٣", "-0", "=" * 9,
    [], {}, [[]], {"": {}}, ["a", 1, None],
]  # fmt: skip


def altered(document: Any, data: bytes) -> Any:
    """Return a copy of ``document`` in which, for every two bytes, one value is changed, added or removed."""
    found = copy.deepcopy(document)
    for at in range(0, min(len(data) - 1, 16), 2):
        places = list(_places(found))
        if not places:
            return found
        parent, key = places[data[at] % len(places)]
        choice = data[at + 1] % (len(_ODD) + 3)
        if choice < len(_ODD):
            parent[key] = copy.deepcopy(_ODD[choice])
        elif choice == len(_ODD):
            del parent[key]
        elif choice == len(_ODD) + 1:
            parent[key] = data[at + 2 :].decode("utf-8", "replace")
        else:
            parent[key] = [parent[key]]
    return found


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(items):
        yield value, key
        yield from _places(child)
