# SPDX-License-Identifier: Apache-2.0
"""Reads what this provider itself left in Airflow's database, as its type says; it may be of another version."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from airflow_provider_oscar.core.errors import DefinitionError, quoted

T = TypeVar("T")
#: A time with its zone.
Moment = Annotated[datetime, Meta(tz=True)]


def read_stored(value: object, kind: type[T], display_name: str, *, remedy: str) -> T:
    """Return a stored value as an instance of its type; fields that the type does not know are left out.

    :param value: JSON as Airflow gives it back.
    :param kind: a struct, or a union of tagged structs.
    :param display_name: words that name what is stored, for the message.
    :param remedy: what to do if it cannot be read.
    :raises DefinitionError: naming the field, what it should be, and what is there.
    """
    try:
        return msgspec.convert(value, kind)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DefinitionError(
            f"{display_name} is not readable ({quoted(str(error))}), found {quoted(value)}; {remedy}"
        ) from error


def to_stored(value: msgspec.Struct) -> dict[str, Any]:
    """Return a struct as JSON that Airflow can store."""
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found
