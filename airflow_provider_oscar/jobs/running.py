# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a submitted job between the tries of a task, and while it waits in the triggerer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJob:
    """One job, as it is kept in the task state store and across deferral; nothing in it is secret.

    :param submission_id: derived from the work, the same on every retry.
    :param job_id: its name on the other side; differs only on OSCAR servers before 4.1.
    :param submitted_at: ISO 8601 as in the job specification, or empty for an adopted job of unknown age.
    :param deadline: seconds since the epoch at which it is cancelled, or None.
    :param queue_deadline: seconds since the epoch at which it is cancelled if it has not started, or None.
    :param object_uri: what it processes, or empty.
    :param object_size: bytes of that, or None if nobody said.
    :param object_etag: entity tag of that in S3, without quotes, or empty.
    :param input_conn_id: connection of its store, or empty.
    :param output_conn_id: connection of the output's store, or empty.
    :param request_digest: of what was asked for; another request is another job.
    :param generation: how often a person had the same work done again; part of what signs the manifest.
    :param deployment_id: name of the Airflow it belongs to.
    :param max_tries: of the task when the job was submitted; changes when a person clears the task.
    :param log_lines: lines of its log that were shown already.
    :param access_until: seconds since the epoch at which the access ends that it was given at its submission, or None.
    :param access_lifetime: seconds for which access is given each time.
    :param backend: name of the back end that runs it; empty in what older versions stored.
    :param address: arguments of that back end, :meth:`~airflow_provider_oscar.jobs.backend.JobSystem.address`.
    """

    submission_id: str
    job_id: str
    submitted_at: str = ""
    deadline: float | None = None
    queue_deadline: float | None = None
    object_uri: str = ""
    object_size: int | None = None
    object_etag: str = ""
    input_conn_id: str = ""
    output_conn_id: str = ""
    request_digest: str = ""
    deployment_id: str = ""
    generation: int = 0
    max_tries: int | None = None
    log_lines: int = 0
    access_until: float | None = None
    access_lifetime: float = 0.0
    backend: str = ""
    address: Mapping[str, str] = field(default_factory=dict)

    @property
    def outlives_access(self) -> bool:
        """Whether it may still be at work when the access ends that it was given, so that it has to be renewed."""
        return self.access_until is not None and (self.deadline is None or self.deadline > self.access_until)

    @property
    def owner(self) -> str:
        """Whose job it is, as the label of a pod: deployment, request and generation."""
        return f"{self.deployment_id}.{self.request_digest}.{self.generation}" if self.request_digest else ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able fields."""
        return asdict(self)

    @classmethod
    def from_stored(cls, fields: object) -> RunningJob | None:
        """Read what a former try stored; None if it is not what this class stores."""
        if not isinstance(fields, Mapping) or not fields.get("submission_id") or not fields.get("job_id"):
            return None
        given = {name: value for name, value in fields.items() if value is not None}
        try:
            return msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError:
            return None
