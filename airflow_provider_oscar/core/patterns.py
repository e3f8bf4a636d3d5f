# SPDX-License-Identifier: Apache-2.0
"""Regular expressions that a user wrote, searched for in names that anybody may have chosen.

An expression that backtracks, such as ``(a+)+$``, takes exponential time for some names, and Python's :mod:`re` holds
the interpreter's lock meanwhile: no other thread of the triggerer runs. The engine here is that of the package
``regex``, which takes the same expressions, lets other threads run, and ends at a deadline.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, quoted

if TYPE_CHECKING:
    import regex

#: Seconds of computing that one search may take; what is written well takes microseconds.
SEARCH_SECONDS = 0.1
#: Characters, or the like, that must be repeated for a match; the engine unfolds what is repeated a fixed number of
#: times, and no name is as long.
UNFOLDED_LIMIT = 50_000
_TOKEN = re.compile(
    r"(?P<escaped>\\N\{[^}]*\}|\\.)"
    r"|(?P<set>\[\^?\]?(?:\\.|\[:\^?\w+:(?P<named>\])|[^\]\\])*\])"
    r"|(?P<open>\()"
    r"|(?P<close>\))"
    r"|(?P<repeat>\{(?!\})(?P<least>\d*)(?:,\d*)?\})"
    r"|(?P<brace>\{[^}]*\})"
    r"|(?P<other>.)",
    re.DOTALL,
)


class SlowPatternError(PermanentError):
    """A search did not end within its deadline, so that it is not known whether the name fits."""


class UserPattern:
    """One regular expression of a user's.

    :param pattern: the expression, in the language of Python's :mod:`re`.
    :param name: of the argument, for messages.
    :raises DefinitionError: for what is none, or means something else to the engine used here.
    """

    __slots__ = ("_compiled", "_name", "_pattern")

    def __init__(self, pattern: str, name: str) -> None:
        self._name, self._pattern = name, pattern
        import regex  # takes a tenth of a second, and most watchers have no expression

        try:
            re.compile(pattern)
            _check_dialect(pattern, name)
            self._compiled: regex.Pattern[str] = regex.compile(pattern)
        except (re.error, regex.error, OverflowError, RecursionError) as error:
            raise DefinitionError(f"{name} {quoted(pattern)} is not a valid regular expression: {error}") from error

    def search(self, text: str) -> regex.Match[str] | None:
        """Return the first match within a text.

        :param text: an object's name, of whatever length.
        :raises SlowPatternError: if that takes more than :data:`SEARCH_SECONDS`.
        """
        began = time.thread_time()
        while True:
            try:
                return self._compiled.search(text, timeout=SEARCH_SECONDS)
            except TimeoutError as error:
                # The engine counts what all threads of the process compute, and no name is to blame for the others.
                if time.thread_time() - began < SEARCH_SECONDS / 2:
                    continue
                raise SlowPatternError(
                    f"{self._name} {quoted(self._pattern)} takes more than {SEARCH_SECONDS} s of computing for "
                    f"{quoted(text)}; write it without repetitions within repetitions, such as (a+)+, "
                    "or next to each other, such as .*.*"
                ) from error


def _check_dialect(pattern: str, name: str) -> None:
    """Refuse what Python's :mod:`re` takes for plain characters, and ``regex`` does not, and what it unfolds at length.

    :param pattern: which :mod:`re` accepts.
    :param name: of the argument.
    :raises DefinitionError: with the way to write it.
    """
    sizes, atom = [0], 0
    for token in _TOKEN.finditer(pattern):
        kind = token.lastgroup
        if token["brace"] or token["named"]:
            raise DefinitionError(
                f"{name} {quoted(pattern)} has {quoted(token.group())}, of which engines think differently; write "
                "\\{ or \\[ for the character itself, and a set such as [a-z] for letters"
            )
        if kind == "open":
            sizes.append(0)
            continue
        if kind == "close" and len(sizes) > 1:
            atom = sizes.pop()
        elif token["repeat"]:
            atom *= max(int(token["least"] or 0) - 1, 0)
        else:
            atom = 1
        sizes[-1] += atom
        if sizes[-1] > UNFOLDED_LIMIT:
            raise DefinitionError(
                f"{name} {quoted(pattern)} asks for more than {UNFOLDED_LIMIT} repetitions, more than any name has; "
                "lower the numbers in braces"
            )
