# SPDX-License-Identifier: Apache-2.0
"""What a job may have left behind on a cluster: pods that ended and were not removed, secrets without a pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from airflow_provider_oscar.core.podstatus import PodStatus, read_created


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """A secret without its contents.

    :param name: of the secret; that of its pod.
    :param created_at: when it was made, or None if that cannot be read.
    """

    name: str
    created_at: datetime | None

    @classmethod
    def from_api(cls, secret: Mapping[str, object]) -> SecretInfo:
        """Read a secret as the API gives it."""
        metadata = secret.get("metadata")
        found = metadata if isinstance(metadata, Mapping) else {}
        return cls(str(found.get("name") or ""), read_created(found.get("creationTimestamp")))


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something that no task will remove.

    :param kind: ``pod`` or ``secret``.
    :param name: of it.
    :param age: how old it is, or None if that cannot be read.
    :param why: what makes it an orphan.
    :param slurm_job_id: of a pod, where known.
    """

    kind: str
    name: str
    age: timedelta | None
    why: str
    slurm_job_id: str = ""


def find_orphans(
    pods: Iterable[PodStatus],
    secrets: Iterable[SecretInfo],
    *,
    now: datetime,
    older_than: timedelta,
) -> list[Orphan]:
    """Return what was left behind, oldest first.

    A task removes pod and secret within minutes of the job's end, so what is older was left by one that was killed. A
    pod that waits or runs is never among them: its task may just be deferred.

    :param pods: pods of this provider.
    :param secrets: secrets of this provider.
    :param now: the time.
    :param older_than: what is younger may still be in use.
    """
    known = {pod.name: pod for pod in pods}
    found: list[Orphan] = []
    for pod in known.values():
        age = _age(pod.created_at, now)
        if pod.phase.ended and not pod.deleting and (age is None or age > older_than):
            why = f"it has {pod.phase.value} and nobody removed it"
            found.append(Orphan("pod", pod.name, age, why, pod.slurm_job_id))
    for secret in secrets:
        age = _age(secret.created_at, now)
        if secret.name not in known and (age is None or age > older_than):
            found.append(Orphan("secret", secret.name, age, "there is no pod of its name"))
    return sorted(found, key=lambda each: (-(each.age or timedelta.max).total_seconds(), each.kind, each.name))


def _age(created: datetime | None, now: datetime) -> timedelta | None:
    return None if created is None else max(now.astimezone(UTC) - created, timedelta(0))
