# SPDX-License-Identifier: Apache-2.0
"""What a job operator remembers between tries and hops, and how it reads a templated object event."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_oscar._airflow import NEVER_EXPIRE
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import configured_deployment_id, request_digest
from airflow_provider_oscar.jobs.submission import submission_id
from airflow_provider_oscar.operators.job_access import access_lifetime

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oscar.operators.job import JobOperator

#: Key in the task state store, which all tries of a task share.
STATE_KEY = "airflow_provider_oscar.job"


def save_state(context: Context, job: RunningJob) -> None:
    """Store the job where the next try of the task finds it."""
    store = context.get("task_state_store")
    if store is not None:
        store.set(STATE_KEY, job.to_dict(), retention=NEVER_EXPIRE)


def load_state(context: Context) -> RunningJob | None:
    """Return what an earlier try stored."""
    store = context.get("task_state_store")
    return None if store is None else RunningJob.from_stored(store.get(STATE_KEY))


def parse_object_event(value: Any) -> ObjectEvent | None:
    """Read an event as it may arrive in a templated argument: the value, a dictionary, or either as text.

    A list of one is taken as well, since that is what a sensor returns.

    :raises DefinitionError: if it is something else.
    """
    if value is None or isinstance(value, ObjectEvent):
        return value
    if isinstance(value, str):
        text = value.strip()
        if text in ("", "None", "null"):
            return None
        value = _decoded(text)
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise DefinitionError(
                f"object_event is a list of {len(value)} objects; a command has one: give the others as inputs, or map "
                "the task over the list with expand(object_event=...)"
            )
        return parse_object_event(value[0])
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


def given_object(event: ObjectEvent | None) -> dict[str, Any]:
    """Return what a :class:`RunningJob` says of its object.

    :param event: the object; None for a job without one.
    """
    if event is None:
        return {"object_uri": "", "object_size": None, "object_etag": ""}
    return {"object_uri": event.uri, "object_size": event.size, "object_etag": event.etag}


def remembered_job(task: JobOperator[Any], context: Context, event: ObjectEvent | None) -> tuple[RunningJob, bool]:
    """Return the job a task's work belongs to, from a former try or new; and whether nothing of that try may be taken.

    :param task: what asks for it.
    :param context: of the task.
    :param event: the object it is about.
    """
    ti = context["ti"]
    name = submission_id(
        task.submission_name(),
        ti.dag_id,
        ti.task_id,
        context.get("partition_key") or context["run_id"],
        getattr(ti, "map_index", -1),
        deployment_id=configured_deployment_id(),
    )
    digest = request_digest(task.request())
    tries = getattr(ti, "max_tries", None)
    former = load_state(context)
    if former is None or former.submission_id != name:
        former = RunningJob(submission_id=name, job_id=name, request_digest=digest, max_tries=tries)
        fresh = task.reuse == "never"
    else:
        # Clearing a task raises max_tries; an automatic retry leaves it.
        cleared = tries != former.max_tries and task.reuse == "retries"
        fresh = cleared or task.reuse == "never" or digest != former.request_digest
        if cleared:
            task.log.info("The task was cleared, so job %s is run again; reuse='always' takes its result", name)
    now, lifetime = time.time(), access_lifetime(task).total_seconds()
    job = replace(
        former,
        deadline=now + task.timeout_seconds(),
        queue_deadline=None if task.queue_timeout is None else now + task.queue_timeout,
        **given_object(event),
        input_conn_id=event.conn_id if event else "",
        output_conn_id=task.output_conn_id if task.output_uri else "",
        request_digest=digest,
        deployment_id=configured_deployment_id(),
        generation=former.generation + fresh,
        max_tries=tries,
        access_until=now + lifetime if fresh or former.access_until is None else former.access_until,
        access_lifetime=lifetime,
        backend=task.backend.name,
        address=task.backend.address(),
    )
    return job, fresh
