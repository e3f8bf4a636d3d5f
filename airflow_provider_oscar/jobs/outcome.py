# SPDX-License-Identifier: Apache-2.0
"""Whether a job is running, done, failed or lost: the only place that decides.

Operators, triggers, sensors and the CLI all ask :func:`evaluate`. Pod phases and OSCAR's job states lie in
both directions (OSCAR copies the phase of a pod, interLink what a script made of SLURM's word), so only a manifest
proves success.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from airflow_provider_oscar.core.errors import quoted
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.manifest import Manifest

#: ``proof`` of a manifest that a wrapped script of a service printed.
WRAPPED = "wrapped"


class OutcomeState(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    """Not decided yet; look again."""
    SUCCEEDED = "succeeded"
    """Proven by its manifest."""
    FAILED = "failed"
    """Said so by its manifest, or ended without one after the compute side reported failure."""
    SKIPPED = "skipped"
    """Its manifest says that the command ended with an exit code that its author gave this meaning."""
    LOST = "lost"
    """It ended or vanished without a manifest: neither success nor failure is proven."""


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How a job stands, and why, in one line."""

    state: OutcomeState
    reason: str

    @property
    def final(self) -> bool:
        """Looking again would not change it."""
        return self.state is not OutcomeState.RUNNING


def evaluate(
    submission_id: str,
    manifest: Manifest | None,
    phase: JobPhase | str,
    *,
    age: timedelta,
    grace: timedelta,
    submitted_at: datetime | None = None,
    skips: Collection[int] = (),
) -> JobOutcome:
    """Decide how a job stands.

    Read the phase before the manifest: the manifest is complete before the job ends.

    :param submission_id: the job asked about; another job's manifest does not count.
    :param manifest: from the output prefix or from the log, or None.
    :param phase: normalised by the hook; any other text counts as unknown.
    :param age: how long the job has been in this phase, or since its submission if never seen.
    :param grace: how long the manifest may still be on its way after the compute side reported an end
        or does not know the job.
    :param submitted_at: of this attempt; an older attempt's manifest at the same place does not count.
    :param skips: exit codes of the command that say that there was nothing to do.
    """
    phase = JobPhase(phase)
    if manifest is not None and manifest.submission_id == submission_id and not _older(manifest, submitted_at):
        state = OutcomeState.SUCCEEDED if manifest.succeeded else OutcomeState.FAILED
        if manifest.succeeded and manifest.proof == WRAPPED and phase is not JobPhase.SUCCEEDED:
            # The script ended well; whether its outputs went out, OSCAR's own supervisor says by its end.
            active = phase in (JobPhase.PENDING, JobPhase.RUNNING, JobPhase.UNKNOWN)
            return JobOutcome(
                OutcomeState.RUNNING if active or age <= grace and phase is JobPhase.ABSENT else OutcomeState.FAILED,
                f"job {quoted(submission_id)} is {phase.value} after its script ended with exit code 0: OSCAR's "
                "supervisor has not staged its outputs out",
            )
        # What failed around the command, or killed it, is no word of the command's.
        if manifest.error is None and not manifest.killed and manifest.exit_code in skips:
            reason = f"job {quoted(submission_id)}: {manifest.summary}, which skips its task (skip_on_exit_code)"
            return JobOutcome(OutcomeState.SKIPPED, reason)
        return JobOutcome(state, f"job {quoted(submission_id)}: {manifest.summary}")
    if phase in (JobPhase.PENDING, JobPhase.RUNNING, JobPhase.UNKNOWN):
        return JobOutcome(OutcomeState.RUNNING, f"job {quoted(submission_id)} is {phase.value}")
    if age <= grace:
        return JobOutcome(
            OutcomeState.RUNNING, f"job {quoted(submission_id)} is {phase.value}; waiting for its manifest"
        )
    if phase is JobPhase.FAILED:
        return JobOutcome(
            OutcomeState.FAILED, f"job {quoted(submission_id)} failed before it could write a manifest; see its log"
        )
    what = "is not known there" if phase is JobPhase.ABSENT else "is reported as succeeded"
    return JobOutcome(
        OutcomeState.LOST,
        f"job {quoted(submission_id)} {what}, but no manifest came within {grace}; "
        "its result is not proven: see its log and its output prefix",
    )


def proves_success(manifest: Manifest, phase: JobPhase) -> bool:
    """Whether a manifest proves it of a job that has ended so."""
    return manifest.succeeded and (manifest.proof != WRAPPED or phase is JobPhase.SUCCEEDED)


def _older(manifest: Manifest, submitted_at: datetime | None) -> bool:
    return submitted_at is not None and manifest.submitted_at is not None and manifest.submitted_at < submitted_at
