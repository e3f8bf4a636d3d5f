# SPDX-License-Identifier: Apache-2.0
"""What one look at a job shows, and the event in which a trigger hands it to the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from airflow_provider_oscar.core.errors import quoted
from airflow_provider_oscar.core.phase import JobPhase

#: Longest name of a node, or number of a SLURM job, that goes into Airflow's database; both are foreign.
NAME_LIMIT = 253
#: Longest reason that travels in an event, through Airflow's database.
REASON_LIMIT = 4000

#: Values that JSON and Airflow's database can hold.
JsonObject: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One look at one job.

    :param phase: normalised.
    :param reason: the other side's own words, foreign text.
    :param slurm_job_id: where there is one.
    :param node: where it runs.
    :param exit_code: of its container, where known.
    :param owner: :attr:`RunningJob.owner` that it carries; empty where jobs carry none, ``-`` for somebody else's.
    """

    phase: JobPhase
    reason: str = ""
    slurm_job_id: str = ""
    node: str = ""
    exit_code: int | None = None
    owner: str = ""

    def describe(self, job_id: str) -> str:
        """Return one line that says where the job stands."""
        parts = [f"Job {job_id} is {self.phase.value}"]
        parts += [f"SLURM job {quoted(self.slurm_job_id)}"] if self.slurm_job_id else []
        parts += [f"on {quoted(self.node)}"] if self.node else []
        parts += [f"({quoted(self.reason)})"] if self.reason else []
        return " ".join(parts)

    def to_event(self) -> JsonObject:
        """Return the event of a job that has ended, or is not there."""
        return {
            "status": "ended",
            "phase": self.phase.value,
            "ended_at": datetime.now(UTC).isoformat(),
            "reason": self.reason[:REASON_LIMIT],
            "slurm_job_id": self.slurm_job_id[:NAME_LIMIT],
            "node": self.node[:NAME_LIMIT],
            "exit_code": self.exit_code,
        }

    @classmethod
    def from_event(cls, event: Mapping[str, object]) -> JobStatus:
        """Read what :meth:`to_event` wrote; tolerant, since it went through Airflow's database."""
        code = event.get("exit_code")
        return cls(
            phase=JobPhase(str(event.get("phase") or "")),
            reason=str(event.get("reason") or ""),
            slurm_job_id=str(event.get("slurm_job_id") or ""),
            node=str(event.get("node") or ""),
            exit_code=code if isinstance(code, int) else None,
        )


ABSENT = JobStatus(JobPhase.ABSENT)
