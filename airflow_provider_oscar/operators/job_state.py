# SPDX-License-Identifier: Apache-2.0
"""What a job operator remembers between tries and hops, and how it reads a templated object event."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_provider_oscar._airflow import NEVER_EXPIRE
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.jobs.running import RunningJob

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Key in the task state store, which all tries of a task share.
STATE_KEY = "airflow_provider_oscar.job"


def save_state(context: Context, job: RunningJob) -> None:
    """Store the job where the next try of the task finds it."""
    store = context.get("task_state_store")
    if store is not None:
        store.set(STATE_KEY, asdict(job), retention=NEVER_EXPIRE)


def load_state(context: Context) -> RunningJob | None:
    """Return what an earlier try stored."""
    store = context.get("task_state_store")
    return None if store is None else RunningJob.from_stored(store.get(STATE_KEY))


def parse_object_event(value: Any) -> ObjectEvent | None:
    """Read an event as it may arrive in a templated argument: the value, a dictionary, or either as text.

    :raises DefinitionError: if it is something else.
    """
    if value is None or isinstance(value, ObjectEvent):
        return value
    if isinstance(value, str):
        text = value.strip()
        if text in ("", "None", "null"):
            return None
        value = _decoded(text)
    if isinstance(value, Mapping):
        # An asset event's extra holds the event under one of these names.
        for wrapper in ("object", "payload"):
            if isinstance(value.get(wrapper), Mapping):
                value = value[wrapper]
        return ObjectEvent.from_dict(value)
    raise DefinitionError(
        f"object_event is {quoted(value)}; expected an ObjectEvent, the dictionary of ObjectEvent.to_dict(), "
        "or the extra of an asset event"
    )


def parsed_list(value: object) -> list[object]:
    """Return the elements of a list or of its text; one value alone is a list of one, nothing one of none."""
    if isinstance(value, str):
        value = _decoded(value.strip()) if value.strip() not in ("", "None", "null") else None
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Iterable) or isinstance(value, Mapping):
        return [value]
    return list(value)


def _decoded(text: str) -> object:
    """Decode JSON, or a Python literal: Jinja renders a dictionary as one."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
