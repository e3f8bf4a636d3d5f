# SPDX-License-Identifier: Apache-2.0
"""What one look at a job shows, and the event in which a trigger hands it to the operator."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import msgspec

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.stored import Moment, read_stored, to_stored

#: Longest name of a node, or number of a SLURM job, that goes into Airflow's database; both are foreign.
STATUS_WORD_LIMIT = 253
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
    :param cancelling: it is being removed, and counts as not there.
    :param owner: :attr:`RunningJob.owner` that it carries; empty where jobs carry none, ``-`` for somebody else's.
    :param without_job: a virtual node has its pod, and no job of it.
    """

    phase: JobPhase
    reason: str = ""
    slurm_job_id: str = ""
    node: str = ""
    exit_code: int | None = None
    owner: str = ""
    cancelling: bool = False
    without_job: bool = False

    def describe(self, job_id: str) -> str:
        """Return one line that says where the job stands."""
        parts = [f"Job {job_id} is {self.phase.value}"]
        parts += [f"SLURM job {quoted(self.slurm_job_id)}"] if self.slurm_job_id else []
        parts += [f"on {quoted(self.node)}"] if self.node else []
        parts += [f"({quoted(self.reason)})"] if self.reason else []
        return " ".join(parts)

    def to_event(self) -> JobEvent:
        """Return the event of a job that has ended, or is not there."""
        return JobEvent(
            status="ended",
            phase=self.phase,
            ended_at=datetime.now(UTC),
            reason=self.reason[:REASON_LIMIT],
            slurm_job_id=self.slurm_job_id[:STATUS_WORD_LIMIT],
            node=self.node[:STATUS_WORD_LIMIT],
            exit_code=self.exit_code,
        )


class JobEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the wait for a job ended, as it goes from the triggerer through Airflow's database to the task.

    :param status: ``ended``; ``timeout`` or ``queue_timeout`` if it took too long; ``error`` if the place could not be
        looked at for longer than errors are tolerated.
    :param phase: in which the job ended.
    :param ended_at: when that was seen; null if it is not known.
    :param reason: the other side's own words.
    :param slurm_job_id: where there is one.
    :param node: where it ran.
    :param exit_code: of its container, where known.
    :param proven: its manifest is there.
    :param waited: its manifest was waited for and did not come.
    :param message: why the place could not be looked at.
    :param log_lines: lines of its log that were shown.
    """

    status: Literal["ended", "timeout", "queue_timeout", "error"]
    phase: JobPhase = JobPhase.UNKNOWN
    ended_at: Moment | None = None
    reason: str = ""
    slurm_job_id: str = ""
    node: str = ""
    exit_code: int | None = None
    proven: bool = False
    waited: bool = False
    message: str = ""
    log_lines: int = 0

    @property
    def job_status(self) -> JobStatus:
        """The last look at the job."""
        return JobStatus(self.phase, self.reason, self.slurm_job_id, self.node, self.exit_code)

    def to_dict(self) -> JsonObject:
        """Return what a trigger yields."""
        return to_stored(self)

    @classmethod
    def from_dict(cls, event: object) -> JobEvent:
        """Read :meth:`to_dict`; whatever is not that is an event of a job that could not be looked at."""
        try:
            return read_stored(event, cls, "the event of the job", remedy="a retry looks at the job again")
        except DefinitionError as error:
            return cls(status="error", message=str(error))


ABSENT = JobStatus(JobPhase.ABSENT)
CANCELLING = JobStatus(JobPhase.ABSENT, cancelling=True)
