# SPDX-License-Identifier: Apache-2.0
"""Which objects a watcher cares about: by name and size, and by a sentinel file that says "complete".

Filters come before :mod:`~airflow_provider_oscar.watch.strategies`, so that what is not wanted is never
remembered; an object that fits later, because it grew or its sentinel came, is then new.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from airflow_provider_oscar.core.checks import check_fields
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.patterns import UserPattern
from airflow_provider_oscar.core.words import require_word

#: Names that common clients give to unfinished uploads, and hidden files; matched against the last part of the key.
DEFAULT_IGNORED = (".*", "*.part", "*.partial", "*.tmp", "*.temp", "*.filepart", "*.crdownload", "*~", ".rclone_temp_*")

#: What is done about objects of no bytes.
EMPTY = ("run", "skip")
#: Longest glob or regular expression; nobody writes longer ones by hand, and a short one compiles at once.
PATTERN_LIMIT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFilter:
    """Conditions on one object; all must hold.

    :param prefix: start of the key.
    :param suffix: end of the key.
    :param glob: shell pattern, case-sensitive, ``*`` also matches ``/``; without a ``/`` of its own it is matched
        against the last part of the key, else against the whole key.
    :param regex: Python regular expression, searched for in the whole key; with it, :meth:`accepts` may take a tenth of
        a second.
    :param min_size: bytes; an object of unknown size does not reach any size above 0.
    :param ignore: shell patterns on the last part of the key; empty to see everything.
    :param empty: ``"run"``: objects of 0 bytes are as others; ``"skip"``: they are left out, until a later version has
        any.
    :raises DefinitionError: for a regular expression that does not compile, or a pattern above 512 characters.
    """

    prefix: str = ""
    suffix: str = ""
    glob: str | None = None
    regex: str | None = None
    min_size: int = 0
    ignore: tuple[str, ...] = DEFAULT_IGNORED
    empty: str = "run"
    _regex: UserPattern | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ignore: object = self.ignore
        if isinstance(ignore, str):
            raise DefinitionError(f"ignore is the text {quoted(ignore)}; expected a tuple of patterns")
        object.__setattr__(self, "ignore", tuple(self.ignore))
        check_fields(self, "a filter")
        if self.min_size < 0:
            raise DefinitionError(f"min_size is {self.min_size}; expected bytes >= 0")
        require_word(self.empty, EMPTY, "empty")
        for name, pattern in (("glob", self.glob), ("regex", self.regex), *(("ignore", each) for each in self.ignore)):
            if pattern is not None and len(pattern) > PATTERN_LIMIT:
                raise DefinitionError(
                    f"{name} has {len(pattern)} characters: {quoted(pattern)}; expected at most {PATTERN_LIMIT}"
                )
        if self.regex:
            object.__setattr__(self, "_regex", UserPattern(self.regex, "regex"))

    @classmethod
    def from_argument(
        cls,
        value: ObjectFilter | Mapping[str, Any] | None,
        *,
        suffix: str = "",
        glob: str | None = None,
        regex: str | None = None,
        min_size: int = 0,
        ignore: Sequence[str] | None = None,
        empty: str = "run",
    ) -> ObjectFilter:
        """Return the filter of a watcher or sensor, which may be given as a value or by its conditions.

        :param value: a filter, or what :meth:`to_dict` returned; then there is no other condition.
        :raises DefinitionError: if both are given, or a condition cannot be used.
        """
        flat: dict[str, Any] = {
            "suffix": suffix,
            "glob": glob,
            "regex": regex,
            "min_size": min_size,
            "ignore": DEFAULT_IGNORED if ignore is None else ignore,
            "empty": empty,
        }
        given = {name: each for name, each in flat.items() if each != cls.__dataclass_fields__[name].default}
        if value is None:
            return cls(**given)
        if given:
            raise DefinitionError(f"filter is given, and {', '.join(sorted(given))} as well; give one of both")
        if isinstance(value, ObjectFilter):
            return value
        try:
            return cls(**value)
        except TypeError as error:
            raise DefinitionError(f"filter is {quoted(value)} ({error}); expected an ObjectFilter") from error

    def to_dict(self) -> dict[str, object]:
        """Return JSON-able conditions, those that differ from the default."""
        given = (each for each in fields(self) if each.init and getattr(self, each.name) != each.default)
        values = {each.name: getattr(self, each.name) for each in given}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def accepts(self, event: ObjectEvent) -> bool:
        """Tell whether the object is wanted; keys that end in ``/`` are folders and never are.

        :raises SlowPatternError: if ``regex`` takes too long for its key.
        """
        name = event.key.rpartition("/")[2]
        if not name or not event.key.startswith(self.prefix) or not event.key.endswith(self.suffix):
            return False
        if self.empty == "skip" and event.size == 0:
            return False
        if self.min_size and (event.size is None or event.size < self.min_size):
            return False
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.ignore):
            return False
        if self.glob and not fnmatch.fnmatchcase(event.key if "/" in self.glob else name, self.glob):
            return False
        return self._regex is None or self._regex.search(event.key) is not None


class Sentinels:
    """Which objects are said to be complete, gathered from a listing page by page.

    A sentinel that begins with a dot is an ending: ``x.h5.done`` releases ``x.h5``. Any other is a file that
    releases everything in its own directory, for example ``_SUCCESS``; what arrives after it is released at once.

    :param sentinel: ending or name.
    :raises DefinitionError: if it is empty or contains a ``/``.
    """

    def __init__(self, sentinel: str) -> None:
        if not sentinel or "/" in sentinel:
            raise DefinitionError(f"sentinel is {quoted(sentinel)}; expected a file name or an ending without '/'")
        self._sentinel = sentinel
        self._ending = sentinel.startswith(".")
        self._since: dict[tuple[str, str], datetime] = {}

    def note(self, events: Iterable[ObjectEvent]) -> None:
        """Take note of the sentinels among the events; pass them before :class:`ObjectFilter` drops hidden names."""
        for event in events:
            if self.is_one(event):
                released = event.key[: -len(self._sentinel)]
                since = self._since.get((event.container, released), event.modified)
                self._since[event.container, released] = max(since, event.modified)

    def is_one(self, event: ObjectEvent) -> bool:
        """Whether the object is a sentinel itself."""
        key = event.key
        return key.endswith(self._sentinel) and (self._ending or key.rpartition("/")[2] == self._sentinel)

    def released(self, event: ObjectEvent) -> datetime | None:
        """Return when the object was said to be complete, or None if it was not."""
        if self.is_one(event):
            return None
        key = event.key if self._ending else event.key[: event.key.rfind("/") + 1]
        return self._since.get((event.container, key))


#: What takes the conditions on an object takes them in one of these forms.
FilterArgument = ObjectFilter | Mapping[str, object] | None
