# SPDX-License-Identifier: Apache-2.0
"""What is known after a job was cancelled: told as far as it was seen, never more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cancellation:
    """The outcome of cancelling one job.

    :param found: there was something to cancel.
    :param verified: the job was seen to be gone wherever it ran.
    :param known: what was seen, as a half sentence with the job as its subject.
    """

    found: bool
    verified: bool
    known: str

    def __bool__(self) -> bool:
        """Whether there was something to cancel."""
        return self.found

    def __str__(self) -> str:
        return self.known


ABSENT_BEFORE = Cancellation(found=False, verified=True, known="was not there any more")


def judge(
    *, found: bool, pod_gone: bool, slurm_job_id: str = "", slurm_state: str | None = None, asked_slurm: bool = False
) -> Cancellation:
    """Say what is known of a job whose pod was deleted.

    :param found: the pod was there.
    :param pod_gone: the pod is not there any more.
    :param slurm_job_id: of the job on a virtual node; empty for an ordinary node, or if it never got one.
    :param slurm_state: what SLURM calls the job now; empty if it knows it no more.
    :param asked_slurm: SLURM was asked itself.
    """
    if not found:
        return ABSENT_BEFORE
    if not pod_gone:
        return Cancellation(
            found=True, verified=False, known="was told to end, but its pod is still there: its node may be down"
        )
    if not slurm_job_id:
        return Cancellation(found=True, verified=True, known="was cancelled, and its pod is gone")
    if not asked_slurm or slurm_state is None:
        return Cancellation(
            found=True,
            verified=False,
            known=f"was cancelled: its pod is gone, but whether SLURM job {slurm_job_id} has ended was not seen; "
            "the extra field slurm_conn_id of the connection names where to ask SLURM",
        )
    if ended(slurm_state):
        slurm_words = f"SLURM says {slurm_state}" if slurm_state else "SLURM does not know it any more"
        return Cancellation(
            found=True,
            verified=True,
            known=f"was cancelled: its pod is gone, and SLURM job {slurm_job_id} has ended ({slurm_words})",
        )
    return Cancellation(
        found=True,
        verified=False,
        known=f"was NOT cancelled: its pod is gone, but SLURM job {slurm_job_id} is still {slurm_state}; "
        f"run scancel {slurm_job_id} at the site",
    )


#: States in which SLURM's job holds nothing any more (``squeue --states``); all others are alive.
_ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")
    + ("REVOKED", "TIMEOUT")
)


def ended(slurm_state: str) -> bool:
    """Whether SLURM's word means that the job has ended; an empty one that SLURM knows it no more."""
    return not slurm_state or slurm_state in _ENDED
