# SPDX-License-Identifier: Apache-2.0
"""What a compute side says about a job, in one vocabulary."""

from __future__ import annotations

from enum import StrEnum


class JobPhase(StrEnum):
    """What the compute side says about a job, normalised. ``JobPhase(word)`` takes any text."""

    PENDING = "pending"
    """Accepted, not started; OSCAR's ``Suspended`` as well."""
    RUNNING = "running"
    """Started."""
    SUCCEEDED = "succeeded"
    """Said to have ended well."""
    FAILED = "failed"
    """Said to have ended badly."""
    UNKNOWN = "unknown"
    """A word that is not in the table, or no answer."""
    ABSENT = "absent"
    """The job is not there: not yet, or no longer."""

    @property
    def active(self) -> bool:
        """It may still do something: it waits, runs, or nobody knows."""
        return self in (JobPhase.PENDING, JobPhase.RUNNING, JobPhase.UNKNOWN)

    @property
    def ended(self) -> bool:
        """The compute side says that it has ended, well or badly."""
        return self in (JobPhase.SUCCEEDED, JobPhase.FAILED)

    @classmethod
    def _missing_(cls, value: object) -> JobPhase:
        word = value.strip().casefold() if isinstance(value, str) else ""
        return _WORDS.get(word, cls.UNKNOWN)


_WORDS = {
    **{phase.value: phase for phase in JobPhase},
    "suspended": JobPhase.PENDING,
    "queued": JobPhase.PENDING,
}
