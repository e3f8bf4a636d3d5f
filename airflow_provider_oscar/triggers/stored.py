# SPDX-License-Identifier: Apache-2.0
"""What is stored of a trigger is stated once: the arguments of its constructor."""

from __future__ import annotations

from inspect import signature

from airflow.triggers.base import BaseTrigger


class StoredTrigger(BaseTrigger):
    """A trigger that keeps each argument of its constructor as the attribute of the same name; none is a secret."""

    def serialize(self) -> tuple[str, dict[str, object]]:
        """Return the class path and every argument, as Airflow stores them."""
        kind = type(self)
        values = {name: getattr(self, name) for name in signature(kind).parameters}
        stored = {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in values.items()}
        return f"{kind.__module__}.{kind.__qualname__}", stored
