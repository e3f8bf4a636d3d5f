# SPDX-License-Identifier: Apache-2.0
"""Who may say that a job succeeded: the signature of a manifest, and the keys it is made with.

Each submission has a key of its own, derived from a master key that only Airflow knows, so that nothing has to be
stored and a retry on another worker derives it again. The supervisor gets it in the job specification and signs the
manifest; the command never sees it. A manifest put at the computable place beforehand, a marker line printed by the
command, and the manifest of another attempt or request do not verify, and count as none.

The format of the signature is that of ``supervisor/manifest.py``, which shares no code with this module.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from airflow.sdk import conf

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.times import read_iso
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.running import RunningJob

_DIGEST_LENGTH = 32
_DEPLOYMENT_LENGTH = 8
#: Beside it, the label of an owner has a request's digest and a generation, in 63 characters.
_DEPLOYMENT_NAME = re.compile("[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?")


@dataclass(frozen=True)
class Signer:
    """Derives the keys of one deployment.

    :param masters: master keys, the newest first; it signs, and all verify, so that keys can be rotated.
    :raises DefinitionError: without a master key.
    """

    masters: tuple[bytes, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.masters or not all(self.masters):
            raise DefinitionError(
                "there is no key to sign job results with; set [oscar] signing_key (or [core] fernet_key) to the same "
                "secret on workers and triggerers"
            )

    @classmethod
    def from_setting(cls, text: str) -> Signer:
        """Read the setting: one key, or several with commas between them, the newest first."""
        return cls(tuple(part.strip().encode() for part in text.split(",") if part.strip()))

    def key(self, job: RunningJob) -> str:
        """Return the key that signs the job's manifest, in hexadecimal digits."""
        return _derive(self.masters[0], job).hex()

    def keys(self, job: RunningJob) -> list[str]:
        """Return the keys that may sign the job's manifest, the newest first."""
        return [_derive(master, job).hex() for master in self.masters]

    def verifies(self, job: RunningJob, manifest: Manifest) -> bool:
        """Whether the manifest was written by a supervisor that was given this very job."""
        kind, _, signature = manifest.signature.partition(":")
        if kind != "hmac-sha256":
            return False
        keys = (_derive(master, job) for master in self.masters)
        made = (hmac.new(key, manifest.canonical, hashlib.sha256).hexdigest() for key in keys)
        return any(hmac.compare_digest(each.encode(), signature.encode()) for each in made)

    @property
    def deployment_id(self) -> str:
        """A name of this Airflow where none is configured; the oldest key counts, so that it survives a new one."""
        return hashlib.sha256(b"deployment\0" + self.masters[-1]).hexdigest()[:_DEPLOYMENT_LENGTH]


def configured_signer() -> Signer:
    """Return the signer of this Airflow's configuration: ``[oscar] signing_key``, else ``[core] fernet_key``."""
    configured = conf.get("oscar", "signing_key", fallback="") or conf.get("core", "fernet_key", fallback="")
    return Signer.from_setting(configured or "")


def configured_deployment_id() -> str:
    """Return the name of this Airflow: ``[oscar] deployment_id``, else one that follows from its key."""
    named = conf.get("oscar", "deployment_id", fallback="")
    return deployment_name(named) if named else configured_signer().deployment_id


def deployment_name(text: str) -> str:
    """Return a deployment's name as labels and names of jobs can carry it whole, so that no two become equal.

    :param text: as it is configured: used as it is if it has at most 24 small letters, digits and hyphens.
    """
    if _DEPLOYMENT_NAME.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DEPLOYMENT_LENGTH]
    readable = re.sub("[^a-z0-9]+", "-", text.lower())[:15].strip("-")
    return f"{readable}-{digest}".lstrip("-")


def proves(
    job: RunningJob,
    manifest: Manifest | None,
    verifies: Callable[[RunningJob, Manifest], bool] = lambda job, manifest: True,
    *,
    ended: bool,
) -> bool:
    """Whether what lies in the manifest's place ends the waiting for a job.

    :param job: the submission.
    :param manifest: from its place, if there is one.
    :param verifies: as for :func:`is_authentic`.
    :param ended: the job has ended where it ran. While it has not, a manifest that says that it was killed does not
        count: SLURM lets a job start again that it took back.
    """
    return manifest is not None and (ended or not manifest.killed) and is_authentic(job, manifest, verifies)


def is_authentic(
    job: RunningJob, manifest: Manifest, verifies: Callable[[RunningJob, Manifest], bool] = lambda job, manifest: True
) -> bool:
    """Whether a manifest speaks of this submission and was written by who was given it.

    :param job: the submission.
    :param manifest: from its place, or from a log.
    :param verifies: checks the signature; all count where jobs are given no key.
    """
    if manifest.submission_id != job.submission_id:
        return False
    try:
        submitted = read_iso(job.submitted_at)
    except ValueError:
        submitted = None
    if submitted is not None and manifest.submitted_at is not None and manifest.submitted_at < submitted:
        return False
    return verifies(job, manifest)


def request_digest(request: Mapping[str, object]) -> str:
    """Return a digest of what is asked for: equal for equal requests, whatever the order of their fields.

    :param request: JSON-able; what JSON cannot hold counts by its text.
    """
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), default=_digestible)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]


def _digestible(value: object) -> object:
    """Return what JSON takes; the elements of a set in an order, since its own is another in each process."""
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


def _derive(master: bytes, job: RunningJob) -> bytes:
    parts = ("manifest", job.submission_id, job.request_digest, str(job.generation))
    return hmac.new(master, "\0".join(parts).encode(), hashlib.sha256).digest()
