# SPDX-License-Identifier: Apache-2.0
"""Finds and removes what killed tasks left on a cluster: pods, secrets that outlived their pods, SLURM jobs as well.

The rules of what counts are those of :mod:`airflow_provider_oscar.core.orphans`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_provider_oscar.core.cancellation import ended
from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.core.orphans import (
    Orphan,
    RetentionLimits,
    TaskState,
    find_orphans,
    find_slurm_orphans,
    slurm_owner,
    why_left,
)
from airflow_provider_oscar.hooks.interlink.cancel import cancel_pod, end_of_slurm_job
from airflow_provider_oscar.hooks.interlink.hook import OURS, InterLinkHook

#: Copies the log of a pod, in pieces, and returns where it is now.
SaveLog = Callable[[str, Iterable[bytes]], str]


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of one orphan.

    :param orphan: it.
    :param outcome: what was done and seen, in one sentence.
    :param gone: it is not there any more.
    """

    orphan: Orphan
    outcome: str
    gone: bool


def select_orphans(
    hook: InterLinkHook,
    *,
    task_state: TaskState,
    deployment_id: str,
    limits: RetentionLimits = RetentionLimits(),  # noqa: B008 - frozen
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Orphan]:
    """Return what was left in the hook's namespace, and at the SLURM that its connection names.

    :param hook: of the connection and namespace.
    :param task_state: asks this Airflow for the task that a pod was made for.
    :param deployment_id: of this Airflow, whose tasks are asked for; what another Airflow made is passed over.
    :param limits: what is younger is passed over.
    :param now: the clock.
    """
    # Secrets first: one that is made between the two lists has its pod in the second, or is too young.
    secrets = hook.list_secrets()
    # SLURM's jobs before the pods for the same reason.
    jobs = [] if hook.slurm is None else hook.slurm.jobs()
    pods = hook.list_pods(label_selector=OURS)
    found = find_orphans(
        pods,
        secrets,
        deployment_id=deployment_id,
        now=now(),
        limits=limits,
        orphaned=lambda pod: why_left(pod, deployment_id, task_state),
    )
    owner = slurm_owner(deployment_id, hook.namespace)
    return found + find_slurm_orphans(jobs, pods, owner=owner, now=now(), older_than=limits.older_than)


def remove(hook: InterLinkHook, orphans: Iterable[Orphan], save_log: SaveLog) -> list[Removal]:
    """Remove orphans, the log of a pod saved first; one that cannot be removed stops no other.

    :param hook: of the connection and namespace.
    :param orphans: what :func:`select_orphans` returned.
    :param save_log: copies a log; a pod whose log cannot be copied stays.
    """
    done: list[Removal] = []
    for orphan in orphans:
        try:
            done.append(_remove(hook, orphan, save_log))
        except (OscarProviderError, OSError) as error:
            done.append(Removal(orphan, f"left there: {error}", gone=False))
    return done


def _remove(hook: InterLinkHook, orphan: Orphan, save_log: SaveLog) -> Removal:
    if orphan.kind == "secret":
        there = hook.delete_secret(orphan.name)
        return Removal(orphan, "deleted" if there else "was not there any more", gone=True)
    if orphan.kind == "slurm":
        state = end_of_slurm_job(hook, orphan.name, patience=20.0)
        state_text = "cannot be asked what became of it" if state is None else state or "does not know it any more"
        return Removal(orphan, f"cancelled; SLURM: {state_text}", gone=state is not None and ended(state))
    saved = save_log(orphan.name, hook.log_chunks(orphan.name))
    log_words = f"; its log is {saved}" if saved else "; it had no log"
    if orphan.active:
        known = cancel_pod(hook, orphan.name)
        return Removal(orphan, f"{known}{log_words}", gone=known.verified)
    there = hook.delete_pod(orphan.name)
    return Removal(orphan, ("deleted" if there else "was not there any more") + log_words, gone=True)
