# SPDX-License-Identifier: Apache-2.0
"""Arguments that take one word of a few: a typo is refused where it is written, with the word that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from airflow_provider_oscar.core.errors import DefinitionError, quoted


def nearest(given: object, known: Iterable[str]) -> str:
    """Return what to add to a refusal: the known word that was probably meant; empty if none is near.

    :param given: what was written; capitals, ``-`` and ``_`` do not matter.
    :param known: the words that are taken.
    """
    spelt = {_plain(str(word)): str(word) for word in known}
    found = difflib.get_close_matches(_plain(str(given)), spelt, n=1, cutoff=0.5)
    return f"; did you mean {spelt[found[0]]!r}?" if found else ""


def require_word(given: object, known: Iterable[str], argument: str) -> None:
    """Refuse a word that is not known.

    :param given: what was written.
    :param known: the words that are taken.
    :param argument: words that name the argument and whose it is.
    :raises DefinitionError: with all words, and the nearest.
    """
    words = tuple(map(str, known))
    if given not in words:
        shown = [*map(repr, words)]
        listed = " or ".join([", ".join(shown[:-1]), shown[-1]] if shown[1:] else shown)
        raise DefinitionError(f"{argument} is {quoted(given)}; expected {listed}{nearest(given, words)}")


def _plain(word: str) -> str:
    return word.lower().replace("_", "-")
