# SPDX-License-Identifier: Apache-2.0
"""Types of arguments, checked where a DAG file gives them and not where they are used hours later."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from datetime import timedelta
from typing import ClassVar, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.words import nearest

_PLAIN = (str, int, float, bool)
_UNIONS = (Union, types.UnionType)
_WORDS: dict[object, str] = {Sequence: "a list", types.NoneType: "None"}


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]


def check_fields(value: Dataclass, display_name: str) -> None:
    """Refuse texts where numbers belong, and the like; fields of other than plain types are left alone.

    :param value: an instance, checked in its ``__post_init__``.
    :param display_name: words for messages, such as ``an S3 watcher``.
    :raises DefinitionError: naming field, value and what was expected.
    """
    hints = get_type_hints(type(value))
    for field in fields(value):
        hint = hints[field.name]
        if all(kind in (*_PLAIN, types.NoneType) for kind in _alternatives(hint)):
            check_value(getattr(value, field.name), hint, f"{field.name} of {display_name}")


def check_value(given: object, hint: object, display_name: str) -> None:
    """Refuse a value that is not of a type; what is inside of a list or mapping is not looked at.

    :param given: the value.
    :param hint: the type, as in an annotation.
    :param display_name: words for messages, such as ``image of task 'infer'``.
    :raises DefinitionError: naming what was given and what was expected.
    """
    if not any(_fits(given, kind) for kind in _alternatives(hint)):
        shown = quoted(given) if isinstance(given, str) else repr(given)[:100]
        example = f", such as {given.split()!r}" if isinstance(given, str) and takes_list(hint) else ""
        words = [word for kind in _alternatives(hint) if get_origin(kind) is Literal for word in get_args(kind)]
        meant = nearest(given, words) if isinstance(given, str) else ""
        raise DefinitionError(f"{display_name} is {shown}; expected {_words(hint)}{example}{meant}")


def check_environment(given: object, display_name: str) -> None:
    """Refuse variables that no process can have, and ``None``, which would become the text ``None``.

    :param given: the variables; what is not a mapping, such as a template, is left alone.
    :param display_name: words for messages, such as ``environment of task 'infer'``.
    :raises DefinitionError: naming the variable and what was expected.
    """
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise DefinitionError(
                f"{display_name} has a variable {name!r}; expected a name, as a text that is not empty and has no '='"
            )
        if value is None:
            raise DefinitionError(f"{display_name} has {name}=None; give it a text, '' for none, or leave it out")
        if isinstance(value, set | frozenset):
            raise DefinitionError(f"{display_name} has {name}={value!r}, whose order is chance; give it a text")


def check_command(given: object, display_name: str) -> None:
    """Refuse words that would be passed as Python shows them: ``None``, lists and mappings.

    :param given: program and arguments; what is not a list, such as a template, is left alone.
    :param display_name: words for messages, such as ``command of task 'infer'``.
    :raises DefinitionError: naming the word and what was expected.
    """
    for position, word in enumerate(given if isinstance(given, list | tuple) else ()):
        if word is None or isinstance(word, list | tuple | set | frozenset | Mapping):
            raise DefinitionError(f"{display_name} has {word!r} as word {position + 1}; expected a text")


def check_has_value(given: object, display_name: str) -> None:
    """Refuse what Jinja makes of a name that has no value.

    :param given: what a template became.
    :param display_name: words for messages, such as ``image of task 'infer'``.
    :raises DefinitionError: saying how to leave the argument out.
    """
    if given == "None":
        raise DefinitionError(
            f"{display_name} is 'None', so what its template names has no value; give it one, or write "
            "{{ … or '' }} where it may be left out"
        )


def is_template(given: object) -> bool:
    """Tell whether a text is known only when the task runs."""
    return isinstance(given, str) and ("{{" in given or "{%" in given)


def takes_list(hint: object) -> bool:
    """Whether a list is of the type, and a text is not."""
    kinds = [get_origin(kind) or kind for kind in _alternatives(hint)]
    return Sequence in kinds and str not in kinds


def takes_text(hint: object) -> bool:
    """Whether a text is of the type, and a number is not."""
    kinds = _alternatives(hint)
    return str in kinds and not {int, float} & {*kinds}


def is_own(hint: object) -> bool:
    """Whether only values of classes of this package are of the type, or None."""
    house = f"{__package__.partition('.')[0]}."
    kinds = [kind for kind in _alternatives(hint) if kind is not types.NoneType]
    return bool(kinds) and all(str(getattr(kind, "__module__", "")).startswith(house) for kind in kinds)


def _alternatives(hint: object) -> tuple[object, ...]:
    if get_origin(hint) in _UNIONS:
        return tuple(each for kind in get_args(hint) for each in _alternatives(kind))
    return (hint,)


def _fits(given: object, hint: object) -> bool:
    if get_origin(hint) is Literal:
        return given in get_args(hint)
    kind = get_origin(hint) or hint
    if not isinstance(kind, type) or kind is object or getattr(kind, "_is_protocol", False):
        return True
    if isinstance(given, bool):
        return kind is bool
    if kind is float and isinstance(given, int | float):
        # An integer may be larger than any float.
        return given == given and (isinstance(given, float) or abs(given) <= sys.float_info.max)
    return isinstance(given, kind) and not (kind is Sequence and isinstance(given, str | bytes))


def _words(hint: object) -> str:
    names = []
    for kind in _alternatives(hint):
        if get_origin(kind) is Literal:
            names.append(f"one of {', '.join(map(repr, get_args(kind)))}")
        else:
            plain = get_origin(kind) or kind
            names.append(_WORDS.get(plain) or str(getattr(plain, "__name__", plain)))
    return " or ".join(names)


def seconds(value: timedelta | float) -> float:
    """Return a duration in seconds; what is not a timedelta is returned as it is."""
    return value.total_seconds() if isinstance(value, timedelta) else value
