# SPDX-License-Identifier: Apache-2.0
"""Cancel a pod, and see whether pod and SLURM job are gone.

interLink's virtual node sends a deletion once and does not look back (interLink #540), so that a SLURM job can outlive
its pod.
"""

from __future__ import annotations

import logging
from itertools import chain, repeat

from airflow_provider_oscar.core.cancellation import ABSENT_BEFORE, Cancellation, ended, judge
from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

log = logging.getLogger(__name__)


def cancel_pod(hook: InterLinkHook, name: str, *, patience: float = 30.0) -> Cancellation:
    """Delete pod and secret, and look whether the pod, and SLURM's job if SLURM can be asked, are gone.

    :param hook: of the connection and namespace.
    :param name: of the pod.
    :param patience: seconds within which they should be gone.
    """
    pod = hook.read_pod(name)
    if not hook.delete_pod(name):
        return ABSENT_BEFORE
    gone, waited = False, 0.0
    for pause in chain((0.2, 0.5, 1.0), repeat(2.0)):
        gone = _is_gone(hook, name)
        if gone or waited >= patience:
            break
        hook.sleep(pause)
        waited += pause
    number = pod.slurm_job_id if pod is not None else ""
    # What ended by itself needs no cancelling.
    if not gone or not number or (pod is not None and pod.phase.ended):
        return judge(found=True, pod_gone=gone)
    state = end_of_slurm_job(hook, number, patience=max(patience - waited, 4.0))
    return judge(found=True, pod_gone=gone, slurm_job_id=number, slurm_state=state, asked_slurm=state is not None)


def end_of_slurm_job(hook: InterLinkHook, job_id: str, *, patience: float) -> str | None:
    """Return SLURM's word for a job that should end; empty if it does not know it, None if it cannot be asked.

    A job that does not end within half of the patience is cancelled at SLURM itself.

    :param hook: whose connection says how to ask SLURM.
    :param job_id: SLURM's number.
    :param patience: seconds to wait for its end.
    """
    slurm = hook.slurm
    if slurm is None or not (job_id.isascii() and job_id.isdigit()):
        return None
    waited, warned = 0.0, False
    try:
        while True:
            job = slurm.job(job_id)
            state = "" if job is None else job.state
            if ended(state) or waited >= patience:
                return state
            if waited >= patience / 2 and not warned:
                log.warning("SLURM job %s goes on although its pod was deleted; SLURM itself is told to end it", job_id)
                slurm.cancel(job_id)
                warned = True
            hook.sleep(1.0)
            waited += 1.0
    except OscarProviderError as error:
        log.warning("What became of SLURM job %s cannot be seen: %s", job_id, error)
        return None


def _is_gone(hook: InterLinkHook, name: str) -> bool:
    try:
        return hook.read_pod(name) is None
    except OscarProviderError as error:
        log.info("Whether pod %s is gone cannot be seen: %s", name, error)
        return False
