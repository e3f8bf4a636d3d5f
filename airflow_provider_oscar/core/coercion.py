# SPDX-License-Identifier: Apache-2.0
"""Reads what people write by hand (YAML, keyword arguments) as types say, leniently where nothing else can be meant.

msgspec's own conversion takes no number for a text, knows one spelling of a name, drops unknown ones, and does not name
the entry of a mapping that is wrong. This one goes by the same types (:func:`msgspec.inspect.type_info`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TypeVar

import msgspec
from msgspec import inspect

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.words import nearest

T = TypeVar("T")

#: Go prints a million and more with an exponent, if there is a point in it.
_EXPONENT_FROM = 6
#: Places whose values are not shown, since some are secrets.
_HIDDEN = re.compile(r"\b(storage_providers|clusters|environment)\b")
_EXPECTED = {bool: "true or false", int: "a whole number"}


def coerced(value: object, kind: type[T], field_path: str) -> T:
    """Return a value as an instance of a type.

    Numbers and switches become text where text is wanted, as Go prints them; one element becomes a list of one; null
    says nothing; capitals in the names of fields do not matter.

    :param value: what YAML, JSON or a caller gave.
    :param kind: a struct, typed dictionary or plain type that msgspec knows.
    :param field_path: words that name the value in messages.
    :raises DefinitionError: if a field is unknown or missing, or something is of another type.
    """
    found = _coerced(value, inspect.type_info(kind), field_path)
    return found  # type: ignore[return-value]  # what _coerced returns is of the type it was given, as a value


def field_names(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the names of a struct's fields as they are written."""
    return kind.__struct_encode_fields__


def spelt(
    fields: Mapping[str, object] | Iterable[tuple[str, object]], known: Iterable[str], field_path: str
) -> dict[str, object]:
    """Return fields under their right names, without those that are null.

    :param fields: names and values; capitals do not matter.
    :param known: the right names.
    :param field_path: words that name what has these fields.
    :raises DefinitionError: for an unknown name, with the nearest one that is known; for a name given twice.
    """
    spelling = {name.lower(): name for name in known}
    found: dict[str, object] = {}
    for key, value in fields.items() if isinstance(fields, Mapping) else fields:
        name = spelling.get(str(key).lower())
        if name is None:
            names = sorted(spelling.values())
            remedy = nearest(key, names) or f"; it knows {', '.join(names)}"
            raise DefinitionError(
                f"{field_path} has the unknown field {quoted(key)}, which OSCAR would drop silently{remedy}"
            )
        if value is not None and found.setdefault(name, value) != value:
            raise DefinitionError(f"{field_path} has the field {name!r} twice, under two spellings; keep one")
    return found


def mapping(value: object, field_path: str) -> dict[str, object]:
    """Return a mapping; an empty one for null.

    :raises DefinitionError: if it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DefinitionError(f"{field_path} is {_shown(value, field_path)}; expected a mapping of names to values")
    return {str(key): each for key, each in value.items()}


def _coerced(value: object, kind: inspect.Type, field_path: str) -> object:
    if isinstance(kind, inspect.UnionType):
        (kind,) = (each for each in kind.types if not isinstance(each, inspect.NoneType))
    if isinstance(kind, inspect.StrType):
        return _text(value, field_path)
    if isinstance(kind, inspect.BoolType | inspect.IntType):
        wanted = bool if isinstance(kind, inspect.BoolType) else int
        if type(value) is not wanted:
            raise DefinitionError(f"{field_path} is {quoted(value)}; expected {_EXPECTED[wanted]}")
        return value
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        made: Callable[[Iterable[object]], object] = list if isinstance(kind, inspect.ListType) else tuple
        return made(
            _coerced(each, kind.item_type, f"{field_path}[{at}]")
            for at, each in enumerate(_list(value, kind, field_path))
        )
    if isinstance(kind, inspect.DictType):
        return {
            key: _coerced(_or_empty(each, kind), kind.value_type, f"{field_path}.{key}")
            for key, each in mapping(value, field_path).items()
        }
    if isinstance(kind, inspect.TypedDictType | inspect.StructType):
        return _fields(value, kind, field_path)
    return value


def _fields(value: object, kind: inspect.TypedDictType | inspect.StructType, field_path: str) -> object:
    known = {field.encode_name: field for field in kind.fields}
    given = spelt(mapping(value, field_path), known, field_path)
    found = {known[name].name: _coerced(each, known[name].type, f"{field_path}.{name}") for name, each in given.items()}
    if missing := [name for name, field in known.items() if field.required and name not in given]:
        raise DefinitionError(f"{field_path} has no {missing[0]}")
    return found if isinstance(kind, inspect.TypedDictType) else kind.cls(**found)


def _list(value: object, kind: inspect.ListType | inspect.VarTupleType, field_path: str) -> list[object]:
    if value is None or value == "":
        return []
    single = {inspect.StrType: str, inspect.IntType: int}.get(type(kind.item_type))
    if single is not None and isinstance(value, single):
        return [value]
    if not isinstance(value, list | tuple):
        raise DefinitionError(f"{field_path} is {_shown(value, field_path)}; expected a list")
    return list(value)


def _shown(value: object, field_path: str) -> str:
    if _HIDDEN.search(field_path) is None:
        return quoted(value)
    return (
        "a mapping" if isinstance(value, Mapping) else "a list" if isinstance(value, list | tuple) else "no such thing"
    )


def _or_empty(value: object, kind: inspect.DictType) -> object:
    """A name without a value has an empty one: ``TOKEN:`` in YAML."""
    return "" if value is None and isinstance(kind.value_type, inspect.StrType) else value


def _text(value: object, field_path: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return go_text(value)
    if not isinstance(value, str):
        raise DefinitionError(f"{field_path} is {_shown(value, field_path)}; expected a text")
    return value


def go_text(number: float) -> str:
    """Return a number as Go prints it, which is what oscar-cli sends for it."""
    if isinstance(number, int):
        return str(number)
    if number in (float("inf"), float("-inf")) or number != number:
        return {"inf": "+Inf", "-inf": "-Inf"}.get(repr(number), "NaN")
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    shift = len(digits) + int(exponent) - 1
    text = "".join(map(str, digits))
    if number and (shift < -4 or shift >= _EXPONENT_FROM):
        text = f"{text[0]}{'.' if text[1:] else ''}{text[1:]}e{'-' if shift < 0 else '+'}{abs(shift):02d}"
    else:
        text = f"{Decimal(text).scaleb(int(exponent)):f}"
    return f"-{text}" if sign else text
