# SPDX-License-Identifier: Apache-2.0
"""What the job operators share: arguments, the way through a try, deferral, XCom and links.

What happens to the job itself is :mod:`airflow_provider_oscar.jobs.lifecycle`; an operator adds what it submits and the
backend that runs it.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack

from airflow.sdk import BaseOperator, conf

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, check_rendered, is_unresolved
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.jobs.backend import JobBackend
from airflow_provider_oscar.jobs.concluded import Concluded
from airflow_provider_oscar.jobs.job_metrics import report
from airflow_provider_oscar.jobs.lifecycle import MANIFEST_GRACE, JobLifecycle, KeepPod
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.options import Attachments, RunOptions
from airflow_provider_oscar.jobs.poller import PollTiming
from airflow_provider_oscar.jobs.result_store import ResultStore
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import Signer, configured_signer
from airflow_provider_oscar.jobs.status import JobEvent, JobStatus, JsonObject
from airflow_provider_oscar.jobs.waiting import JobObserver
from airflow_provider_oscar.lineage import operator_lineage
from airflow_provider_oscar.operators import job_outputs
from airflow_provider_oscar.operators.brief_wait import wait_briefly
from airflow_provider_oscar.operators.job_access import renew_access
from airflow_provider_oscar.operators.job_arguments import (
    Reuse,
    checked_environment,
    checked_exit_codes,
    longest_seconds,
    positive_seconds,
)
from airflow_provider_oscar.operators.job_building import described_request
from airflow_provider_oscar.operators.job_ending import abandon_job, kill_job, withdraw_job
from airflow_provider_oscar.operators.job_inputs import checked_checkpoint, find_objects, named_checkpoint
from airflow_provider_oscar.operators.job_objects import refuse_directories, take_objects
from airflow_provider_oscar.operators.job_outcome import (
    get_placement,
    hand_over,
    hand_over_at,
    placement_faults,
    placement_story,
    push_outcome,
)
from airflow_provider_oscar.operators.job_state import load_state, parse_object_event, remembered_job, save_state
from airflow_provider_oscar.operators.job_waiting import PADDING, job_trigger, wait_to_end, waited_too_long
from airflow_provider_oscar.operators.outages import Outage, begin_patiently
from airflow_provider_oscar.run_objects import run_objects

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_oscar.jobs.builder import JobBuilder
    from airflow_provider_oscar.placement.targets import PlacementTarget

W = TypeVar("W")


class JobOperator(BaseOperator, Generic[W]):
    """Base of the job operators: runs one command on one object and returns the job's manifest.

    A further kind of job is a subclass that has ``backend`` and ``prepare``.

    :param object_event: the object to process: an ``ObjectEvent``, its dictionary, a sensor's list of one, or a
        template that gives one; by default the object of the run, if it is about exactly one; ``""`` for none.
    :param output_uri: ``s3://bucket/prefix`` or ``dcache://conn_id/path``.
    :param output_conn_id: connection that reaches ``output_uri``; the one that a ``dcache://`` URI names by default.
    :param command: program and arguments, run without a shell.
    :param environment: further variables of the command.
    :param timeout: seconds or a timedelta after which the job is cancelled; a shorter ``execution_timeout`` counts too.
    :param queue_timeout: seconds or a timedelta after which a job that has not started is cancelled; None for never.
    :param poll_interval: seconds between two polls; from ``[oscar] poll_interval`` by default.
    :param deferrable: wait in the triggerer instead of on a worker.
    :param reuse: ``"retries"``: an automatic retry, and another run for the same object, take the job or result that is
        there; a task that a person cleared, or whose request has changed, runs again. ``"always"``: a cleared task
        takes them as well. ``"never"``: each try runs the job again.
    :param run_options: launcher, grace period and what becomes of outputs that cannot be staged out.
    :param inputs: further objects to stage in, each as ``object_event`` may be, or a URI; one that ends with ``/``
        stands for all objects below. By default those of the run, if it is about several and there is a command.
    :param resume_from: files of a checkpoint, each as ``object_event`` may be, or ``"previous-try"``.
    :param outputs: where outputs go by their names, see :mod:`airflow_provider_oscar.core.output_rules`.
    :param skip_on_exit_code: exit code of the command, or several, that leave the task in state ``skipped``.
    """

    #: Names of the arguments that say where the job runs; placement looks there while the DAG file says them all.
    backend_fields: tuple[str, ...] = ()
    #: Of a task that :func:`~airflow_provider_oscar.operators.placed.placed` made: the task that places its work again
    #: if its target fails, and whether that also gets a job that waits longer than was expected.
    elsewhere = ""
    hands_over = False
    #: What a placement decided for this job; by default the XCom of the placement task before this one.
    decision: Mapping[str, object] | None = None
    #: How fast a job is looked at when the task waits on a worker, and how long its manifest may take.
    pace = PollTiming()
    manifest_grace = MANIFEST_GRACE
    #: Seconds between attempts while a store is away; two minutes together, in which MinIO restarts several times.
    store_pauses: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
    #: Whether the pod of a job that has ended stays; of the operators whose jobs are pods.
    keep_pod: KeepPod = "never"
    observer: JobObserver | None = None  # is told of the job as well, while the task waits on a worker

    def __init__(
        self,
        *,
        object_event: object,
        output_uri: str,
        output_conn_id: str,
        command: Sequence[str] | None,
        environment: Mapping[str, str] | None,
        timeout: timedelta | float | None,
        queue_timeout: timedelta | float | None,
        poll_interval: timedelta | float | None,
        deferrable: bool,
        reuse: Reuse,
        run_options: RunOptions | None = None,
        inputs: object = None,
        resume_from: object = None,
        outputs: Mapping[str, object] | None = None,
        skip_on_exit_code: int | Collection[int] | None = None,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.object_event = object_event
        if isinstance(object_event, str) and "{" not in object_event:
            parse_object_event(object_event)  # not a template, so what is wrong with it can be said now
        self.output_uri = job_outputs.output_location(output_uri, self.task_id)
        self.output_conn_id = output_conn_id
        self.command = command
        self.environment = checked_environment(self.task_id, command, environment)
        self.run_options = run_options or RunOptions()
        self.inputs = inputs
        self.resume_from = checked_checkpoint(resume_from, self.task_id)
        self.outputs = job_outputs.checked_outputs(self.task_id, outputs)
        self.timeout = positive_seconds(self.task_id, "timeout", timeout)
        self.queue_timeout = positive_seconds(self.task_id, "queue_timeout", queue_timeout)
        self.poll_interval = positive_seconds(self.task_id, "poll_interval", poll_interval)
        self.skip_on_exit_code = checked_exit_codes(self.task_id, skip_on_exit_code)
        self.deferrable = deferrable
        self.reuse = reuse
        self.link_urls: dict[str, str] = {}
        self._job: RunningJob | None = None
        self.asked: RunningJob | None = None
        self._lifecycle_of_job: JobLifecycle[W] | None = None
        self._manifest: dict[str, object] | None = None
        self.placed: dict[str, object] = {}  # how a placement came to this target, for the manifest
        self.outage: Outage | None = None

    @classmethod
    @abstractmethod
    def for_target(cls, target: PlacementTarget, *, service: str, image: str, **arguments: Any) -> Self:
        """Return the task that does a placement's work; ``arguments`` are those of every job operator."""

    @property
    @abstractmethod
    def backend(self) -> JobBackend[W]:
        """Where the job runs."""

    @abstractmethod
    def prepare(self, job: RunningJob, context: Context) -> W:
        """Return what the backend submits."""

    def submission_name(self) -> str:
        """Readable part of the submission id."""
        return self.task_id

    def request(self) -> dict[str, object]:
        """Return what is asked for: a task that asks for something else does not get a former result."""
        return described_request(self)

    def is_signed(self) -> bool:
        """Whether the job is given a key and signs its manifest; a service's own script is not."""
        return True

    def set_link_urls(self, job: RunningJob, slurm_job_id: str) -> None:
        """Note the URLs of the extra links."""
        if self.output_uri:
            self.link_urls["Output"] = f"{self.output_uri.rstrip('/')}/{job.submission_id}/"

    @cached_property
    def builder(self) -> JobBuilder:
        """Prepares jobs."""
        from airflow_provider_oscar.jobs.builder import JobBuilder

        return JobBuilder()

    @cached_property
    def results(self) -> ResultStore:
        """Reads what jobs left."""
        return ResultStore()

    def execute(self, context: Context) -> dict[str, object]:
        """Submit or adopt, and wait; return the manifest."""
        with airflow_errors(), placement_faults(self, context):
            running = begin_patiently(self, context)
            return self._wait(context, running) if isinstance(running, RunningJob) else running

    def execute_again(self, context: Context, event: JsonObject | None = None) -> object:
        """Start over after a pause that was made because a system was away."""
        self.outage = Outage.from_dict(event)
        return self.execute(context)

    def execute_complete(
        self, context: Context, event: JsonObject | None = None, job: Mapping[str, object] | None = None
    ) -> dict[str, object]:
        """Go on after the trigger's event."""
        with airflow_errors(), placement_faults(self, context):
            # `dag.test()` drops what was deferred with as soon as there is an event; the store has it as well.
            running = RunningJob.from_stored(job) or load_state(context)
            if running is None:
                raise DefinitionError(f"task {self.task_id!r} was deferred by another version of this class; clear it")
            done = self.conclude(context, running, event or {})
            return self._wait(context, running, unproven=event) if done is None else done

    def begin(self, context: Context) -> RunningJob | dict[str, object]:
        """Submit or adopt the job; return it, or the manifest of one that succeeded before.

        :param context: of the task.
        """
        self.check_rendered()
        self.output_conn_id = job_outputs.output_connection(self.output_uri, self.output_conn_id)
        if self.object_event is None:
            take_objects(self, run_objects(context))
        refuse_directories(self)
        self.placed = placement_story(get_placement(self, context))
        lifecycle = self._lifecycle(context)
        job, fresh = remembered_job(self, context, parse_object_event(self.object_event))
        if self.hands_over:
            job = replace(job, queue_deadline=hand_over_at(self, context, job))
        self.asked = job
        self.set_link_urls(job, "")
        started = lifecycle.start(job, lambda job: self.prepare(job, context), fresh=fresh)
        if isinstance(started, Concluded):
            return self._returned(started.manifest)
        self._job = started
        self.set_link_urls(started, "")
        return started

    def check_rendered(self) -> None:
        """Refuse what templates and results of other tasks became, before anything is submitted."""
        check_rendered(self)
        self.environment = checked_environment(self.task_id, self.command, self.environment)

    def conclude(self, context: Context, job: RunningJob, event: JsonObject) -> dict[str, object] | None:
        """Return the manifest of a job that succeeded; None if it is too early to tell.

        :param context: of the task.
        :param job: as it is remembered.
        :param event: of the trigger.
        """
        self.output_conn_id = job_outputs.output_connection(self.output_uri, self.output_conn_id)
        self._job = self.asked = job
        if self.hands_over and JobEvent.from_dict(event).status == "queue_timeout" and not waited_too_long(self, job):
            hand_over(self, context, job)
        lifecycle = self._lifecycle_of_job or self._lifecycle(context)
        concluded = lifecycle.conclude(job, event)
        return None if concluded is None else self._returned(concluded.manifest)

    def _returned(self, manifest: Manifest) -> dict[str, object]:
        self._manifest = manifest.to_dict()
        return job_outputs.returned(self, manifest)

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage | None:
        """Tell Airflow's OpenLineage provider what the job read and wrote."""
        return None if self._manifest is None else operator_lineage(self._manifest)

    def abandon(self) -> str:
        """Cancel what may run at a target that is given up, and say what was seen of its end."""
        return abandon_job(self._job or self.asked, self._lifecycle_of_job)

    def withdraw(self, context: Context, job: RunningJob) -> str:
        """Cancel a job whose work another one has done, take back its result, and say what was seen of its end."""
        self._job = job
        return withdraw_job(self, job, self._lifecycle_of_job or self._lifecycle(context))

    def on_kill(self) -> None:
        """Save the job's log and cancel it when the task is killed while it works, be it just about to take it over."""
        kill_job(self, self._job or self.asked, self._lifecycle_of_job)

    def observable_backend(self) -> JobBackend[W] | None:
        """Return the backend for a look before the task runs; None if only the task itself can render where it is."""
        return None if any(is_unresolved(getattr(self, name)) for name in self.backend_fields) else self.backend

    @classmethod
    def backend_of(cls, arguments: Mapping[str, Any]) -> JobBackend[W] | None:
        """Return where a task of these arguments runs its jobs, for a look at one that is mapped by itself.

        :param arguments: by name, those of ``backend_fields`` at least; None if such tasks are not looked at.
        """
        return None

    def _lifecycle(self, context: Context) -> JobLifecycle[W]:
        made = self._lifecycle_of_job = JobLifecycle(
            backend=self.backend,
            read_manifest=self.read_manifest,
            remember=lambda job: save_state(context, job),
            log=self.log,
            timeout=self.timeout_seconds(),
            grace=self.manifest_grace,
            outlived=self.renew_access,
            verifies=self.verifies,
            note=lambda job, status, manifest: self._push(context, job, status, manifest),
            finish=self._finish_outputs,
            save_log=self._save_log if self.output_uri else None,
            skips=self.skip_on_exit_code,
            keep=self.keep_pod,
            report=lambda state, manifest: report(self.backend.name, state, manifest),
            pauses=self.store_pauses,
        )
        return made

    def _save_log(self, job: RunningJob, chunks: Iterable[bytes]) -> str:
        return self.results.save_log(self.output_conn_id, self.output_uri, job.submission_id, chunks)

    @property
    def verifies(self) -> Callable[[RunningJob, Manifest], bool]:
        """Whether a manifest was signed for a job, and keeps to its places."""
        return job_outputs.verifier(self)

    @cached_property
    def signer(self) -> Signer:
        """Derives the keys that sign results; see :mod:`~airflow_provider_oscar.jobs.signing`."""
        return configured_signer()

    def _wait(self, context: Context, job: RunningJob, unproven: JsonObject | None = None) -> dict[str, object]:
        """Defer, or wait here.

        :param unproven: event of a job that has ended, whose success is not proven yet.
        """
        seen = None if unproven else wait_briefly(self, job)
        if seen and (done := self.conclude(context, job, seen)) is not None:
            return done
        unproven = unproven or seen
        if self.deferrable:
            left = timedelta(seconds=max((job.deadline or time.time()) - time.time(), 0.0))
            trigger = job_trigger(self, job, unproven)
            self.defer(
                trigger=trigger, method_name="execute_complete", kwargs={"job": job.to_dict()}, timeout=left + PADDING
            )
        return wait_to_end(self, context, job, unproven)

    def writes_manifest(self) -> bool:
        """Whether the job leaves a manifest at a known place."""
        return bool(self.output_uri)

    def read_manifest(self, job: RunningJob) -> Manifest | None:
        """Return the stored manifest of a job, or None."""
        return job_outputs.read_manifest(self, job)

    def _finish_outputs(self, job: RunningJob, manifest: Manifest | None) -> None:
        job_outputs.finish_outputs(self, job, manifest)

    def renew_access(self, job: RunningJob) -> None:
        """Let an adopted job that may outlive its access find fresh one."""
        renew_access(self, job)

    @cached_property
    def further_objects(self) -> tuple[tuple[ObjectEvent, ...], tuple[ObjectEvent, ...]]:
        """The objects of ``inputs`` and of ``resume_from``, looked up once."""
        conn_id = self.output_conn_id if self.output_uri.startswith("s3://") else ""
        named = named_checkpoint(self.resume_from)
        return find_objects(self.inputs, conn_id=conn_id), find_objects(named, conn_id=conn_id)

    def build_options(self) -> dict[str, Any]:
        """Return further arguments of :meth:`~airflow_provider_oscar.jobs.builder.JobBuilder.build`."""
        inputs, checkpoint = self.further_objects
        given = Attachments(inputs=inputs, resume_from=checkpoint, outputs=job_outputs.output_rules(self))
        return {"options": self.run_options, "attachments": None if given == Attachments() else given}

    def _push(self, context: Context, job: RunningJob, status: JobStatus, manifest: Manifest | None) -> None:
        push_outcome(self, context, job, status, manifest)

    def timeout_seconds(self) -> float:
        """Return the seconds after which the job is cancelled."""
        return longest_seconds(self.timeout, self.execution_timeout if self.deferrable else None)

    @property
    def interval(self) -> float:
        """Seconds between two polls."""
        return self.poll_interval or conf.getfloat("oscar", "poll_interval", fallback=10.0)
