# SPDX-License-Identifier: Apache-2.0
"""What a job operator remembers between tries and hops, and how it reads a templated object event."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_oscar._airflow import NEVER_EXPIRE
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.times import read_iso

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Key in the task state store, which all tries of a task share.
STATE_KEY = "airflow_provider_oscar.job"


@dataclass(frozen=True, slots=True)
class RunningJob:
    """What is remembered of a submitted job, in the task state store and across deferral.

    :param submission_id: derived from the work, the same on every retry.
    :param job_id: its name on the other side; differs only on OSCAR servers before 4.1.
    :param submitted_at: ISO 8601 as in the job specification, or empty for an adopted job of unknown age.
    :param deadline: seconds since the epoch.
    :param object_uri: what it processes, or empty.
    """

    submission_id: str
    job_id: str
    submitted_at: str = ""
    deadline: float | None = None
    object_uri: str = ""

    @classmethod
    def from_stored(cls, fields: object) -> RunningJob | None:
        """Read what a former try stored; None if it is nothing of ours."""
        if not isinstance(fields, Mapping) or not fields.get("submission_id") or not fields.get("job_id"):
            return None
        deadline = fields.get("deadline")
        return cls(
            submission_id=str(fields["submission_id"]),
            job_id=str(fields["job_id"]),
            submitted_at=str(fields.get("submitted_at") or ""),
            deadline=float(deadline) if isinstance(deadline, int | float) else None,
            object_uri=str(fields.get("object_uri") or ""),
        )


def remember(context: Context, job: RunningJob) -> None:
    """Store the job where the next try of the task finds it."""
    store = context.get("task_state_store")
    if store is not None:
        store.set(STATE_KEY, asdict(job), retention=NEVER_EXPIRE)


def recall(context: Context) -> RunningJob | None:
    """Return what an earlier try stored."""
    store = context.get("task_state_store")
    return None if store is None else RunningJob.from_stored(store.get(STATE_KEY))


def moment(text: str) -> datetime | None:
    """Read an ISO 8601 time; None if it is none."""
    try:
        return read_iso(text)
    except ValueError:
        return None


def read_object_event(value: Any) -> ObjectEvent | None:
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


def _decoded(text: str) -> Any:
    """Decode JSON, or a Python literal: Jinja renders a dictionary as one."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
