# SPDX-License-Identifier: Apache-2.0
"""Submit or adopt one job, wait, and believe its manifest: what both job operators share.

The order of things in a try: the submission id is derived; a manifest that proves success ends the task at
once; a job of that id that still runs is adopted; one that ended without proof is removed; then the id is
stored and the job submitted. ``on_kill`` here and in the trigger call the same function of the hook.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator, conf

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.core.errors import (
    DefinitionError,
    JobFailedError,
    OscarProviderError,
    PermanentError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.core.logs import LogPosition
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.failures import failure
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.outcome import State, verdict
from airflow_provider_oscar.jobs.submission import submission_id
from airflow_provider_oscar.operators.job_state import RunningJob, moment, read_object_event, recall, remember
from airflow_provider_oscar.triggers.jobs import JobTrigger, ended_view, told
from airflow_provider_oscar.triggers.shared_poll import JobView

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oscar.jobs.builder import SupervisorHook, SupervisorJob

#: How long a manifest may still be on its way after the job ended.
MANIFEST_GRACE = timedelta(seconds=60)
#: Added to Airflow's own timeout, so that the trigger's comes first and the job is cancelled.
_PADDING = timedelta(minutes=10)
#: Presigned URLs live at most a week.
_LONGEST_ACCESS = timedelta(days=7)
_ACTIVE = (JobPhase.PENDING, JobPhase.RUNNING, JobPhase.UNKNOWN)


class JobOperator(BaseOperator):
    """Base of the two job operators; see ``OscarJobOperator`` and ``InterLinkPodOperator`` for the arguments."""

    #: Set by the subclasses' constructors.
    object_event: Any
    output_uri: str
    output_conn_id: str
    command: Sequence[str] | None
    environment: Mapping[str, str]
    timeout: float | None
    poll_interval: float | None
    deferrable: bool

    def _common(
        self,
        *,
        object_event: Any,
        output_uri: str,
        output_conn_id: str,
        command: Sequence[str] | None,
        environment: Mapping[str, str] | None,
        timeout: timedelta | float | None,
        poll_interval: float | None,
        deferrable: bool,
    ) -> None:
        """Keep and check the arguments both operators have; called by their constructors."""
        if isinstance(command, str):
            raise DefinitionError(
                f"command of task {self.task_id!r} is the text {command!r}; give a list of words, such as "
                '["python3", "infer.py"], or ["sh", "-c", "…"] if a shell is wanted'
            )
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        for name, value in (("timeout", seconds), ("poll_interval", poll_interval)):
            if value is not None and not value > 0:
                raise DefinitionError(f"{name} of task {self.task_id!r} is {value}; expected more than 0 seconds")
        self.object_event = object_event
        self.output_uri = output_uri
        self.output_conn_id = output_conn_id
        self.command = command
        self.environment = environment or {}
        self.timeout = seconds
        self.poll_interval = poll_interval
        self.deferrable = deferrable
        self.link_urls: dict[str, str] = {}
        self._job: RunningJob | None = None

    @cached_property
    def supervisor(self) -> SupervisorHook:
        """Prepares jobs and reads their manifests."""
        from airflow_provider_oscar.jobs.builder import SupervisorHook

        return SupervisorHook()

    # What the two kinds of job differ in.

    @property
    def where(self) -> str:
        """Connection and service or node, for messages."""
        raise NotImplementedError

    def submission_name(self) -> str:
        """Readable part of the submission id."""
        return self.task_id

    def submit(self, job: RunningJob, context: Context) -> RunningJob:
        """Start the job, or adopt it if it came into being meanwhile."""
        raise NotImplementedError

    def look(self, job_id: str) -> JobView:
        """Look at the job once."""
        raise NotImplementedError

    def read_log(self, job_id: str) -> str | None:
        """The whole log, or None."""
        raise NotImplementedError

    def cancel(self, job_id: str) -> bool:
        """Cancel and remove the job; the function of the hook that the trigger's ``on_kill`` calls too."""
        raise NotImplementedError

    def clear_away(self, job_id: str) -> None:
        """Make the name of an ended job free again."""
        raise NotImplementedError

    def tidy(self, job_id: str) -> None:
        """Remove what an ended job leaves behind, once log and manifest were read; nothing by default."""

    def trigger(self, job: RunningJob, settled: dict[str, Any] | None) -> JobTrigger[Any]:
        """The trigger that waits for the job."""
        raise NotImplementedError

    # The common way.

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit or adopt, and wait; return the manifest."""
        with airflow_errors():
            started = self._start(context)
            if isinstance(started, Manifest):
                return started.to_dict()
            return self._wait(context, started)

    def resume(
        self, context: Context, event: dict[str, Any] | None = None, job: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Go on after the trigger's event."""
        with airflow_errors():
            # `dag.test()` drops what was deferred with as soon as there is an event; the store has it as well.
            running = RunningJob.from_stored(job) or recall(context)
            if running is None:
                raise DefinitionError(
                    f"task {self.task_id!r} was deferred by another version of this operator; clear it"
                )
            self._job = running
            return self._after(context, running, event or {})

    def on_kill(self) -> None:
        """Cancel the job when the task is killed while it works."""
        if self._job is not None:
            gone = self.cancel(self._job.job_id)
            self.log.info("Job %s was %s", self._job.job_id, "cancelled" if gone else "not there any more")

    def _start(self, context: Context) -> Manifest | RunningJob:
        event = read_object_event(self.object_event)
        job = self._remembered(context, event)
        self._note_output(job)
        manifest = self._manifest(job, log="")
        if manifest is not None and manifest.succeeded and manifest.submission_id == job.submission_id:
            self.log.info("Job %s: %s; nothing is submitted again", job.submission_id, manifest.summary)
            self._push(context, job, JobView(JobPhase.SUCCEEDED), manifest)
            return manifest
        view = self.look(job.job_id)
        if view.phase in _ACTIVE:
            self.log.info("%s; this try adopts it", told(job.job_id, view))
        else:
            if view.phase is not JobPhase.ABSENT:
                marked = Manifest.from_marker(self.read_log(job.job_id) or "", job.submission_id)
                if marked is not None and marked.succeeded:
                    self._push(context, job, view, marked)
                    return marked
                self.log.info("%s, from an earlier try; it is removed and submitted again", told(job.job_id, view))
                self.clear_away(job.job_id)
            remember(context, replace(job, job_id=job.submission_id, submitted_at=""))
            job = self.submit(replace(job, job_id=job.submission_id), context)
        self._job = job
        remember(context, job)
        return job

    def _remembered(self, context: Context, event: ObjectEvent | None) -> RunningJob:
        """The job this work belongs to: from a former try, or new."""
        ti = context["ti"]
        identity = context.get("partition_key") or context["run_id"]
        made = submission_id(self.submission_name(), ti.dag_id, ti.task_id, identity, getattr(ti, "map_index", -1))
        deadline = time.time() + self._timeout()
        uri = event.uri if event else ""
        former = recall(context)
        if former is not None and former.submission_id == made:
            return replace(former, deadline=deadline, object_uri=uri)
        return RunningJob(made, made, deadline=deadline, object_uri=uri)

    def _wait(self, context: Context, job: RunningJob, settled: dict[str, Any] | None = None) -> dict[str, Any]:
        """Defer, or run the same trigger here."""
        while True:
            trigger = self.trigger(job, settled)
            if self.deferrable:
                self._defer(job, trigger)
            event = asyncio.run(_first_event(trigger))
            found = self._settle(context, job, event)
            if found is not None:
                return found
            settled = event

    def _defer(self, job: RunningJob, trigger: JobTrigger[Any]) -> NoReturn:
        left = timedelta(seconds=max((job.deadline or time.time()) - time.time(), 0.0))
        self.defer(trigger=trigger, method_name="resume", kwargs={"job": asdict(job)}, timeout=left + _PADDING)

    def _after(self, context: Context, job: RunningJob, event: dict[str, Any]) -> dict[str, Any]:
        found = self._settle(context, job, event)
        return self._wait(context, job, settled=event) if found is None else found

    def _settle(self, context: Context, job: RunningJob, event: dict[str, Any]) -> dict[str, Any] | None:
        """Return the manifest of a job that succeeded, None if it is too early to tell; raise otherwise."""
        about = f"{self.where}: job {job.job_id!r}" + (f" of {quoted(job.object_uri)}" if job.object_uri else "")
        if event.get("status") == "timeout":
            gone = self.cancel(job.job_id)
            raise JobFailedError(
                f"{about} did not end within {self._timeout():.0f} seconds and was "
                f"{'cancelled' if gone else 'not there any more'}; raise the timeout of the task, or look why it waited"
            )
        if event.get("status") != "ended":
            kind: type[OscarProviderError] = PermanentError if event.get("permanent") else TransientError
            raise kind(f"{about} cannot be observed: {event.get('message') or quoted(event)}")
        ended = moment(str(event.get("ended_at") or ""))
        age = MANIFEST_GRACE * 2 if ended is None else max(datetime.now(UTC) - ended, timedelta(0))
        return self._conclude(context, job, ended_view(event), age)

    def _conclude(self, context: Context, job: RunningJob, view: JobView, age: timedelta) -> dict[str, Any] | None:
        log = "" if view.phase is JobPhase.ABSENT else self.read_log(job.job_id) or ""
        manifest = self._manifest(job, log)
        outcome = verdict(
            job.submission_id,
            manifest,
            view.phase,
            age=age,
            grace=MANIFEST_GRACE,
            submitted_at=moment(job.submitted_at),
        )
        if outcome.state is State.RUNNING:
            self.log.info("%s", outcome.reason)
            return None
        self._show(log)
        self._push(context, job, view, manifest)
        self.log.info("%s", outcome.reason)
        self.tidy(job.job_id)
        if outcome.state is State.SUCCEEDED and manifest is not None:
            return manifest.to_dict()
        raise failure(
            outcome,
            manifest,
            where=self.where,
            object_uri=job.object_uri,
            reported=view.note,
            exit_code=view.exit_code,
            log=log,
        )

    def _manifest(self, job: RunningJob, log: str) -> Manifest | None:
        """The manifest of the marker line or of the store, whichever is younger; the store's if equal."""
        marked = Manifest.from_marker(log, job.submission_id) if log else None
        try:
            stored = self._stored_manifest(job)
        except TransientError as error:
            if marked is None or marked.truncated:
                raise
            self.log.warning("The manifest is taken from the log, because its object cannot be read: %s", error)
            return marked
        if stored is None or marked is None:
            return stored or marked
        earliest = datetime.min.replace(tzinfo=UTC)
        return marked if (marked.submitted_at or earliest) > (stored.submitted_at or earliest) else stored

    def _stored_manifest(self, job: RunningJob) -> Manifest | None:
        if not self.output_uri:
            return None
        return self.supervisor.read_manifest(self.output_conn_id, self.output_uri, job.submission_id)

    def build(self, job: RunningJob, *, placement: str) -> SupervisorJob:
        """Make what the supervisor needs: specification, program, short-lived access to input and output."""
        if not self.output_uri or not self.command:
            raise DefinitionError(f"task {self.task_id!r} needs both output_uri and command")
        configured = timedelta(seconds=conf.getint("oscar", "access_lifetime", fallback=86_400))
        needed = timedelta(seconds=self._timeout()) + _PADDING
        return self.supervisor.build(
            submission_id=job.submission_id,
            event=read_object_event(self.object_event),
            command=[str(word) for word in self.command],
            output_conn_id=self.output_conn_id,
            output_uri=self.output_uri,
            environment={name: str(value) for name, value in self.environment.items()},
            placement=placement,
            timeout=self._timeout(),
            lifetime=min(max(configured, needed), _LONGEST_ACCESS),
        )

    def _show(self, log: str) -> None:
        lines, _ = LogPosition().after(log.rstrip(), complete=True)
        self.log.info("::group::Log of the job (%d lines)", len(lines))
        for line in lines:
            self.log.info("%s", line)
        self.log.info("::endgroup::")

    def _push(self, context: Context, job: RunningJob, view: JobView, manifest: Manifest | None) -> None:
        slurm = (manifest.slurm_job_id if manifest else None) or view.slurm_job_id
        context["ti"].xcom_push(key="job_id", value=job.job_id)
        if slurm:
            context["ti"].xcom_push(key="slurm_job_id", value=slurm)
        self.note_links(job, slurm or "")

    def _note_output(self, job: RunningJob) -> None:
        self.note_links(job, "")

    def note_links(self, job: RunningJob, slurm_job_id: str) -> None:
        """Note the URLs of the extra links."""
        if self.output_uri:
            self.link_urls["Output"] = f"{self.output_uri.rstrip('/')}/{job.submission_id}/"

    def _timeout(self) -> float:
        return self.timeout or conf.getfloat("oscar", "job_timeout", fallback=86_400.0)

    @property
    def interval(self) -> float:
        """Seconds between two looks."""
        return self.poll_interval or conf.getfloat("oscar", "poll_interval", fallback=10.0)


async def _first_event(trigger: JobTrigger[Any]) -> dict[str, Any]:
    async for event in trigger.run():
        found: dict[str, Any] = event.payload
        return found
    return {}
