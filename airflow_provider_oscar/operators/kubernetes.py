# SPDX-License-Identifier: Apache-2.0
"""Run a command in a pod on an ordinary node of Kubernetes, with the same supervisor and the same proof."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow_provider_oscar.base_arguments import OperatorArguments, checks_arguments
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.pod_options import PodOptions
from airflow_provider_oscar.core.resources import check_resources
from airflow_provider_oscar.jobs.kubernetes import KubernetesBackend
from airflow_provider_oscar.jobs.lifecycle import KeepPod
from airflow_provider_oscar.jobs.options import Mode, RunOptions
from airflow_provider_oscar.jobs.pods import PodWork
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.links import OutputLink
from airflow_provider_oscar.operators.job_arguments import Reuse
from airflow_provider_oscar.operators.pod_callbacks import checked_callbacks
from airflow_provider_oscar.operators.pods import PodJobOperator
from airflow_provider_oscar.placement.targets import PlacementTarget

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oscar.operators.pod_callbacks import Callbacks


class KubernetesJobOperator(PodJobOperator):
    """Runs one command on one object in a pod on any ordinary node, and returns the job's manifest.

    Unlike the operator of the same name of the official Kubernetes provider it stages the object in and the results
    out, adopts the pod of a former try, and believes the manifest instead of the pod's phase. Everything is as with
    ``InterLinkPodOperator``, but for the node.

    :param image: container image with Python 3.8 or later (templated); that of the pod template by default.
    :param command: program and arguments, run without a shell (templated); those of the pod template by default.
    :param output_uri: ``s3://bucket/prefix`` or ``dcache://conn_id/path``; results go below ``<pod name>/`` there
        (templated).
    :param object_event: the object to process: an ``ObjectEvent``, its dictionary, a sensor's list of one, or a
        template that gives one;
        by default the object of the run, if it is about exactly one; ``""`` for a command without input (templated).
    :param output_conn_id: connection that reaches ``output_uri`` (templated).
    :param environment: further variables of the command (templated); not for secrets.
    :param container_resources: limits of the pod as Kubernetes quantities, for example
        ``{"cpu": "2", "memory": "4Gi"}``; those of ``target`` by default.
    :param target: placement target of kind ``kubernetes`` that the task is for, or None.
    :param kubernetes_conn_id: connection of type ``kubernetes`` or ``interlink`` (templated).
    :param namespace: namespace of the pod (templated); default is the connection's.
    :param timeout: seconds (or a timedelta) after which the pod is deleted and the task fails; default from
        ``[oscar] job_timeout``; a shorter ``execution_timeout`` counts as well.
    :param queue_timeout: seconds (or a timedelta) after which the pod is deleted if it has not started, and the task
        fails so that it can be retried; None for never.
    :param poll_interval: seconds (or a timedelta) between two polls; default from ``[oscar] poll_interval``.
    :param deferrable: wait in the triggerer (default) instead of on a worker.
    :param reuse: ``"retries"`` (default): an automatic retry, and another run for the same object, take the job or
        result that is there; a task that a person cleared, or whose request has changed, runs again. ``"always"``: a
        cleared task takes them as well. ``"never"``: each try runs the job again.
    :param run_options: launcher, grace period, limit of bytes, and what becomes of outputs that cannot be staged out;
        ``RunOptions`` of :mod:`airflow_provider_oscar.jobs.options`.
    :param inputs: further objects, each as ``object_event`` may be, or a URI; one that ends with ``/`` stands for all
        objects below (templated); those of a run about several by default. With them ``INPUT_FILE_PATH`` is the
        directory of all.
    :param resume_from: files of a former job's checkpoint (templated); the command finds them in ``CHECKPOINT_DIR``.
        ``"previous-try"`` stands for what the task's own last try saved there before it failed or was interrupted.
    :param outputs: where outputs go by their names: ``{"*.png": "s3://pictures/run", "logs/*": "dcache://conn/path"}``
        (values templated). The first pattern that matches counts, ``*`` matches slashes too, and without a slash a
        pattern is matched against the last part of the name. Such files are below ``<its id>/`` there; the rest, log
        and manifest go to ``output_uri``, which ``""`` stands for. ``{"uri": …, "conn_id": …}`` names a connection.
    :param skip_on_exit_code: exit code of the command, or several, that leave the task in state ``skipped``: none by
        default. What the manifest does not prove, and what the supervisor itself reports, skips nothing.
    :param mode: ``inline``, this provider's supervisor; or ``faas-supervisor``, OSCAR's own beside the command, which
        needs the stores' credentials on the compute side and proves less: its manifest is not bound to the attempt.
    :param keep_pod: ``"never"`` (default), ``"on_failure"`` or ``"always"``: whether the pod of a job that has ended
        stays for people to look at, without its secret. Its log is in the output prefix in any case.
    :param pod_options: variables, volumes, containers, metadata and more of the pod, or a template of it (templated).
    :param callbacks: one or several ``KubernetesPodOperatorCallback`` classes, as the KubernetesPodOperator takes them;
        all are called on the worker, see docs/jobs.md.
    :raises DefinitionError: in the DAG file, for what Kubernetes would refuse.
    """

    template_fields: Sequence[str] = (
        "image",
        "command",
        "object_event",
        "inputs",
        "resume_from",
        "outputs",
        "output_uri",
        "output_conn_id",
        "environment",
        "kubernetes_conn_id",
        "namespace",
        "pod_options",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"object_event": "json", "environment": "json"}
    backend_fields = ("kubernetes_conn_id", "namespace")
    operator_extra_links = (OutputLink(),)
    ui_color = "#dbe7fb"

    @checks_arguments
    def __init__(
        self,
        *,
        output_uri: str,
        image: str = "",
        command: Sequence[str] | None = None,
        object_event: object = None,
        output_conn_id: str = "oscar_s3_default",
        environment: Mapping[str, str] | None = None,
        container_resources: Mapping[str, str] | None = None,
        target: PlacementTarget | None = None,
        kubernetes_conn_id: str = "kubernetes_default",
        namespace: str | None = None,
        timeout: timedelta | float | None = None,
        queue_timeout: timedelta | float | None = None,
        poll_interval: timedelta | float | None = None,
        deferrable: bool = True,
        reuse: Reuse = "retries",
        run_options: RunOptions | None = None,
        inputs: object = None,
        resume_from: object = None,
        outputs: Mapping[str, object] | None = None,
        skip_on_exit_code: int | Collection[int] | None = None,
        mode: Mode = "inline",
        keep_pod: KeepPod = "never",
        pod_options: PodOptions | None = None,
        callbacks: Callbacks = None,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(
            object_event=object_event,
            output_uri=output_uri,
            output_conn_id=output_conn_id,
            command=command,
            environment=environment,
            timeout=timeout,
            queue_timeout=queue_timeout,
            poll_interval=poll_interval,
            deferrable=deferrable,
            reuse=reuse,
            run_options=run_options,
            inputs=inputs,
            resume_from=resume_from,
            outputs=outputs,
            skip_on_exit_code=skip_on_exit_code,
            **kwargs,
        )
        if target is not None and target.kind != KubernetesBackend.name:
            raise DefinitionError(
                f"target {target.name!r} of task {self.task_id!r} is of kind {target.kind!r}; expected 'kubernetes'"
            )
        if not output_uri:
            raise DefinitionError(f"task {self.task_id!r} has no output_uri for its results")
        if (not image or not command) and not (pod_options and pod_options.has_template):
            raise DefinitionError(
                f"task {self.task_id!r} needs an image and a command, or a pod template that has them"
            )
        self.image = image
        self.mode = mode
        self.keep_pod = keep_pod
        self.pod_options = pod_options or PodOptions()
        self.callbacks = checked_callbacks(self.task_id, callbacks)
        resources = container_resources or (target.resources if target else {})
        self.container_resources = check_resources(resources, f"container_resources of task {self.task_id!r}")
        self.target = target
        self.kubernetes_conn_id = kubernetes_conn_id
        self.namespace = namespace

    @cached_property
    def backend(self) -> KubernetesBackend:
        """Pods of the namespace."""
        return self.backend_of(vars(self))

    @classmethod
    def backend_of(cls, arguments: Mapping[str, Any]) -> KubernetesBackend:
        """Return the pods of the namespace that arguments of such a task name."""
        return KubernetesBackend(conn_id=arguments["kubernetes_conn_id"], namespace=arguments["namespace"] or "")

    def request(self) -> dict[str, object]:
        """Return what is asked for, image and resources included."""
        return {**super().request(), "image": self.image, "resources": self.container_resources}

    def prepare(self, job: RunningJob, context: Context) -> PodWork:
        """Return the pod and its secret."""
        return self.build_work(
            job,
            context,
            backend=self.backend,
            placement=self.target.name if self.target else "",
            slurm=None,
            resources=self.container_resources,
        )
