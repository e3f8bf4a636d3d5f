# SPDX-License-Identifier: Apache-2.0
"""Run a command in a pod that interLink offloads to SLURM."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import msgspec

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, checks_arguments
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.pod_options import PodOptions
from airflow_provider_oscar.core.sbatch import interpreter, with_script
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.core.slurm_notations import is_node_range, time_limit
from airflow_provider_oscar.core.slurm_signals import check_signal
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.jobs.builder import JOB_FILE
from airflow_provider_oscar.jobs.host_script import HOST_IMAGE, HOST_MARK, SCRIPT_FILE, host_pre_exec, script_command
from airflow_provider_oscar.jobs.interlink import InterLinkBackend
from airflow_provider_oscar.jobs.lifecycle import KeepPod
from airflow_provider_oscar.jobs.options import Attachments, Mode, RunOptions
from airflow_provider_oscar.jobs.pods import PodWork
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.start_script import PROGRAM_FILE
from airflow_provider_oscar.links import OutputLink, SlurmJobLink
from airflow_provider_oscar.operators.job_arguments import Reuse, longest_seconds
from airflow_provider_oscar.operators.pod_callbacks import checked_callbacks
from airflow_provider_oscar.operators.pods import PodJobOperator
from airflow_provider_oscar.placement.targets import PlacementTarget

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context

    from airflow_provider_oscar.operators.pod_callbacks import Callbacks


class InterLinkPodOperator(PodJobOperator):
    """Runs one command on one object in a pod on a virtual node, and returns the job's manifest.

    The supervisor stages the object in and the results out with short-lived URLs, so that no storage credential
    reaches the HPC side. The same work has the same pod name on every retry: a pod that still runs is adopted, and
    one that succeeded before is not run again. Success is what the manifest proves, never the pod's phase. Pod and
    secret are deleted when log and manifest have been read, and when the task is killed, which cancels the SLURM job.

    :param image: container image with Python 3.8 or later, ``docker://…``, or the absolute path of a ``.sif`` file that
        the site has; that of the pod template by default.
    :param command: program and arguments, run without a shell; those of the pod template by default.
    :param object_event: the object to process: an ``ObjectEvent``, its dictionary, a sensor's list of one, or a
        template that gives one;
        by default the object of the run, if it is about exactly one; ``""`` for a command without input.
    :param output_uri: ``s3://bucket/prefix`` or ``dcache://conn_id/path``; results go below ``<pod name>/`` there.
    :param output_conn_id: connection that reaches ``output_uri``.
    :param environment: further variables of the command; not for secrets, the HPC side keeps them in clear.
    :param target: where to run: virtual node, SLURM options, resource limits (both templated).
    :param interlink_conn_id: connection of type ``interlink`` or ``kubernetes``.
    :param namespace: namespace of the pod (templated); default is the connection's.
    :param timeout: seconds (or a timedelta) after which the pod is deleted and the task fails, waiting in SLURM's
        queue included; by default ``[oscar] job_timeout`` and what it asks SLURM for together; a shorter
        ``execution_timeout`` counts as well.
    :param queue_timeout: seconds (or a timedelta) after which the pod is deleted if the job has not started, and the
        task fails so that it can be retried; None for never.
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
    :param script: text of a batch script as for ``sbatch``, which runs on the compute node without a container, instead
        of image and command (templated); its ``#SBATCH`` lines count where the target says nothing else. The site's
        Python (3.8 or later) runs the supervisor.
    :raises DefinitionError: in the DAG file, for what Kubernetes would refuse or interLink would mangle.
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
        "target",
        "interlink_conn_id",
        "namespace",
        "pod_options",
        "script",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"object_event": "json", "environment": "json"}
    backend_fields = ("interlink_conn_id", "namespace", "target")
    operator_extra_links = (SlurmJobLink(), OutputLink())
    ui_color = "#e4dcf5"

    command_at_parse_time: ClassVar[bool] = True
    """Whether the DAG file has to say the command; a subclass may find it out when it runs."""

    @checks_arguments
    def __init__(
        self,
        *,
        output_uri: str,
        image: str = "",
        command: Sequence[str] | None = None,
        target: PlacementTarget,
        object_event: object = None,
        output_conn_id: str = "oscar_s3_default",
        environment: Mapping[str, str] | None = None,
        interlink_conn_id: str = InterLinkHook.default_conn_name,
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
        script: str = "",
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
        if self.do_xcom_push is not True:
            raise DefinitionError(f"task {self.task_id!r} returns the manifest and needs do_xcom_push=True")
        if target.kind != InterLinkBackend.name or not target.node:
            raise DefinitionError(
                f"target {target.name!r} of task {self.task_id!r} is of kind {target.kind!r} on node {target.node!r}; "
                "expected kind 'interlink' and the name of a virtual node"
            )
        if not output_uri:
            raise DefinitionError(f"task {self.task_id!r} has no output_uri for its results")
        if script and (image or command or pod_options or mode != "inline"):
            raise DefinitionError(
                f"task {self.task_id!r} has a script, which runs without a container and its arguments"
            )
        whole = image and (command or not self.command_at_parse_time)
        if not script and not whole and not (pod_options and pod_options.has_template):
            raise DefinitionError(
                f"task {self.task_id!r} needs image and command, a pod template that has them, or a script"
            )
        if isinstance(script, str) and script and not script.startswith("{"):
            interpreter(script)  # what sbatch would refuse is said in the DAG file
        self.script = script
        self.image = image
        self.mode = mode
        self.keep_pod = keep_pod
        self.pod_options = pod_options or PodOptions()
        self.callbacks = checked_callbacks(self.task_id, callbacks)
        self.target = target
        self.interlink_conn_id = interlink_conn_id
        self.namespace = namespace

    @cached_property
    def backend(self) -> InterLinkBackend:
        """Pods of the namespace on the virtual node."""
        return self.backend_of(vars(self))

    @classmethod
    def backend_of(cls, arguments: Mapping[str, Any]) -> InterLinkBackend:
        """Return the pods of the virtual node that arguments of such a task name."""
        target: PlacementTarget = arguments["target"]
        partition = "" if target.slurm is None else target.slurm.partition
        return InterLinkBackend(
            conn_id=arguments["interlink_conn_id"],
            namespace=arguments["namespace"] or "",
            node=target.node,
            partition="" if "{" in partition else partition,
        )

    @property
    def hook(self) -> InterLinkHook:
        """The hook of the connection."""
        return self.backend.hook

    def request(self) -> dict[str, object]:
        """Return what is asked for, image and place included; not what helps to choose the place."""
        added = {"script": self.script} if self.script else {}
        whole = asdict(self.target)
        target = {name: whole[name] for name in ("name", "kind", "node", "slurm", "resources")}
        return {**super().request(), "image": self.image, "target": target, **added}

    def prepare(self, job: RunningJob, context: Context) -> PodWork:
        """Return the pod and its secret."""
        target = self.target
        work = self.build_work(
            job,
            context,
            backend=self.backend,
            placement=target.name,
            slurm=self._slurm(),
            resources=target.resources,
        )
        return replace(work, secret={**work.secret, HOST_MARK: "1"}) if self.script else work

    def execute(self, context: Context) -> dict[str, object]:
        """Submit or adopt, and wait; return the manifest."""
        if self.script:
            with airflow_errors():
                self.check_rendered()
                self.image, self.command = HOST_IMAGE, script_command(self.script)
        return super().execute(context)

    def timeout_seconds(self) -> float:
        """Return the seconds after which the job is cancelled; by default a queue takes nothing from its run."""
        limit = self.execution_timeout if self.deferrable else None
        return longest_seconds(self.timeout, limit, run_time=time_limit((self._slurm() or SlurmOptions()).time))

    def build_options(self) -> dict[str, object]:
        """Return further arguments of the builder; a launcher starts what SLURM is asked for."""
        options = super().build_options()
        if self.script:
            found = options["attachments"]
            given = found if isinstance(found, Attachments) else Attachments()
            options = {
                **options,
                "attachments": replace(given, files={SCRIPT_FILE: self.script.encode("utf-8", "surrogateescape")}),
            }
        wanted: RunOptions = options["options"]
        slurm = self.target.slurm
        if slurm is None or wanted.launcher == "none":
            return options
        counts: dict[str, Any] = {
            name: int(given)
            for name in ("nodes", "ntasks", "ntasks_per_node")
            # Of a range of nodes SLURM says to the job how many it has got.
            if getattr(wanted, name) is None
            and (given := getattr(slurm, name)) is not None
            and not is_node_range(given)
        }
        return {**options, "options": msgspec.structs.replace(wanted, **counts)}

    def render_template(
        self,
        content: object,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> object:
        """Render as every operator does; ``${#…}`` in a script is the shell's, and no comment of Jinja's."""
        if isinstance(content, str) and content and content == self.script:
            content = content.replace("{#", "{{ '{#' }}")
        return super().render_template(content, context, jinja_env, seen_oids)

    def _slurm(self) -> SlurmOptions | None:
        """Ask SLURM for the nodes and processes that the launcher will start, where the options leave it open."""
        wanted, slurm = self.run_options, self.target.slurm
        if self.script:
            slurm = with_script(slurm or SlurmOptions(), self.script)
            slurm = replace(slurm, pre_exec=f"{slurm.pre_exec}\n{host_pre_exec(JOB_FILE, PROGRAM_FILE)}")
        if slurm is not None:
            check_signal(slurm.extra_flags, steps=bool(self.script) or wanted.launcher != "none")
        counts = {
            name: getattr(wanted, name)
            for name in ("nodes", "ntasks", "ntasks_per_node")
            if getattr(wanted, name) is not None and getattr(slurm, name, None) is None
        }
        if wanted.launcher == "none" or not counts:
            return slurm
        return replace(slurm or SlurmOptions(), **counts)

    def set_link_urls(self, job: RunningJob, slurm_job_id: str) -> None:
        """Note the URLs of the extra links."""
        super().set_link_urls(job, slurm_job_id)
        pattern = str(self.hook.connection.extra_dejson.get("slurm_job_url") or "")
        if slurm_job_id.isdigit() and pattern.startswith(("https://", "http://")):
            self.link_urls[SlurmJobLink.name] = pattern.replace("{job_id}", slurm_job_id)
