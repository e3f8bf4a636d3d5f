# SPDX-License-Identifier: Apache-2.0
"""What every trigger of this provider shares: its arguments are declared once.

A trigger class names a frozen dataclass; the constructor, :meth:`DeclaredArguments.serialize` and
therefore everything Airflow stores about the trigger follow from its fields. Secrets have no field:
a trigger carries connection ids and resolves them where it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from enum import Enum
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from airflow_provider_oscar.core.errors import DefinitionError


class Declaration(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


A = TypeVar("A", bound=Declaration)


class DeclaredArguments(Generic[A]):
    """Mixin, first in the list of bases; the second is ``BaseTrigger`` or ``BaseEventTrigger``::

        @dataclass(frozen=True, kw_only=True)
        class PrefixArguments:
            conn_id: str
            suffixes: tuple[str, ...] = ()

        class PrefixTrigger(DeclaredArguments[PrefixArguments], BaseEventTrigger):
            arguments_type = PrefixArguments

    The trigger then reads ``self.arguments.conn_id``. Sequences are stored as JSON lists and come back
    as tuples; whatever else JSON cannot carry is refused when the trigger is made, in the DAG file.

    :raises DefinitionError: if an argument is missing, unknown, or cannot be stored.
    """

    arguments_type: type[A]

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        kind = type(self).__name__
        for name, value in arguments.items():
            _plain(value, f"argument {name!r} of {kind}")
        try:
            self.arguments: A = self.arguments_type(**{name: _frozen(value) for name, value in arguments.items()})
        except TypeError as error:
            known = ", ".join(field.name for field in fields(self.arguments_type))
            raise DefinitionError(f"{kind} cannot be made: {error}; its arguments are: {known}") from error

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and every declared argument, as plain JSON values."""
        kind = type(self)
        values = {
            field.name: _plain(
                getattr(self.arguments, field.name),
                f"argument {field.name!r} of {kind.__name__}",
            )
            for field in fields(self.arguments_type)
        }
        return f"{kind.__module__}.{kind.__qualname__}", values


def _plain(value: Any, about: str) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value, about)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, about) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, about) for key, item in value.items()}
    raise DefinitionError(
        f"{about} is a {type(value).__name__}, which cannot be stored in Airflow's database; "
        "give text, numbers, and lists or dictionaries of them (a timedelta in seconds, a datetime as ISO 8601)"
    )


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
