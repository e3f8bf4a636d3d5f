# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments that all job operators have; a mistake shows when the DAG file is read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal, get_args

from airflow_provider_oscar.core.errors import DefinitionError, quoted

#: When a job or result of a former try is taken.
Reuse = Literal["retries", "always", "never"]
REUSE = get_args(Reuse)


def refuse_text(task_id: str, command: Sequence[str] | None) -> None:
    """Refuse a command that is one text, of which each letter would be a word.

    :raises DefinitionError: if it is.
    """
    if isinstance(command, str):
        raise DefinitionError(
            f"command of task {task_id!r} is the text {command!r}; give a list of words, such as "
            '["python3", "infer.py"], or ["sh", "-c", "…"] if a shell is wanted'
        )


def checked_reuse(task_id: str, reuse: str) -> str:
    """Return ``reuse``.

    :raises DefinitionError: if it is not one of :data:`REUSE`.
    """
    if reuse not in REUSE:
        raise DefinitionError(f"reuse of task {task_id!r} is {quoted(reuse)}; expected one of {', '.join(REUSE)}")
    return reuse


def positive_seconds(task_id: str, name: str, value: timedelta | float | None) -> float | None:
    """Return a duration in seconds, None for none.

    :param task_id: of the task.
    :param name: of its argument.
    :param value: of its argument.
    :raises DefinitionError: if it is not above 0.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds is not None and not seconds > 0:
        raise DefinitionError(f"{name} of task {task_id!r} is {value}; expected more than 0 seconds")
    return seconds
