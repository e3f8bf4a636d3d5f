# SPDX-License-Identifier: Apache-2.0
"""Whether what lies at a job's place is still the manifest that proved its success; pure.

Airflow checked a manifest once, when the job ended, and keeps its summary. Whoever may write to the place can change
the copy there afterwards, so the page verifies that copy again and shows it only if it is genuine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_oscar.core import large_json
from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.running import RunningJob

Verifies = Callable[[RunningJob, Manifest], bool]


class ProofState(StrEnum):
    """What a result is worth."""

    PROVEN = "proven"
    """The manifest at the place bears the signature of this very job."""
    REFUTED = "refuted"
    """What is at the place does not; shown is what Airflow accepted."""
    OBSERVED = "observed"
    """The job writes no manifest: success was judged by a rule."""
    UNSIGNED = "unsigned"
    """The job was given no key to sign with."""
    UNKNOWN = "unknown"
    """It could not be verified now."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a result is worth, in words.

    :param state: the verdict.
    :param words: a sentence for the page.
    """

    state: ProofState
    words: str

    def to_dict(self) -> dict[str, str]:
        """Return JSON-able fields."""
        return {"state": self.state.value, "words": self.words}


def without_copy(accepted: Mapping[str, object]) -> Proof | None:
    """Return the verdict on a result that no copy at its place could prove; None if one can.

    :param accepted: the manifest, or its summary, that the task returned.
    """
    if accepted.get("proof") == "observed":
        by = str(accepted.get("observed_by") or "status")
        return Proof(ProofState.OBSERVED, f"Observed, not proven: the job writes no manifest; judged by {by}.")
    if not accepted.get("signature"):
        return Proof(ProofState.UNSIGNED, "Not proven: the job had no key to sign its manifest with.")
    return None


def judge(
    accepted: Mapping[str, object], copy: bytes | None, job: RunningJob | None, verifies: Verifies
) -> tuple[Proof, dict[str, object] | None]:
    """Return the verdict on a signed result, and the manifest at the place if it is genuine.

    :param accepted: the manifest, or its summary, that the task returned.
    :param copy: what is at the place; None if nothing is.
    :param job: what the task remembers of the job; None if Airflow has forgotten it.
    :param verifies: whether a manifest was written by a supervisor that was given the job.
    """
    if copy is None:
        return Proof(
            ProofState.UNKNOWN, "The manifest is not at the place any more; shown is what Airflow accepted."
        ), None
    if job is None:
        return Proof(
            ProofState.UNKNOWN, "Airflow does not remember the job, so its signature cannot be verified."
        ), None
    try:
        manifest = Manifest.from_json(copy)
        genuine = verifies(job, manifest) and manifest.submission_id == accepted.get("submission_id")
    except OscarProviderError:
        genuine = False
    if not genuine:
        words = (
            "Not proven: what lies at the place is not the manifest that the job signed. Somebody changed it; shown is "
            "what Airflow accepted when the job ended, and the outputs may be changed as well."
        )
        return Proof(ProofState.REFUTED, words), None
    whole = large_json.load(copy, constants=lambda _: None)
    return Proof(ProofState.PROVEN, "Proven: the manifest at the place bears the signature of this job."), whole
