# SPDX-License-Identifier: Apache-2.0
"""What the job operators share: arguments, the way through a try, deferral, XCom and links.

What happens to the job itself is :mod:`airflow_provider_oscar.jobs.lifecycle`; an operator adds what it submits and the
backend that runs it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar

from airflow.sdk import BaseOperator, conf

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, OscarProviderError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.jobs.backend import JobBackend
from airflow_provider_oscar.jobs.job_metrics import report
from airflow_provider_oscar.jobs.lifecycle import MANIFEST_GRACE, Concluded, JobLifecycle, KeepPod, read_time
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.options import Attachments, Binding, RunOptions
from airflow_provider_oscar.jobs.poller import Pace
from airflow_provider_oscar.jobs.results import ResultPlace
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import Signer, believed, configured_signer, request_digest
from airflow_provider_oscar.jobs.status import JobStatus, JsonObject
from airflow_provider_oscar.jobs.submission import submission_id
from airflow_provider_oscar.jobs.summary import summarize
from airflow_provider_oscar.jobs.waiting import Wait, wait_for_job
from airflow_provider_oscar.operators.job_outcome import (
    describe_outlets,
    hand_over,
    hand_over_at,
    placement_faults,
    placement_of,
    record_for_placement,
    story_of,
)
from airflow_provider_oscar.operators.job_state import load_state, parse_object_event, save_state
from airflow_provider_oscar.run_objects import run_objects
from airflow_provider_oscar.triggers.jobs import JobTrigger

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_oscar.jobs.builder import SupervisorHook, SupervisorJob

#: When a job or result of a former try is taken.
REUSE = ("retries", "always", "never")
Reuse = Literal["retries", "always", "never"]
#: Added to Airflow's own timeout, so that the trigger's comes first and the job is cancelled.
_PADDING = timedelta(minutes=10)
#: Presigned URLs live at most a week.
_LONGEST_ACCESS = timedelta(days=7)
#: Seconds that saving the log of a job may take whose task is killed; it is cancelled then in any case.
KILL_PATIENCE = 15.0

W = TypeVar("W")


class JobOperator(BaseOperator, Generic[W]):
    """Base of the job operators: runs one command on one object and returns the job's manifest.

    A further kind of job is a subclass that has ``backend`` and ``prepare``.

    :param object_event: the object to process: an ``ObjectEvent``, its dictionary, or a template that gives one; by
        default the object of the run, if it is about exactly one; ``""`` for none.
    :param output_uri: ``s3://bucket/prefix`` or ``dcache://conn_id/path``.
    :param output_conn_id: connection that reaches ``output_uri``.
    :param command: program and arguments, run without a shell.
    :param environment: further variables of the command.
    :param timeout: seconds or a timedelta after which the job is cancelled; from ``[oscar] job_timeout`` by default.
    :param queue_timeout: seconds or a timedelta after which a job that has not started is cancelled; None for never.
    :param poll_interval: seconds between two looks; from ``[oscar] poll_interval`` by default.
    :param deferrable: wait in the triggerer instead of on a worker.
    :param reuse: ``"retries"``: an automatic retry, and another run for the same object, take the job or result that is
        there; a task that a person cleared, or whose request has changed, runs again. ``"always"``: a cleared task
        takes them as well. ``"never"``: each try runs anew.
    :param run_options: launcher, grace period and what becomes of outputs that cannot be staged out.
    :param inputs: further objects to stage in, each as ``object_event`` may be, or a URI; one that ends with ``/``
        stands for all objects below. By default those of the run, if it is about several and there is a command.
    :param resume_from: files of an earlier try's checkpoint, each as ``object_event`` may be.
    """

    #: Names of the arguments that say where the job runs; placement looks there while none of them is a template.
    place_fields: tuple[str, ...] = ()
    #: Of a task that :func:`~airflow_provider_oscar.operators.placed.placed` made: the task that places its work again
    #: if its target fails, and whether that also gets a job that waits longer than was expected.
    elsewhere = ""
    hands_over = False
    #: What a placement decided for this job; by default the XCom of the placement task before this one.
    decision: Mapping[str, object] | None = None
    #: How fast a job is looked at when the task waits on a worker, and how long its manifest may take.
    pace = Pace()
    manifest_grace = MANIFEST_GRACE
    #: Whether the pod of a job that has ended stays; of the operators whose jobs are pods.
    keep_pod: KeepPod = "never"

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
        poll_interval: float | None,
        deferrable: bool,
        reuse: str,
        run_options: RunOptions | None = None,
        inputs: object = None,
        resume_from: object = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(command, str):
            raise DefinitionError(
                f"command of task {self.task_id!r} is the text {command!r}; give a list of words, such as "
                '["python3", "infer.py"], or ["sh", "-c", "…"] if a shell is wanted'
            )
        self.object_event = object_event
        self.output_uri = output_uri
        self.output_conn_id = output_conn_id
        self.command = command
        self.environment = environment or {}
        self.run_options = run_options or RunOptions()
        self.inputs = inputs
        self.resume_from = resume_from
        self.timeout = self._seconds("timeout", timeout)
        self.queue_timeout = self._seconds("queue_timeout", queue_timeout)
        self.poll_interval = self._seconds("poll_interval", poll_interval)
        self.deferrable = deferrable
        if reuse not in REUSE:
            raise DefinitionError(
                f"reuse of task {self.task_id!r} is {quoted(reuse)}; expected one of {', '.join(REUSE)}"
            )
        self.reuse = reuse
        self.link_urls: dict[str, str] = {}
        self._job: RunningJob | None = None
        self.asked: RunningJob | None = None
        self._lifecycle_of_job: JobLifecycle[W] | None = None
        self._manifest: dict[str, object] | None = None
        #: How a placement came to this target, for the manifest.
        self.placed: dict[str, object] = {}

    def _seconds(self, name: str, value: timedelta | float | None) -> float | None:
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        if seconds is not None and not seconds > 0:
            raise DefinitionError(f"{name} of task {self.task_id!r} is {value}; expected more than 0 seconds")
        return seconds

    # What the kinds of job differ in.

    @cached_property
    def backend(self) -> JobBackend[W]:
        """Where the job runs."""
        raise NotImplementedError

    def prepare(self, job: RunningJob, context: Context) -> W:
        """Return what the backend submits."""
        raise NotImplementedError

    def submission_name(self) -> str:
        """Readable part of the submission id."""
        return self.task_id

    def request(self) -> dict[str, object]:
        """Return what is asked for: a task that asks for something else does not get a former result."""
        event = parse_object_event(self.object_event)
        return {
            "command": None if self.command is None else [str(word) for word in self.command],
            "environment": {name: str(value) for name, value in self.environment.items()},
            "input": None if event is None else _identity(event),
            "output": [self.output_conn_id, self.output_uri],
            "further": [
                [[each.uri, each.version_id or each.etag, each.size] for each in found]
                for found in self.further_objects
            ],
            "options": self.run_options.to_dict(),
        }

    def is_signed(self) -> bool:
        """Whether the job is given a key and signs its manifest; a service's own script is not."""
        return True

    def note_links(self, job: RunningJob, slurm_job_id: str) -> None:
        """Note the URLs of the extra links."""
        if self.output_uri:
            self.link_urls["Output"] = f"{self.output_uri.rstrip('/')}/{job.submission_id}/"

    # The common way.

    @cached_property
    def supervisor(self) -> SupervisorHook:
        """Prepares jobs and reads their manifests."""
        from airflow_provider_oscar.jobs.builder import SupervisorHook

        return SupervisorHook()

    def execute(self, context: Context) -> dict[str, object]:
        """Submit or adopt, and wait; return the manifest."""
        with airflow_errors(), placement_faults(self, context):
            begun = self.begin(context)
            return self._wait(context, begun) if isinstance(begun, RunningJob) else begun

    def _refuse_directories(self) -> None:
        """Say before a job is made that a directory is no input."""
        for each in (parse_object_event(self.object_event), *self.further_objects[0]):
            if each is not None and each.is_directory:
                raise BadInputError(
                    f"{quoted(each.uri)} (connection {each.conn_id!r}) is a directory, and a job takes files; name a "
                    "file below it, or give its files as inputs"
                )

    def _take_objects(self, found: Sequence[ObjectEvent]) -> None:
        """Take what the run is about: the one object, or for a command all of a batch or group."""
        if len(found) == 1:
            self.object_event = found[0]
        elif found and self.inputs is None and self.command is not None:
            self.inputs = list(found)

    def execute_complete(
        self, context: Context, event: JsonObject | None = None, job: Mapping[str, object] | None = None
    ) -> dict[str, object]:
        """Go on after the trigger's event."""
        with airflow_errors(), placement_faults(self, context):
            # `dag.test()` drops what was deferred with as soon as there is an event; the store has it as well.
            running = RunningJob.from_stored(job) or load_state(context)
            if running is None:
                raise DefinitionError(
                    f"task {self.task_id!r} was deferred by another version of this operator; clear it"
                )
            done = self.conclude(context, running, event or {})
            return self._wait(context, running, unproven=event) if done is None else done

    def begin(self, context: Context) -> RunningJob | dict[str, object]:
        """Submit or adopt the job; return it, or the manifest of one that succeeded before.

        :param context: of the task.
        """
        if self.object_event is None:
            self._take_objects(run_objects(context))
        self._refuse_directories()
        self.placed = story_of(placement_of(self, context))
        lifecycle = self._lifecycle(context)
        job, fresh = self._remembered(context, parse_object_event(self.object_event))
        if self.hands_over:
            job = replace(job, queue_deadline=hand_over_at(self, context, job))
        self.asked = job
        self.note_links(job, "")
        started = lifecycle.start(job, lambda job: self.prepare(job, context), fresh=fresh)
        if isinstance(started, Concluded):
            return self._returned(started.manifest)
        self._job = started
        self.note_links(started, "")
        return started

    def conclude(self, context: Context, job: RunningJob, event: JsonObject) -> dict[str, object] | None:
        """Return the manifest of a job that succeeded; None if it is too early to tell.

        :param context: of the task.
        :param job: as it is remembered.
        :param event: of the trigger.
        """
        self._job = self.asked = job
        if self.hands_over and event.get("status") == "queue_timeout" and not self._waited_too_long(job):
            hand_over(self, context, job)
        lifecycle = self._lifecycle_of_job or self._lifecycle(context)
        concluded = lifecycle.conclude(job, event)
        return None if concluded is None else self._returned(concluded.manifest)

    def _returned(self, manifest: Manifest) -> dict[str, object]:
        self._manifest = manifest.to_dict()
        return summarize(manifest)

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage | None:
        """Tell Airflow's OpenLineage provider what the job read and wrote.

        :param task_instance: of this task.
        """
        from airflow_provider_oscar.lineage import operator_lineage

        return None if self._manifest is None else operator_lineage(self._manifest)

    def abandon(self) -> str:
        """Cancel what may run at a target that is given up, and say what was seen of its end."""
        job = self._job or self.asked
        if job is None or self._lifecycle_of_job is None:
            return "nothing was submitted"
        try:
            return f"job {job.job_id} {self._lifecycle_of_job.cancel(job, patience=KILL_PATIENCE)}"
        except OscarProviderError as error:
            return f"whether job {job.job_id} still runs is not known: {error}"

    def withdraw(self, context: Context, job: RunningJob) -> str:
        """Cancel a job whose work another one has done, take back its result, and say what was seen of its end.

        :param context: of the task.
        :param job: as it is remembered.
        """
        self._job = job
        if self._lifecycle_of_job is None:
            self._lifecycle(context)
        known = self.abandon()
        try:
            if self._writes_manifest():
                self.supervisor.revoke(self.output_conn_id, self.output_uri, job.submission_id)
        except OscarProviderError as error:
            self.log.warning("Whether job %s left a second result is not known: %s", job.job_id, error)
        return known

    def on_kill(self) -> None:
        """Save the job's log and cancel it when the task is killed while it works."""
        if self._job is not None and self._lifecycle_of_job is not None:
            known = self._lifecycle_of_job.cancel(self._job, patience=KILL_PATIENCE)
            (self.log.info if known.verified else self.log.warning)("Job %s %s", self._job.job_id, known)

    def observable_backend(self) -> JobBackend[W] | None:
        """Return the backend for a look before the task runs; None if only the task itself can render where it is."""
        texts = [str(getattr(self, name) or "") for name in self.place_fields]
        return None if any("{{" in text or "{%" in text for text in texts) else self.backend

    def _lifecycle(self, context: Context) -> JobLifecycle[W]:
        made = self._lifecycle_of_job = JobLifecycle(
            backend=self.backend,
            read_manifest=self._read_manifest,
            remember=lambda job: save_state(context, job),
            log=self.log,
            timeout=self._timeout(),
            grace=self.manifest_grace,
            verifies=self._verifies,
            note=lambda job, status, manifest: self._push(context, job, status, manifest),
            finish=self._finish_outputs,
            save_log=self._save_log if self.output_uri else None,
            keep=self.keep_pod,
            report=lambda state, manifest: report(self.backend.name, state, manifest),
        )
        return made

    def _save_log(self, job: RunningJob, chunks: Iterable[bytes]) -> str:
        return self.supervisor.save_log(self.output_conn_id, self.output_uri, job.submission_id, chunks)

    @property
    def _verifies(self) -> Callable[[RunningJob, Manifest], bool]:
        return self.signer.verifies if self.is_signed() else lambda job, manifest: True

    @cached_property
    def signer(self) -> Signer:
        """Derives the keys that sign results; see :mod:`~airflow_provider_oscar.jobs.signing`."""
        return configured_signer()

    def _waited_too_long(self, job: RunningJob) -> bool:
        """Whether the job has waited for its queue_timeout."""
        left = (job.deadline or 0.0) - self._timeout()
        return self.queue_timeout is not None and time.time() >= left + self.queue_timeout

    def _remembered(self, context: Context, event: ObjectEvent | None) -> tuple[RunningJob, bool]:
        """The job this work belongs to, from a former try or new; and whether nothing of a former try may be taken."""
        ti = context["ti"]
        deployment = conf.get("oscar", "deployment_id", fallback="") or self.signer.deployment_id
        name = submission_id(
            self.submission_name(),
            ti.dag_id,
            ti.task_id,
            context.get("partition_key") or context["run_id"],
            getattr(ti, "map_index", -1),
            deployment_id=deployment,
        )
        digest = request_digest(self.request())
        tries = getattr(ti, "max_tries", None)
        former = load_state(context)
        if former is None or former.submission_id != name:
            former = RunningJob(submission_id=name, job_id=name, request_digest=digest, max_tries=tries)
            fresh = self.reuse == "never"
        else:
            # Clearing a task raises max_tries; an automatic retry leaves it.
            cleared = tries != former.max_tries and self.reuse == "retries"
            fresh = cleared or self.reuse == "never" or digest != former.request_digest
            if cleared:
                self.log.info("The task was cleared, so job %s is run again; reuse='always' takes its result", name)
        now = time.time()
        job = replace(
            former,
            deadline=now + self._timeout(),
            queue_deadline=None if self.queue_timeout is None else now + self.queue_timeout,
            object_uri=event.uri if event else "",
            request_digest=digest,
            deployment_id=deployment,
            generation=former.generation + fresh,
            max_tries=tries,
        )
        return job, fresh

    def _wait(self, context: Context, job: RunningJob, unproven: JsonObject | None = None) -> dict[str, object]:
        """Defer, or wait here.

        :param unproven: event of a job that has ended, whose success is not proven yet.
        """
        if self.deferrable:
            self._defer(job, unproven)
        while True:
            event = asyncio.run(self._wait_here(job)) if unproven is None else unproven
            if unproven is not None:
                time.sleep(max(self._proof_due(unproven) - time.time(), 0.0))
            done = self.conclude(context, job, event)
            if done is not None:
                return done
            unproven = None if event.get("proven") else event

    async def _wait_here(self, job: RunningJob) -> JsonObject:
        async def proof() -> bool:
            manifest = await asyncio.to_thread(self._read_manifest, job)
            return manifest is not None and believed(job, manifest, self._verifies)

        return await wait_for_job(
            self.backend,
            self._what_to_wait_for(job),
            say=self.log.info,
            pace=self.pace,
            proof=proof if self._writes_manifest() else None,
        )

    def _writes_manifest(self) -> bool:
        """Whether the job leaves a manifest at a known place."""
        return bool(self.output_uri)

    def _proof_due(self, event: JsonObject) -> float:
        """When what proves the success of an ended job must be there, in seconds since the epoch."""
        ended = read_time(str(event.get("ended_at") or ""))
        return 0.0 if ended is None else (ended + self.manifest_grace).timestamp()

    def _defer(self, job: RunningJob, unproven: JsonObject | None) -> NoReturn:
        left = timedelta(seconds=max((job.deadline or time.time()) - time.time(), 0.0))
        self.defer(
            trigger=self.trigger(job, unproven),
            method_name="execute_complete",
            kwargs={"job": asdict(job)},
            timeout=left + _PADDING,
        )

    def trigger(self, job: RunningJob, unproven: JsonObject | None = None) -> JobTrigger:
        """Return what waits for a job in the triggerer.

        :param job: as it is remembered.
        :param unproven: event of a job that has ended, whose success is not proven yet.
        """
        wait = self._what_to_wait_for(job)
        place = ResultPlace(conn_id=self.output_conn_id, uri=self.output_uri, job=job, signed=self.is_signed())
        # What the trigger took for proof the task did not, so it is not asked again.
        doubted = unproven is not None and bool(unproven.get("proven"))
        pending = None if doubted else unproven
        return JobTrigger(
            backend=self.backend.name,
            place=self.backend.arguments(),
            job_id=wait.job_id,
            deadline=wait.deadline,
            queue_deadline=wait.queue_deadline,
            poll_interval=wait.poll_interval,
            log_lines=wait.log_lines,
            pending_event=pending,
            pending_until=0.0 if pending is None else self._proof_due(pending),
            result=place.to_dict() if self._writes_manifest() and not doubted else None,
            grace=wait.grace,
        )

    def _what_to_wait_for(self, job: RunningJob) -> Wait:
        return Wait(
            job_id=job.job_id,
            deadline=job.deadline,
            queue_deadline=job.queue_deadline,
            poll_interval=self.interval,
            log_lines=job.log_lines,
            grace=self.manifest_grace.total_seconds(),
        )

    def _read_manifest(self, job: RunningJob) -> Manifest | None:
        if not self.output_uri:
            return None
        return self.supervisor.read_manifest(self.output_conn_id, self.output_uri, job.submission_id)

    def _finish_outputs(self, job: RunningJob, manifest: Manifest | None) -> None:
        if self.output_uri and self.is_signed():
            self.supervisor.finish_outputs(self.output_conn_id, self.output_uri, job.submission_id, manifest)

    def build(self, job: RunningJob, *, placement: str) -> SupervisorJob:
        """Make what the supervisor needs: specification, program, short-lived access to input and output."""
        if not self.output_uri or not self.command:
            raise DefinitionError(f"task {self.task_id!r} needs both output_uri and command")
        configured = timedelta(seconds=conf.getint("oscar", "access_lifetime", fallback=86_400))
        needed = timedelta(seconds=self._timeout()) + _PADDING
        if needed > _LONGEST_ACCESS:
            raise DefinitionError(
                f"task {self.task_id!r}: its timeout is {timedelta(seconds=self._timeout())}, and presigned URLs and "
                f"macaroons live for {_LONGEST_ACCESS} at most, waiting included: its results could not be staged out. "
                "Give a timeout of less than a week, and let a longer job continue from its checkpoint (resume_from)"
            )
        return self.supervisor.build(
            submission_id=job.submission_id,
            binding=Binding(signing_key=self.signer.key(job), request_digest=job.request_digest, placed=self.placed),
            event=parse_object_event(self.object_event),
            command=[str(word) for word in self.command],
            output_conn_id=self.output_conn_id,
            output_uri=self.output_uri,
            environment={name: str(value) for name, value in self.environment.items()},
            placement=placement,
            timeout=self._timeout(),
            lifetime=max(min(configured, _LONGEST_ACCESS), needed),
            **self.build_options(),
        )

    @cached_property
    def further_objects(self) -> tuple[tuple[ObjectEvent, ...], tuple[ObjectEvent, ...]]:
        """The objects of ``inputs`` and of ``resume_from``, looked up once."""
        from airflow_provider_oscar.operators.job_inputs import find_objects

        conn_id = self.output_conn_id if self.output_uri.startswith("s3://") else ""
        inputs, checkpoint = (find_objects(given, conn_id=conn_id) for given in (self.inputs, self.resume_from))
        return inputs, checkpoint

    def build_options(self) -> dict[str, Any]:
        """Return further arguments of :meth:`~airflow_provider_oscar.jobs.builder.SupervisorHook.build`."""
        inputs, checkpoint = self.further_objects
        given = Attachments(inputs=inputs, resume_from=checkpoint) if inputs or checkpoint else None
        return {"options": self.run_options, "attachments": given}

    def _push(self, context: Context, job: RunningJob, status: JobStatus, manifest: Manifest | None) -> None:
        slurm = (manifest.slurm_job_id if manifest else None) or status.slurm_job_id
        context["ti"].xcom_push(key="job_id", value=job.job_id)
        if slurm:
            context["ti"].xcom_push(key="slurm_job_id", value=slurm)
        if manifest is not None and manifest.succeeded:
            describe_outlets(self.outlets, context, manifest, conn_id=self.output_conn_id)
        self.note_links(job, slurm or "")
        record_for_placement(self, context, job, manifest)

    def _timeout(self) -> float:
        return self.timeout or conf.getfloat("oscar", "job_timeout", fallback=86_400.0)

    @property
    def interval(self) -> float:
        """Seconds between two looks."""
        return self.poll_interval or conf.getfloat("oscar", "poll_interval", fallback=10.0)


def _identity(event: ObjectEvent) -> list[object]:
    return [event.uri, event.version_id or event.etag, event.size]
