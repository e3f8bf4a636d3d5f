# SPDX-License-Identifier: Apache-2.0
"""Types of arguments, checked where a DAG file gives them and not where they are used hours later."""

from __future__ import annotations

import math
import types
from dataclasses import Field, fields
from datetime import timedelta
from typing import ClassVar, Protocol, get_args, get_type_hints

from airflow_provider_oscar.core.errors import DefinitionError, quoted

_PLAIN = (str, int, float, bool)


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]


def check_fields(value: Dataclass, about: str) -> None:
    """Refuse texts where numbers belong, and the like; fields of other than plain types are left alone.

    :param value: an instance, checked in its ``__post_init__``.
    :param about: words for messages, such as ``an S3 watcher``.
    :raises DefinitionError: naming field, value and what was expected.
    """
    hints = get_type_hints(type(value))
    for field in fields(value):
        hint = hints[field.name]
        accepted = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        plain = tuple(kind for kind in accepted if kind in (*_PLAIN, types.NoneType))
        if len(plain) < len(accepted):
            continue
        given = getattr(value, field.name)
        if not _fits(given, plain):
            names = " or ".join("None" if kind is types.NoneType else kind.__name__ for kind in plain)
            shown = quoted(given) if isinstance(given, str) else repr(given)[:100]
            raise DefinitionError(f"{field.name} of {about} is {shown}; expected {names}")


def _fits(given: object, plain: tuple[type, ...]) -> bool:
    if isinstance(given, bool):
        return bool in plain
    if isinstance(given, int):
        return int in plain or float in plain
    return isinstance(given, plain) and not (isinstance(given, float) and math.isnan(given))


def seconds(value: timedelta | float) -> float:
    """Return a duration in seconds; what is not a timedelta is returned as it is."""
    return value.total_seconds() if isinstance(value, timedelta) else value
