# SPDX-License-Identifier: Apache-2.0
"""What a job is asked for and its supervisor is given, made from the arguments of its task."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.jobs.options import Attachments, Binding
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.operators.job_access import access_lifetime, tell
from airflow_provider_oscar.operators.job_inputs import PREVIOUS_TRY, own_checkpoint
from airflow_provider_oscar.operators.job_outputs import output_rules
from airflow_provider_oscar.operators.job_state import parse_object_event

if TYPE_CHECKING:
    from airflow_provider_oscar.jobs.prepared import PreparedJob
    from airflow_provider_oscar.operators.job import JobOperator


def build_job(task: JobOperator[Any], job: RunningJob, *, placement: str) -> PreparedJob:
    """Make what the supervisor needs: specification, program, short-lived access to input and output."""
    if not task.output_uri or not task.command:
        raise DefinitionError(f"task {task.task_id!r} needs both output_uri and command")
    tell(task, job)
    options = task.build_options()
    if task.resume_from == PREVIOUS_TRY and (saved := own_checkpoint(task, job)):
        options["attachments"] = replace(options.get("attachments") or Attachments(), resume_from=saved)
    return task.builder.build(
        submission_id=job.submission_id,
        binding=Binding(
            signing_key=task.signer.key(job),
            request_digest=job.request_digest,
            placed=task.placed,
            outlived=job.outlives_access,
        ),
        event=parse_object_event(task.object_event),
        command=[str(word) for word in task.command],
        output_conn_id=task.output_conn_id,
        output_uri=task.output_uri,
        environment={name: str(value) for name, value in task.environment.items()},
        placement=placement,
        timeout=task.timeout_seconds(),
        lifetime=access_lifetime(task),
        **options,
    )


def described_request(task: JobOperator[Any]) -> dict[str, object]:
    """Return what a task asks for, as JSON values: object, command and options, and where the results go.

    :param task: the task.
    """
    event, rules = parse_object_event(task.object_event), output_rules(task)
    return {
        "command": None if task.command is None else [str(word) for word in task.command],
        "environment": {name: str(value) for name, value in task.environment.items()},
        "input": None if event is None else _identity(event),
        "output": [task.output_conn_id, task.output_uri],
        # As it was without patterns, so that their coming changes no request that has none.
        **({"outputs": [[each.pattern, each.uri, each.conn_id] for each in rules]} if rules else {}),
        "further": [
            [[each.uri, each.version_id or each.etag, each.size] for each in found] for found in task.further_objects
        ],
        "options": task.run_options.settings(),
    }


def _identity(event: ObjectEvent) -> list[object]:
    return [event.uri, event.version_id or event.etag, event.size]
