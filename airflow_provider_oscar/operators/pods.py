# SPDX-License-Identifier: Apache-2.0
"""What the operators whose jobs are pods share: the pod itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_provider_oscar.core.pods import PodRequest, build_pod, label_value
from airflow_provider_oscar.core.podstatus import OWNER_LABEL
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.jobs.pods import PodBackend, PodWork
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.operators.job import JobOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class PodJobOperator(JobOperator[PodWork]):
    """Base of the operators whose jobs are pods; arguments as of :class:`~.job.JobOperator`."""

    #: Set by the subclasses' constructors.
    image: str

    def build_work(
        self,
        job: RunningJob,
        context: Context,
        *,
        backend: PodBackend,
        placement: str,
        slurm: SlurmOptions | None,
        resources: Mapping[str, str],
    ) -> PodWork:
        """Return the pod and its secret.

        :param job: the job it is.
        :param context: of the task.
        :param backend: where it runs.
        :param placement: name of the placement target, for labels and the manifest.
        :param slurm: SLURM options, for a virtual node.
        :param resources: limits, as Kubernetes quantities.
        """
        supervised = self.build(job, placement=placement)
        ti = context["ti"]
        request = PodRequest(
            name=job.job_id,
            namespace=backend.hook.namespace,
            image=self.image,
            node=backend.node,
            command=supervised.command,
            args=supervised.args,
            env=supervised.env,
            secret_name=job.job_id,
            secret_mount_path=supervised.secret_mount_path,
            empty_dirs=supervised.empty_dirs,
            init_containers=supervised.init_containers,
            slurm=slurm,
            resources=resources,
            labels={
                "airflow/dag_id": label_value(ti.dag_id),
                "airflow/task_id": label_value(ti.task_id),
                "airflow/placement": label_value(placement),
                OWNER_LABEL: label_value(job.owner),
            },
        )
        submitted_at = str(supervised.spec.to_dict()["submitted_at"])
        return PodWork(build_pod(request), supervised.secret, submitted_at)
