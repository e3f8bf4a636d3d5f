# SPDX-License-Identifier: Apache-2.0
"""Run a command in a pod that interLink offloads to SLURM (or that Kubernetes runs itself)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.pods import PodRequest, build_pod, label_value
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.links import OutputLink, SlurmJobLink
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.operators.job_state import RunningJob
from airflow_provider_oscar.placement.targets import PlacementTarget, TargetKind
from airflow_provider_oscar.triggers.interlink import InterLinkPodTrigger, pod_view
from airflow_provider_oscar.triggers.jobs import JobTrigger
from airflow_provider_oscar.triggers.shared_poll import JobView

if TYPE_CHECKING:
    from airflow.sdk import Context


class InterLinkPodOperator(JobOperator):
    """Runs one command on one object in a pod on a virtual node, and returns the job's manifest.

    The supervisor stages the object in and the results out with short-lived URLs, so that no storage credential
    reaches the HPC side. The same work has the same pod name on every retry: a pod that still runs is adopted, and
    one that succeeded before is not run again. Success is what the manifest proves, never the pod's phase. Pod and
    secret are deleted when log and manifest have been read, and when the task is killed, which cancels the SLURM job.

    :param image: container image with Python 3.8 or later; for interLink also ``docker://…`` or the absolute path of
        a ``.sif`` file.
    :param command: program and arguments, run without a shell.
    :param object_event: the object to process: an ``ObjectEvent``, its dictionary, or a template that gives one;
        None for a command without input.
    :param output_uri: ``s3://bucket/prefix`` or ``dcache://conn_id/path``; results go below ``<pod name>/`` there.
    :param output_conn_id: connection that reaches ``output_uri``.
    :param environment: further variables of the command; not for secrets, the HPC side keeps them in clear.
    :param target: where to run: virtual node, SLURM options, resource limits. None for an ordinary node.
    :param interlink_conn_id: connection of type ``interlink`` or ``kubernetes``.
    :param namespace: name space of the pod; default is the connection's.
    :param timeout: seconds (or a timedelta) after which the pod is deleted and the task fails, waiting in SLURM's
        queue included; default from ``[oscar] job_timeout``.
    :param poll_interval: seconds between two looks; default from ``[oscar] poll_interval``.
    :param deferrable: wait in the triggerer (default) instead of on a worker.
    :raises DefinitionError: in the DAG file, for what Kubernetes would refuse or interLink would mangle.
    """

    template_fields: Sequence[str] = (
        "image",
        "command",
        "object_event",
        "output_uri",
        "output_conn_id",
        "environment",
        "interlink_conn_id",
        "namespace",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"object_event": "json", "environment": "json"}
    operator_extra_links = (SlurmJobLink(), OutputLink())
    ui_color = "#e4dcf5"

    def __init__(
        self,
        *,
        image: str,
        command: Sequence[str],
        output_uri: str,
        object_event: Any = None,
        output_conn_id: str = "oscar_s3_default",
        environment: Mapping[str, str] | None = None,
        target: PlacementTarget | None = None,
        interlink_conn_id: str = InterLinkHook.default_conn_name,
        namespace: str | None = None,
        timeout: timedelta | float | None = None,
        poll_interval: float | None = None,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.do_xcom_push is not True:
            raise DefinitionError(f"task {self.task_id!r} returns the manifest and needs do_xcom_push=True")
        if target is not None and target.kind is not TargetKind.INTERLINK:
            raise DefinitionError(
                f"target {target.name!r} of task {self.task_id!r} is of kind '{target.kind}'; expected 'interlink'"
            )
        if not output_uri:
            raise DefinitionError(f"task {self.task_id!r} has no output_uri for its results")
        self.image = image
        self.target = target
        self.interlink_conn_id = interlink_conn_id
        self.namespace = namespace
        self._common(
            object_event=object_event,
            output_uri=output_uri,
            output_conn_id=output_conn_id,
            command=command,
            environment=environment,
            timeout=timeout,
            poll_interval=poll_interval,
            deferrable=deferrable,
        )

    @cached_property
    def hook(self) -> InterLinkHook:
        """The hook of the connection."""
        return InterLinkHook(self.interlink_conn_id, namespace=self.namespace or None)

    @property
    def where(self) -> str:
        node = f"node {self.target.node!r}" if self.target else "Kubernetes"
        return f"{node} (connection {self.interlink_conn_id!r}, namespace {self.hook.namespace!r})"

    def submit(self, job: RunningJob, context: Context) -> RunningJob:
        pod, secret, submitted_at = self.pod(job, context)
        made = self.hook.create_or_adopt_pod(pod, secret)
        self.log.info("Pod %s on %s was %s", job.job_id, self.where, "created" if made else "adopted")
        return replace(job, submitted_at=submitted_at if made else "")

    def pod(self, job: RunningJob, context: Context) -> tuple[dict[str, Any], Mapping[str, str], str]:
        """Return the pod, the contents of its secret, and when it is submitted."""
        target = self.target
        supervised = self.build(job, placement=target.name if target else "")
        ti = context["ti"]
        request = PodRequest(
            name=job.job_id,
            namespace=self.hook.namespace,
            image=self.image,
            node=target.node if target else "",
            command=supervised.command,
            args=supervised.args,
            env=supervised.env,
            secret_name=job.job_id,
            secret_mount_path=supervised.secret_mount_path,
            empty_dirs=supervised.empty_dirs,
            init_containers=supervised.init_containers,
            slurm=target.slurm if target else None,
            resources=target.resources if target else {},
            labels={
                "airflow/dag_id": label_value(ti.dag_id),
                "airflow/task_id": label_value(ti.task_id),
                "airflow/placement": label_value(target.name if target else ""),
            },
        )
        return build_pod(request), supervised.secret, str(supervised.spec.to_dict()["submitted_at"])

    def look(self, job_id: str) -> JobView:
        return pod_view(self.hook.read_pod(job_id))

    def read_log(self, job_id: str) -> str | None:
        return self.hook.read_log(job_id)

    def cancel(self, job_id: str) -> bool:
        return self.hook.delete_pod(job_id)

    def clear_away(self, job_id: str) -> None:
        self.hook.delete_pod(job_id)
        self.hook.await_deleted(job_id)

    def tidy(self, job_id: str) -> None:
        self.hook.delete_pod(job_id)

    def trigger(self, job: RunningJob, settled: dict[str, Any] | None) -> JobTrigger[Any]:
        return InterLinkPodTrigger(
            conn_id=self.interlink_conn_id,
            namespace=self.hook.namespace,
            job_id=job.job_id,
            deadline=job.deadline,
            poll_interval=self.interval,
            settled=settled,
        )

    def note_links(self, job: RunningJob, slurm_job_id: str) -> None:
        super().note_links(job, slurm_job_id)
        pattern = str(self.hook.connection.extra_dejson.get("slurm_job_url") or "")
        if slurm_job_id.isdigit() and pattern.startswith(("https://", "http://")):
            self.link_urls[SlurmJobLink.name] = pattern.replace("{job_id}", slurm_job_id)
