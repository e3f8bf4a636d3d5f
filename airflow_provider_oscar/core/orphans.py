# SPDX-License-Identifier: Apache-2.0
"""What jobs may have left behind: pods that nobody removes or waits for, secrets and SLURM jobs without a pod."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from airflow_provider_oscar.core.cancellation import ended
from airflow_provider_oscar.core.podstatus import OWNER_LABEL, PodStatus, read_created
from airflow_provider_oscar.core.shapes import parse_json

#: What is younger may belong to a task that has not come to removing it.
OLDER_THAN = timedelta(hours=1)
#: How long a pod stays that was kept for people to look at.
KEEP_FOR = timedelta(days=7)
#: State of a task that Airflow does not have any more.
REMOVED = "removed"
#: States in which a task waits for no pod and will adopt none; any other, also one that a later Airflow brings, may.
_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", REMOVED})


@dataclass(frozen=True, slots=True)
class PodTask:
    """The task that a pod was made for.

    :param dag_id: of its DAG.
    :param run_id: of its run.
    :param task_id: of the task.
    :param map_index: -1 if the task is not mapped.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @classmethod
    def of(cls, pod: PodStatus) -> PodTask | None:
        """Read the annotation of a pod; None if it has none, or another form."""
        try:
            found = parse_json(pod.task)
        except ValueError:
            return None
        if not isinstance(found, Mapping):
            return None
        dag_id, run_id, task_id, index = (found.get(name) for name in ("dag_id", "run_id", "task_id", "map_index"))
        if not (isinstance(dag_id, str) and isinstance(run_id, str) and isinstance(task_id, str)):
            return None
        # A truth value is an int to Python.
        return cls(dag_id, run_id, task_id, index) if type(index) is int else None

    @property
    def name(self) -> str:
        """Its name among the tasks of its run, as Airflow's API has it."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}_{self.map_index}"

    def why_over(self, state: object) -> str:
        """Return why it waits for no pod in a state; empty if it may, as one that was cleared and has none."""
        if state is None or str(state) not in _OVER:
            return ""
        if str(state) == REMOVED:
            return f"task {self.name} of run {self.run_id} of DAG {self.dag_id} is not there any more"
        return f"its task {self.dag_id}.{self.name} is {state}"


#: Asks Airflow for the state of a task; None for one that was cleared, :data:`REMOVED` for one that is not there.
TaskState = Callable[[PodTask], object]


def why_left(pod: PodStatus, deployment_id: str, task_state: TaskState) -> str | None:
    """Return why no task waits for a pod; empty if one does; None if this Airflow cannot know, as for another's pod.

    :param pod: it.
    :param deployment_id: of this Airflow.
    :param task_state: asks this Airflow.
    """
    task = PodTask.of(pod)
    if task is None or not belongs_to(pod.owner, deployment_id):
        return None
    return task.why_over(task_state(task))


def belongs_to(owner: str, deployment_id: str) -> bool:
    """Whether a pod or secret was made by an Airflow.

    :param owner: value of its label; empty for what says no owner, which may be anybody's.
    :param deployment_id: of the Airflow.
    """
    return bool(deployment_id) and owner.partition(".")[0] == deployment_id


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """A secret without its contents.

    :param name: of the secret; that of its pod.
    :param created_at: when it was made, or None if that cannot be read.
    :param owner: value of the label that its pod has too; empty if it has none.
    """

    name: str
    created_at: datetime | None
    owner: str = ""

    @classmethod
    def from_api(cls, secret: Mapping[str, object]) -> SecretInfo:
        """Read a secret as the API gives it."""
        metadata = secret.get("metadata")
        found = metadata if isinstance(metadata, Mapping) else {}
        labels = found.get("labels")
        owner = labels.get(OWNER_LABEL) if isinstance(labels, Mapping) else None
        return cls(str(found.get("name") or ""), read_created(found.get("creationTimestamp")), str(owner or ""))


#: Further words with a state, for as long as a job that has it holds its nodes, be it ended or to start anew.
_STILL = frozenset(("COMPLETING", "STAGE_OUT"))


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """One job as SLURM sees it.

    :param job_id: its number.
    :param state: SLURM's word, such as ``RUNNING``.
    :param reason: why it waits, such as ``Priority``; may be empty.
    :param name: of the job.
    :param comment: what it was submitted with.
    :param submitted_at: when, or None if that cannot be read.
    :param partition: names of its partitions with commas, or empty.
    :param starts_at: when it started, or is estimated to; None if SLURM does not say.
    """

    job_id: str
    state: str
    reason: str = ""
    name: str = ""
    comment: str = ""
    submitted_at: datetime | None = None
    partition: str = ""
    starts_at: datetime | None = None

    @classmethod
    def from_api(cls, job: Mapping[str, object]) -> SlurmJob:
        """Read a job as any generation of SLURM's REST API gives it: a state is a word or a list of words, a time a
        number or ``{"set": …, "number": …}``.

        Of ``["CANCELLED", "COMPLETING"]`` the first generations say ``COMPLETING`` alone, and so does this.
        """
        state = job.get("job_state")
        words = [str(word) for word in state] if isinstance(state, list) else [str(state or "")]
        still = next((word for word in words if word in _STILL), "")
        reason = str(job.get("state_reason") or "")
        return cls(
            job_id=str(job.get("job_id") or ""),
            state=still or (words[0] if words else ""),
            reason="" if reason == "None" else reason,
            name=str(job.get("name") or ""),
            comment=str(job.get("comment") or ""),
            submitted_at=_seconds(job.get("submit_time")),
            partition=str(job.get("partition") or ""),
            starts_at=_seconds(job.get("start_time")),
        )


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something that no task will remove.

    :param kind: ``pod``, ``secret`` or ``slurm``.
    :param name: of it; the number of a SLURM job.
    :param age: how old it is, or None if that cannot be read.
    :param why: what makes it an orphan.
    :param slurm_job_id: of a pod, where known.
    :param active: it waits or runs, so that removing it cancels it.
    """

    kind: str
    name: str
    age: timedelta | None
    why: str
    slurm_job_id: str = ""
    active: bool = False


