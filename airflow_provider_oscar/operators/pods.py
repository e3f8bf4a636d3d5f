# SPDX-License-Identifier: Apache-2.0
"""What the operators whose jobs are pods share: the pod itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

import msgspec

from airflow_provider_oscar.core.bounded_yaml import load_yaml
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.logs import LogPosition
from airflow_provider_oscar.core.orphans import slurm_owner
from airflow_provider_oscar.core.pod_merge import template_command, template_image
from airflow_provider_oscar.core.pod_options import PodOptions
from airflow_provider_oscar.core.pods import PodRequest, build_pod, label_value
from airflow_provider_oscar.core.podstatus import KEEP_LABEL, OWNER_LABEL, TASK_ANNOTATION
from airflow_provider_oscar.core.slurm import COMMENT_LIMIT, SlurmOptions, flag_text
from airflow_provider_oscar.jobs.lifecycle import JobLifecycle
from airflow_provider_oscar.jobs.options import Mode
from airflow_provider_oscar.jobs.pods import PodBackend, PodWork
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.status import JobStatus, JsonObject
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.operators.job_building import build_job
from airflow_provider_oscar.operators.job_state import load_state
from airflow_provider_oscar.operators.pod_callbacks import PodCallbacks
from airflow_provider_oscar.placement.targets import PlacementTarget

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback
    from airflow.sdk import Context

    from airflow_provider_oscar.jobs.manifest import Manifest


class PodJobOperator(JobOperator[PodWork]):
    """Base of the operators whose jobs are pods; arguments as of :class:`~.job.JobOperator`."""

    #: Set by the subclasses' constructors.
    image: str
    mode: Mode = "inline"
    pod_options: PodOptions = PodOptions()
    callbacks: Sequence[type[KubernetesPodOperatorCallback]] = ()
    _called_back: PodCallbacks | None = None
    _made = False

    def execute(self, context: Context) -> dict[str, object]:
        """Submit or adopt, and wait; return the manifest."""
        if self.pod_options.has_template:
            template = self.template()
            self.image = self.image or template_image(template)
            self.command = self.command or template_command(template)
            if not self.image or not self.command:
                raise DefinitionError(
                    f"the pod template of task {self.task_id!r} leaves image or command of the job's container open; "
                    "give them as arguments"
                )
        return super().execute(context)

    def begin(self, context: Context) -> RunningJob | dict[str, object]:
        """Submit or adopt the job, and tell the callbacks of a pod that was created."""
        self._made = False
        running = super().begin(context)
        if self._made and isinstance(running, RunningJob):
            self._calls(context).created(running.job_id)
        return running

    def execute_complete(
        self, context: Context, event: JsonObject | None = None, job: Mapping[str, object] | None = None
    ) -> dict[str, object]:
        """Go on after the trigger's event, and tell the callbacks."""
        running = RunningJob.from_stored(job) or load_state(context)
        if running is not None:
            self._calls(context).resuming(running.job_id, event or {})
        return super().execute_complete(context, event, job)

    def conclude(self, context: Context, job: RunningJob, event: JsonObject) -> dict[str, object] | None:
        """Return the manifest of a job that succeeded, and tell the callbacks what became of its pod."""
        calls = self._calls(context)
        try:
            return super().conclude(context, job, event)
        finally:
            calls.cleaned_up(job.job_id)

    def _calls(self, context: Context) -> PodCallbacks:
        if self._called_back is None:
            self._called_back = PodCallbacks(self.callbacks, self, cast("PodBackend", self.backend).hook, context)
        return self._called_back

    def _lifecycle(self, context: Context) -> JobLifecycle[PodWork]:
        made = super()._lifecycle(context)
        calls = self._calls(context)
        if calls:
            # What the trigger showed no callback has seen yet.
            made.show = lambda job, log: self._lines(calls, replace(job, log_lines=0) if self.deferrable else job, log)
            self.observer = calls
        return made

    def _lines(self, calls: PodCallbacks, job: RunningJob, log: str) -> None:
        """Show the callbacks the rest of a log."""
        calls.started(job.job_id)
        for line in LogPosition(job.log_lines).rest(log):
            calls.lines(job.job_id, [line])

    def _push(self, context: Context, job: RunningJob, status: JobStatus, manifest: Manifest | None) -> None:
        super()._push(context, job, status, manifest)
        calls = self._calls(context)
        if status.phase.ended:
            calls.started(job.job_id)
            calls.completed(job.job_id)

    def request(self) -> dict[str, object]:
        """Return what is asked for, the kind of supervisor and the pod's additions included."""
        added = self.pod_options.to_dict()
        return {**super().request(), "mode": self.mode, **({"pod_options": added} if added else {})}

    def template(self) -> Mapping[str, object]:
        """Return the pod that ``pod_options`` begins with, from its file if it names one.

        :raises DefinitionError: if the file cannot be read, or holds no pod.
        """
        path = self.pod_options.pod_template_file
        if not path:
            return self.pod_options.pod_template_dict
        try:
            with open(path, encoding="utf-8") as file:
                found = load_yaml(file)
        except (OSError, ValueError) as error:
            raise DefinitionError(f"pod_template_file {path!r} of task {self.task_id!r}: {error}") from error
        if not isinstance(found, Mapping) or "spec" not in found:
            raise DefinitionError(f"pod_template_file {path!r} of task {self.task_id!r} holds no pod: it has no 'spec'")
        return found

    @classmethod
    def for_target(cls, target: PlacementTarget, *, service: str, image: str, **arguments: Any) -> Self:
        """Return the task that does a placement's work in a pod of the image that it names."""
        if not image:
            raise DefinitionError(
                f"target {target.name!r} is of kind {target.kind!r}; say which image: placed(…, image=…)"
            )
        return cls(target=target, image=image, **arguments)  # type: ignore[call-arg]

    def is_signed(self) -> bool:
        """Whether the job signs its manifest; OSCAR's own supervisor does not."""
        return self.mode == "inline"

    def build_options(self) -> dict[str, Any]:
        """Return further arguments of the builder."""
        options = super().build_options()
        return {**options, "options": msgspec.structs.replace(options["options"], mode=self.mode)}

    def render_template(
        self,
        content: object,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> object:
        """Render as every operator does, and the texts within a placement target."""
        if isinstance(content, PlacementTarget):
            return content.rendered(lambda text: self.render_template(text, context, jinja_env))
        if isinstance(content, PodOptions):
            return content.rendered(lambda text: super(PodJobOperator, self).render_template(text, context, jinja_env))
        return super().render_template(content, context, jinja_env, seen_oids)

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
        supervised = build_job(self, job, placement=placement)
        ti = context["ti"]
        if backend.node:
            origin = f"{ti.dag_id}/{ti.task_id}/{context['run_id']}/{getattr(ti, 'try_number', 1)}"
            owner = flag_text(slurm_owner(job.deployment_id, backend.hook.namespace))
            comment = flag_text(f"airflow:{origin}", COMMENT_LIMIT - len(owner)) + owner
            slurm = (slurm or SlurmOptions()).named(job_name=f"{ti.dag_id}.{ti.task_id}", comment=comment)
        task = {"dag_id": ti.dag_id, "run_id": str(context["run_id"]), "task_id": ti.task_id}
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
            options=self.pod_options,
            template=self.template(),
            annotations={TASK_ANNOTATION: json.dumps({**task, "map_index": getattr(ti, "map_index", -1)})},
            labels={
                "airflow/dag_id": label_value(ti.dag_id),
                "airflow/task_id": label_value(ti.task_id),
                "airflow/placement": label_value(placement),
                OWNER_LABEL: label_value(job.owner),
                **({} if self.keep_pod == "never" else {KEEP_LABEL: self.keep_pod}),
            },
        )
        submitted_at = supervised.spec.submitted_at.isoformat()
        self._made = True
        pod = self._calls(context).manifest_created(build_pod(request), backend.node)
        return PodWork(pod, supervised.secret, submitted_at)
