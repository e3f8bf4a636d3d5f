# SPDX-License-Identifier: Apache-2.0
"""Waits for a pod on interLink's virtual node; one list of pods per name space and triggerer.

The Kubernetes client blocks, so it works in threads; listing keeps their number independent of the
number of waiting tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.podstatus import PodStatus
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.triggers.jobs import JobArguments, JobTrigger
from airflow_provider_oscar.triggers.shared_poll import JobSource, JobView, OpenSource

#: Label that :func:`~airflow_provider_oscar.core.pods.build_pod` gives every pod.
_OURS = "app.kubernetes.io/managed-by=airflow-provider-oscar"


@dataclass(frozen=True, kw_only=True)
class InterLinkPodArguments(JobArguments):
    """Arguments of :class:`InterLinkPodTrigger`; those of ``JobArguments``, and:

    :param namespace: name space of the pod.
    """

    namespace: str


class InterLinkPodTrigger(JobTrigger[InterLinkPodArguments]):
    """Waits until a pod has ended, and shows its log meanwhile.

    Arguments: see :class:`InterLinkPodArguments`.
    """

    arguments_type = InterLinkPodArguments

    def poll_key(self) -> Hashable:
        return ("interlink", self.arguments.conn_id, self.arguments.namespace)

    def source(self) -> OpenSource:
        conn_id, namespace = self.arguments.conn_id, self.arguments.namespace

        @asynccontextmanager
        async def opened() -> AsyncIterator[JobSource]:
            yield _Pods(await InterLinkHook.resolved(conn_id, namespace=namespace))

        return opened

    async def cancel_job(self) -> bool:
        hook = await InterLinkHook.resolved(self.arguments.conn_id, namespace=self.arguments.namespace)
        return await asyncio.to_thread(hook.delete_pod, self.arguments.job_id)


@dataclass(frozen=True)
class _Pods:
    hook: InterLinkHook

    async def snapshot(self) -> Mapping[str, JobView]:
        pods = await asyncio.to_thread(self.hook.list_pods, label_selector=_OURS)
        return {pod.name: pod_view(pod) for pod in pods}

    async def read_log(self, job: str) -> str | None:
        return await asyncio.to_thread(self.hook.read_log, job)


def pod_view(pod: PodStatus | None) -> JobView:
    """Return one look at a pod; a pod that is being removed counts as not there."""
    if pod is None or (pod.deleting and pod.phase not in (JobPhase.SUCCEEDED, JobPhase.FAILED)):
        return JobView(JobPhase.ABSENT)
    return JobView(
        phase=pod.phase,
        note=pod.reason,
        slurm_job_id=pod.slurm_job_id,
        node=pod.node,
        exit_code=pod.exit_code,
    )
