# SPDX-License-Identifier: Apache-2.0
"""Which place each output goes to: the first pattern that its name matches says so, the job's own output is the rest.

Patterns are those of the shell, as the watchers' ``glob``. They are matched here and not by :mod:`fnmatch`, whose
regular expressions take exponential time on old interpreters: names are the command's, and may be anything.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.stores import open_store

#: Refusals in a row, without one success, after which a store is not asked for every other file as well.
REFUSALS_LIMIT = 5


class Destination:
    """One place that outputs go to, and how it takes them.

    :param store: see :mod:`airflow_provider_oscar.supervisor.stores`; None for the job's own output.
    :param pattern: of the names that go there.
    :param uri: what the manifest calls it; empty for the job's own output.
    """

    def __init__(self, store: Any, pattern: str = "*", uri: str = "") -> None:
        self.store, self.pattern, self.uri = store, pattern, uri
        self.refused: StageError | None = None
        self.stored = 0
        self._refusals = 0

    @property
    def gives_up(self) -> bool:
        """Whether it refused so often that it will refuse the rest."""
        return self._refusals >= REFUSALS_LIMIT

    def note_refusal(self, error: StageError) -> None:
        """Note that it refused a file for want of access."""
        self._refusals += 1
        self.refused = self.refused or error

    def note_success(self) -> None:
        """Note that it took a file."""
        self.stored += 1
        self._refusals = 0


def open_destinations(spec: dict[str, Any]) -> list[Destination]:
    """Return the places of a specification's patterns, in their order."""
    found = []
    for each in spec["outputs"]:
        target = each["output"]
        store = None if target is None else open_store(target)
        found.append(Destination(store, each["pattern"], "" if target is None else target["uri"]))
    return found


def choose(name: str, main: Destination, others: Sequence[Destination]) -> Destination:
    """Return where a file goes.

    :param name: below the output directory, as the command called it.
    :param main: where what matches no pattern goes.
    :param others: in order; the first that matches counts.
    """
    for each in others:
        if matches(each.pattern, name):
            return main if each.store is None else each
    return main


def matches(pattern: str, name: str) -> bool:
    """Whether a name matches a shell pattern; case counts, and ``*`` stands for slashes as well.

    :param pattern: without a slash it is matched against the last part of the name.
    :param name: with slashes between its parts.
    """
    text = name if "/" in pattern else name.rpartition("/")[2]
    tokens = _tokens(pattern)
    # A star takes as little as it can; where that fails, the last one takes a character more.
    at = position = 0
    star, resumed = -1, 0
    while position < len(text):
        if at < len(tokens) and tokens[at] is None:
            star, resumed = at, position
            at += 1
        elif at < len(tokens) and tokens[at](text[position]):  # type: ignore[misc]
            at, position = at + 1, position + 1
        elif star >= 0:
            resumed += 1
            at, position = star + 1, resumed
        else:
            return False
    return all(each is None for each in tokens[at:])


def _tokens(pattern: str) -> list[Callable[[str], bool] | None]:
    """Return what each character has to fulfil, in order; None for a star."""
    found: list[Callable[[str], bool] | None] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        end = _class_end(pattern, at) if character == "[" else -1
        if character == "*":
            found.append(None)
        elif character == "?":
            found.append(lambda _: True)
        elif end > 0:
            found.append(_one_of(pattern[at + 1 : end]))
            at = end
        else:
            found.append(character.__eq__)
        at += 1
    return found


def _class_end(pattern: str, at: int) -> int:
    """Return where a bracket is closed, or -1: a bracket that comes first within is one of its characters."""
    start = at + 1
    if pattern[start : start + 1] == "!":
        start += 1
    return pattern.find("]", start + 1)


def _one_of(inner: str) -> Callable[[str], bool]:
    negated = inner.startswith("!")
    inner = inner[1:] if negated else inner
    ranges = []
    at = 0
    while at < len(inner):
        if inner[at + 1 : at + 2] == "-" and at + 2 < len(inner):
            ranges.append((inner[at], inner[at + 2]))
            at += 3
        else:
            ranges.append((inner[at], inner[at]))
            at += 1
    return lambda character: any(low <= character <= high for low, high in ranges) is not negated
