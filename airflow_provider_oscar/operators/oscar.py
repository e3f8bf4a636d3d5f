# SPDX-License-Identifier: Apache-2.0
"""Run a job of an OSCAR service."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

from airflow_provider_oscar.base_arguments import OperatorArguments, checks_arguments
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.oscar_events import shell_json
from airflow_provider_oscar.core.words import require_word
from airflow_provider_oscar.hooks.oscar.hook import OscarHook, encode_body
from airflow_provider_oscar.jobs.events import EVENT_FORMATS, check_event, event_body
from airflow_provider_oscar.jobs.lifecycle import JobLifecycle
from airflow_provider_oscar.jobs.options import RunOptions
from airflow_provider_oscar.jobs.oscar import OscarBackend, OscarWork
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.sealing import KEY_VARIABLE, seal_for
from airflow_provider_oscar.jobs.success import SuccessWhen, check_rule, observe
from airflow_provider_oscar.links import OscarJobLogLink, OutputLink
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.operators.job_arguments import Reuse
from airflow_provider_oscar.operators.job_building import build_job
from airflow_provider_oscar.operators.job_state import parse_object_event

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oscar.placement.targets import PlacementTarget


class OscarJobOperator(JobOperator[OscarWork]):
    """Runs one job of an OSCAR service on one object, and returns the job's manifest.

    The same work has the same job id on every retry: a job that still runs is adopted, and one that succeeded
    before is not run again. Success is what the manifest proves, never OSCAR's word alone.

    With ``command`` the service must run the supervisor of this provider as its script
    (``service_script()``): the object and the place for results travel as short-lived URLs in the
    request. With ``payload`` the service's own script gets it, and must write the manifest or print its marker line.

    :param service: name of the OSCAR service.
    :param object_event: the object to process: an ``ObjectEvent``, its dictionary, a sensor's list of one, or a
        template that gives one;
        by default the object of the run, if it is about exactly one; ``""`` for a command without input.
    :param payload: instead of a command: a dictionary is sent as JSON (an event), text or bytes as a file.
    :param output_uri: ``s3://bucket/prefix`` or ``dcache://conn_id/path``; results go below ``<job id>/`` there.
    :param output_conn_id: connection that reaches ``output_uri``.
    :param command: program and arguments, run without a shell in the service's image.
    :param environment: further variables of the command; not for secrets.
    :param event_format: instead of command and payload: send ``object_event`` to the service's own script as an event,
        in the form ``minio``, ``s3``, ``dcache``, ``webdav``, ``rucio`` or ``raw``.
    :param success_when: for a service whose script writes no manifest, when its job has succeeded: ``"status"``
        (OSCAR's word alone, given also when the script failed), ``{"log": pattern}``, ``{"objects": uri}`` with ``*``,
        ``{job_id}`` and templates in it, or a function of an ``EndedJob``. The result is a manifest with
        ``"proof": "observed"``.
    :param placement: name of the placement target, for the manifest.
    :param keep_jobs: what OSCAR keeps of jobs that have ended and whose result was read: ``"all"`` (default; OSCAR
        itself removes them after 30 days), ``"failed"`` ones, or ``"none"``. Every look at a service lists all jobs
        that it keeps.
    :param members: clusters of a federated service, which may hand its jobs to them: cluster id to connection of type
        ``oscar`` (templated). A cluster that is not in it needs a connection of its own name; a job is found, waited
        for, logged and cancelled wherever it was handed to.
    :param oscar_conn_id: connection of type ``oscar``.
    :param timeout: seconds (or a timedelta) after which the job is cancelled and the task fails; default from
        ``[oscar] job_timeout``; a shorter ``execution_timeout`` counts as well.
    :param queue_timeout: seconds (or a timedelta) after which the job is cancelled if it has not started, and the task
        fails so that it can be retried; None for never.
    :param poll_interval: seconds (or a timedelta) between two polls; default from ``[oscar] poll_interval``.
    :param deferrable: wait in the triggerer (default) instead of on a worker.
    :param reuse: ``"retries"`` (default): an automatic retry, and another run for the same object, take the job or
        result that is there; a task that a person cleared, or whose request has changed, runs again. ``"always"``: a
        cleared task takes them as well. ``"never"``: each try runs the job again.
    :param run_options: launcher, grace period, limit of bytes, and what becomes of outputs that cannot be staged out;
        ``RunOptions`` of :mod:`airflow_provider_oscar.jobs.options`.
    :param inputs: further objects, each as ``object_event`` may be (templated), by default those of a run about
        several; with them ``INPUT_FILE_PATH`` is the directory of all.
    :param resume_from: files of a former job's checkpoint (templated); the command finds them in ``CHECKPOINT_DIR``.
        ``"previous-try"`` stands for what the task's own last try saved there before it failed or was interrupted.
    :param outputs: where outputs go by their names: ``{"*.png": "s3://pictures/run", "logs/*": "dcache://conn/path"}``
        (values templated). The first pattern that matches counts, ``*`` matches slashes too, and without a slash a
        pattern is matched against the last part of the name. Such files are below ``<its id>/`` there; the rest, log
        and manifest go to ``output_uri``, which ``""`` stands for. ``{"uri": …, "conn_id": …}`` names a connection.
    :param skip_on_exit_code: exit code of the command, or several, that leave the task in state ``skipped``: none by
        default. What the manifest does not prove, and what the supervisor itself reports, skips nothing.
    :raises DefinitionError: in the DAG file, if both or neither of ``command`` and ``payload`` are given.
    """

    template_fields: Sequence[str] = (
        "service",
        "object_event",
        "inputs",
        "resume_from",
        "outputs",
        "payload",
        "output_uri",
        "output_conn_id",
        "command",
        "environment",
        "placement",
        "members",
        "oscar_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "object_event": "json",
        "payload": "json",
        "environment": "json",
    }
    backend_fields = ("oscar_conn_id", "service")
    operator_extra_links = (OscarJobLogLink(), OutputLink())
    ui_color = "#d7ecf7"

    @checks_arguments
    def __init__(
        self,
        *,
        service: str,
        object_event: object = None,
        payload: Mapping[str, object] | str | bytes | None = None,
        output_uri: str = "",
        output_conn_id: str = "oscar_s3_default",
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        event_format: str = "",
        success_when: SuccessWhen | None = None,
        placement: str = "",
        keep_jobs: str = "all",
        members: Mapping[str, str] | None = None,
        oscar_conn_id: str = OscarHook.default_conn_name,
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
        self._check_one(command, payload, event_format)
        if payload is not None and object_event is not None:
            raise DefinitionError(
                f"task {self.task_id!r} has a payload, which is sent as it is, so its object_event would be ignored; "
                "give event_format instead of the payload to send the object as an event"
            )
        if event_format:
            require_word(event_format, EVENT_FORMATS, f"event_format of task {self.task_id!r}")
        if self.run_options.supervisor_image:
            raise DefinitionError(
                f"task {self.task_id!r} has a supervisor_image, which only pods of interLink and Kubernetes can have; "
                "the image of an OSCAR service needs Python 3.8 for a command, and none for a script with '@wrap'"
            )
        if success_when is not None:
            if command is not None:
                raise DefinitionError(
                    f"task {self.task_id!r} has a command, whose manifest proves its success; leave success_when out"
                )
            if self.skip_on_exit_code:
                raise DefinitionError(
                    f"task {self.task_id!r} has success_when, with which nothing tells the exit code of its script; "
                    "leave skip_on_exit_code out"
                )
            check_rule(success_when, f"task {self.task_id!r}")
        if command is not None and not output_uri:
            raise DefinitionError(f"task {self.task_id!r} has a command and no output_uri for its results")
        require_word(keep_jobs, ("all", "failed", "none"), f"keep_jobs of task {self.task_id!r}")
        self.keep_jobs = keep_jobs
        self.service = service
        self.payload = payload
        self.event_format = event_format
        self.success_when = success_when
        self.placement = placement
        self.members = members or {}
        self.oscar_conn_id = oscar_conn_id

    def _check_one(self, command: object, payload: object, event_format: str) -> None:
        if sum((command is not None, payload is not None, bool(event_format))) != 1:
            raise DefinitionError(
                f"task {self.task_id!r} needs exactly one of command, payload and event_format, and not both of two"
            )

    def check_rendered(self) -> None:
        """Refuse what templates and results of other tasks became, such as a payload that is None."""
        super().check_rendered()
        self._check_one(self.command, self.payload, self.event_format)

    @classmethod
    def for_target(cls, target: PlacementTarget, *, service: str, image: str, **arguments: Any) -> Self:
        """Return the task that does a placement's work with the service that it names; the service has the image."""
        if not service:
            raise DefinitionError(f"target {target.name!r} is of kind 'oscar'; say which service: placed(…, service=…)")
        return cls(service=service, placement=target.name, **arguments)

    @cached_property
    def backend(self) -> OscarBackend:
        """The jobs of the service."""
        return self.backend_of(vars(self))

    @classmethod
    def backend_of(cls, arguments: Mapping[str, Any]) -> OscarBackend:
        """Return the jobs of the service that arguments of such a task name."""
        members = arguments["members"]
        return OscarBackend(
            conn_id=arguments["oscar_conn_id"],
            service=arguments["service"],
            keep_jobs=arguments["keep_jobs"],
            # A placement looks at the service alone, maybe before another task has said which clusters these are.
            members=members if isinstance(members, Mapping) else None,
        )

    @property
    def hook(self) -> OscarHook:
        """The hook of the connection."""
        return self.backend.hook

    def submission_name(self) -> str:
        """Name of the service."""
        return self.service

    def request(self) -> dict[str, object]:
        """Return what is asked for, service and payload included."""
        return {
            **super().request(),
            "service": self.service,
            "payload": self.payload,
            "event_format": self.event_format,
        }

    def is_signed(self) -> bool:
        """Whether the job signs its manifest: the script that gets a payload is not ours, and has no key."""
        return self.payload is None and not self.event_format

    def writes_manifest(self) -> bool:
        return super().writes_manifest() and self.success_when is None

    def prepare(self, job: RunningJob, context: Context) -> OscarWork:
        """Return the request body."""
        if self.event_format:
            event = parse_object_event(self.object_event)
            if event is None:
                raise DefinitionError(f"task {self.task_id!r} has an event_format and no object_event")
            return OscarWork(event_body(event, self.event_format))
        if self.payload is None:
            made = build_job(self, job, placement=self.placement)
            return OscarWork(
                lambda secrets: made.body(self._seal(secrets)),
                made.spec.submitted_at.isoformat(),
                specification=True,
            )
        if isinstance(self.payload, Mapping):
            check_event(self.payload, f"task {self.task_id!r}")
            return OscarWork(shell_json(self.payload, f"the payload of task {self.task_id!r}"))
        return OscarWork(encode_body(self.payload if isinstance(self.payload, bytes) else self.payload.encode()))

    def _seal(self, secrets: Collection[str]) -> Callable[[bytes], bytes] | None:
        """Return what seals specifications for the service; None where its server has no secrets and that is known."""
        plain = self.hook.extra.get("allow_plain_specifications") is True
        if plain and not any(name.startswith(KEY_VARIABLE) for name in secrets):
            self.log.warning(
                "The job's specification, presigned URLs included, is readable for whoever may read the pods of OSCAR "
                "service %s: connection %r has allow_plain_specifications",
                self.service,
                self.oscar_conn_id,
            )
            return None
        return functools.partial(seal_for, self.signer, self.service, secrets)

    def _lifecycle(self, context: Context) -> JobLifecycle[OscarWork]:
        made = super()._lifecycle(context)
        rule = self.success_when
        if isinstance(rule, Mapping):
            # A pattern is not a template: braces mean something else there.
            rule = {name: each if name == "log" else self.render_template(each, context) for name, each in rule.items()}
        if rule is not None:
            made.observe = lambda job, log: observe(rule, job, log, output_conn_id=self.output_conn_id)
        return made

    def set_link_urls(self, job: RunningJob, slurm_job_id: str) -> None:
        """Note the URLs of the extra links."""
        super().set_link_urls(job, slurm_job_id)
        self.link_urls[OscarJobLogLink.name] = self.hook.job_log_url(self.service, job.job_id)