@dataclass(frozen=True, kw_only=True)
class RetentionLimits:
    """From which age on something counts as left behind.

    :param older_than: what is younger may still be in use.
    :param keep_for: how long pods stay that were kept by ``keep_pod``.
    """

    older_than: timedelta = OLDER_THAN
    keep_for: timedelta = KEEP_FOR


def find_orphans(
    pods: Iterable[PodStatus],
    secrets: Iterable[SecretInfo],
    *,
    deployment_id: str,
    now: datetime,
    limits: RetentionLimits = RetentionLimits(),  # noqa: B008 - frozen
    orphaned: Callable[[PodStatus], str | None] = lambda pod: None,
) -> list[Orphan]:
    """Return what was left behind by an Airflow, oldest first; what another made, or nobody knows who, is none of it.

    A task removes pod and secret within minutes of the job's end, so what is older was left by one that was killed. A
    pod whose task is known to wait for it is none of them, also if it has ended: a triggerer may be away, or the next
    try far. A pod that waits or runs is among them only if its task is known not to wait for it.

    :param pods: pods of this provider.
    :param secrets: secrets of this provider.
    :param deployment_id: of this Airflow.
    :param now: the time.
    :param limits: what is younger is passed over.
    :param orphaned: why no task waits for a pod; empty if one does; None if that is not known. See :func:`why_left`.
    """
    known = {pod.name: pod for pod in pods}
    found: list[Orphan] = []
    for pod in known.values():
        age = _age(pod.created_at, now)
        ours = belongs_to(pod.owner, deployment_id)
        if not ours or pod.deleting or _is_young(age, limits.keep_for if _was_kept(pod) else limits.older_than):
            continue
        why = orphaned(pod)
        if pod.phase.ended and why != "":
            why = f"it has {pod.phase.value} and nobody removed it"
            found.append(Orphan("pod", pod.name, age, why, pod.slurm_job_id))
        elif why:
            found.append(Orphan("pod", pod.name, age, why, pod.slurm_job_id, active=True))
    for secret in secrets:
        age = _age(secret.created_at, now)
        ours = belongs_to(secret.owner, deployment_id)
        if ours and secret.name not in known and not _is_young(age, limits.older_than):
            found.append(Orphan("secret", secret.name, age, "there is no pod of its name"))
    return _oldest_first(found)


def find_slurm_orphans(
    jobs: Iterable[SlurmJob],
    pods: Iterable[PodStatus],
    *,
    owner: str,
    now: datetime,
    older_than: timedelta = OLDER_THAN,
) -> list[Orphan]:
    """Return SLURM jobs that go on although their pod is gone: interLink lost the cancellation.

    :param jobs: what SLURM knows.
    :param pods: all pods of the namespace.
    :param owner: end of the comments of the jobs of this Airflow in this namespace, see :func:`slurm_owner`.
    :param now: the time.
    :param older_than: what is younger may have a pod that does not know its job yet.
    """
    known = {pod.slurm_job_id for pod in pods if pod.slurm_job_id}
    found: list[Orphan] = []
    for job in jobs:
        age = _age(job.submitted_at, now)
        ours = job.comment.startswith("airflow:") and job.comment.endswith(owner)
        # One whose age cannot be read is left alone: somebody's job would be lost.
        if ours and not ended(job.state) and job.job_id not in known and age is not None and age > older_than:
            why = f"it is {job.state} and its pod is gone"
            found.append(Orphan("slurm", job.job_id, age, why, job.job_id, active=True))
    return _oldest_first(found)


def slurm_owner(deployment_id: str, namespace: str) -> str:
    """Return how the comment of a SLURM job ends that was submitted by this Airflow through this namespace."""
    return f"@{deployment_id}/{namespace}"


def _was_kept(pod: PodStatus) -> bool:
    return pod.keep == "always" or (pod.keep == "on_failure" and pod.phase.value == "failed")


def _is_young(age: timedelta | None, limit: timedelta) -> bool:
    return age is not None and age <= limit


def _oldest_first(found: list[Orphan]) -> list[Orphan]:
    return sorted(found, key=lambda each: (-(each.age or timedelta.max).total_seconds(), each.kind, each.name))


def _age(created: datetime | None, now: datetime) -> timedelta | None:
    return None if created is None else max(now.astimezone(UTC) - created, timedelta(0))


def _seconds(value: object) -> datetime | None:
    number = value.get("number") if isinstance(value, Mapping) else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 1 << 40:
        return None
    return datetime.fromtimestamp(number, UTC)
