# SPDX-License-Identifier: Apache-2.0
"""Submit or adopt one job, and conclude what became of it; knows no Airflow, only what it needs.

The order of things in a try: a manifest that proves success ends the task at once; a job of that id that still runs is
adopted; one that ended without proof is removed; then the id is remembered and the job submitted. After its end the
manifest is read before the log, and what is shown or saved of the job is saved before anything is deleted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Generic, Literal, TypeVar

from airflow_provider_oscar.core.cancellation import Cancellation
from airflow_provider_oscar.core.errors import (
    OscarProviderError,
    TransientError,
    faults_of_target,
    quoted,
)
from airflow_provider_oscar.core.logs import LogPosition
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.refusals import never_ran
from airflow_provider_oscar.core.times import parse_iso
from airflow_provider_oscar.jobs.backend import JobBackend
from airflow_provider_oscar.jobs.concluded import Concluded, Log
from airflow_provider_oscar.jobs.failures import job_error
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.outcome import JobOutcome, OutcomeState, evaluate, proves_success
from airflow_provider_oscar.jobs.ownership import check_owner
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import is_authentic
from airflow_provider_oscar.jobs.status import JobEvent, JobStatus, JsonObject
from airflow_provider_oscar.jobs.store_pauses import call_patiently
from airflow_provider_oscar.jobs.time_limits import too_late

#: How long a manifest may still be on its way after the job ended.
MANIFEST_GRACE = timedelta(seconds=60)

#: What becomes of a pod whose job has ended.
KeepPod = Literal["never", "on_failure", "always"]

W = TypeVar("W")


@dataclass
class JobLifecycle(Generic[W]):
    """One job from its submission to its result.

    :param backend: where it runs.
    :param read_manifest: reads the stored manifest, or returns None; the output's store alone is asked.
    :param remember: stores the job where the next try finds it.
    :param log: where people read what happens.
    :param timeout: seconds the job may take, for messages.
    :param grace: how long a manifest may still be on its way after the job ended.
    :param outlived: called with each adopted job that may outlive the access it was given; sees to fresh one.
    :param verifies: whether a manifest was signed for the job; all count where jobs are given no key.
    :param note: called with each job and status that became known, for XCom and links.
    :param finish: called with each job that has ended and its manifest, if it has one, before anything is cleaned up:
        makes its outputs whole.
    :param observe: for jobs that write no manifest: returns one for a job, and its log, that is seen to have succeeded.
    :param save_log: copies a log below the job's output prefix and returns its URI; None where there is no such place.
    :param show: called with each job that ended and its whole log, after the part that is new was shown.
    :param report: called once with how each job ended, for metrics.
    :param pauses: seconds between attempts at a store that is away: one that restarts fails no task of any ``retries``.
    :param sleep: waits them.
    :param skips: exit codes by which the command says that there was nothing to do.
    :param keep: whether what an ended job leaves on the compute side stays there, for people to look at.
    """

    backend: JobBackend[W]
    read_manifest: Callable[[RunningJob], Manifest | None]
    remember: Callable[[RunningJob], None]
    log: Log
    timeout: float = 0.0
    grace: timedelta = MANIFEST_GRACE
    outlived: Callable[[RunningJob], None] = lambda job: None
    verifies: Callable[[RunningJob, Manifest], bool] = lambda job, manifest: True
    note: Callable[[RunningJob, JobStatus, Manifest | None], None] = lambda job, status, manifest: None
    finish: Callable[[RunningJob, Manifest | None], None] = lambda job, manifest: None
    observe: Callable[[RunningJob, str], Manifest | None] | None = None
    save_log: Callable[[RunningJob, Iterable[bytes]], str] | None = None
    skips: Collection[int] = ()
    keep: KeepPod = "never"
    show: Callable[[RunningJob, str], None] | None = None
    report: Callable[[OutcomeState, Manifest | None], None] = lambda state, manifest: None
    pauses: Sequence[float] = ()
    sleep: Callable[[float], None] = time.sleep

    def start(
        self, job: RunningJob, prepare: Callable[[RunningJob], W], *, fresh: bool = False
    ) -> RunningJob | Concluded:
        """Return the running job, or the result of one that succeeded before.

        :param job: remembered from a former try, or new.
        :param prepare: makes what is submitted; called only if something is.
        :param fresh: adopt nothing and believe nothing that was there before.
        :raises PermanentError: if a job of the name belongs to somebody else.
        """
        if not fresh and (concluded := self._concluded_before(job)) is not None:
            return concluded
        if (new := self._start_new(job, prepare)) is not None:
            return new
        with faults_of_target():
            status = self.backend.status(job.job_id)
        check_owner(job, status, display_name=self.describe(job))
        same = not fresh and status.owner in ("", job.owner)
        if same and status.phase.active:
            self.log.info("%s; this try adopts it", status.describe(job.job_id))
            if status.phase is JobPhase.PENDING:
                self._complete(job, prepare)
            self._keep_access(job)
        else:
            if status.phase is not JobPhase.ABSENT:
                text = self._needed_log(job, status) if same else ""
                marked = (self._marked(job, text) or self._observed(job, status, text)) if same else None
                if marked is not None and proves_success(marked, status.phase):
                    self.finish(job, marked)
                    self._cleanup(job, marked, succeeded=True)
                    return self._concluded(marked, job, status)
                why = "from an earlier try" if same else "of another request for the same work"
                self.log.info("%s, %s; it is removed and submitted again", status.describe(job.job_id), why)
                if status.phase.ended and same:
                    self._show_rest(text, job)
                if same and not self._save_log(job, marked):
                    raise TransientError(f"{self.describe(job)} is not removed while its log cannot be saved")
                self.backend.delete_ended(job.job_id)
                self._finish(job, None)
            until = time.time() + job.access_lifetime if job.access_lifetime else None
            job = replace(job, job_id=job.submission_id, submitted_at="", log_lines=0, access_until=until)
            work = self._remembered_work(job, prepare)
            with faults_of_target():
                job = self.backend.submit(job, work)
        self.remember(job)
        return job

    def _concluded_before(self, job: RunningJob) -> Concluded | None:
        """Return the result of a job that succeeded before; None if nothing proves it."""
        manifest = self._manifest(job, log="")
        if manifest is not None and manifest.succeeded:
            self.log.info("Job %s: %s; nothing is submitted again", job.submission_id, manifest.summary)
            self.finish(job, manifest)
            self._cleanup_earlier(job, manifest)
            return self._concluded(manifest, job, JobStatus(JobPhase.SUCCEEDED))
        outcome = self._outcome(job, manifest, JobPhase.UNKNOWN)
        # That there was nothing to do counts for the run in which it was found, and for no other.
        if outcome.state is OutcomeState.SKIPPED and manifest is not None and job.submitted_at:
            ended = JobStatus(JobPhase.FAILED)
            self._cleanup_earlier(job, manifest)
            self.note(job, ended, manifest)
            raise self._error(outcome, manifest, job, ended)
        return None

    def _start_new(self, job: RunningJob, prepare: Callable[[RunningJob], W]) -> RunningJob | None:
        """Submit a job of which no earlier try is known; None if it has to be looked for all the same."""
        if job.submitted_at or job.job_id != job.submission_id:
            return None
        own: list[OscarProviderError] = []

        def work(each: RunningJob) -> W:
            try:
                return self._remembered_work(each, prepare)
            except OscarProviderError as error:
                own.append(error)
                raise

        try:
            new = self.backend.submit_new(job, work)
        except OscarProviderError as error:
            # What cannot be prepared is not the fault of the place that would have run it.
            raise error if error in own else error.of_target() from error.__cause__
        if new is not None:
            self.remember(new)
        return new

    def _remembered_work(self, job: RunningJob, prepare: Callable[[RunningJob], W]) -> W:
        """Remember the job, so that whatever happens to this process the next try looks for it; then make the work."""
        self.remember(job)
        return call_patiently(lambda: prepare(job), self.pauses, log=self.log, sleep=self.sleep)

    def conclude(self, job: RunningJob, event: JsonObject) -> Concluded | None:
        """Return the result of a job that succeeded, None if it is too early to tell.

        :param job: as it is remembered.
        :param event: of :func:`~airflow_provider_oscar.jobs.waiting.wait_for_job`.
        :raises OscarProviderError: if the job failed, was not seen to end in time, or could not be observed.
        """
        seen = JobEvent.from_dict(event)
        job = replace(job, log_lines=max(job.log_lines, seen.log_lines))
        if seen.status == "error":
            raise self._unobserved(job, seen)
        if seen.status != "ended":
            raise self._timed_out(job, seen)
        # What was never submitted writes no manifest, so there is nothing to wait for; or it was waited for already.
        hopeless = seen.waited or never_ran(seen.reason, seen.slurm_job_id)
        ended = None if hopeless else seen.ended_at
        age = self.grace * 2 if ended is None else max(datetime.now(UTC) - ended, timedelta(0))
        return self._decide(job, seen.job_status, age)

    def _decide(self, job: RunningJob, status: JobStatus, age: timedelta) -> Concluded | None:
        log = "" if status.phase is JobPhase.ABSENT else self._read_log(job)
        manifest = self._manifest(job, log) or self._observed(job, status, log)
        outcome = self._outcome(job, manifest, status.phase, age)
        if outcome.state is OutcomeState.RUNNING:
            self.log.info("%s", outcome.reason)
            return None
        self._show_rest(log, job)
        self.note(job, status, manifest)
        self.report(outcome.state, manifest)
        self.log.info("%s", outcome.reason)
        if outcome.state is OutcomeState.SUCCEEDED:
            self.finish(job, manifest)
        else:
            self._finish(job, manifest)
        self._cleanup(job, manifest, succeeded=outcome.state in (OutcomeState.SUCCEEDED, OutcomeState.SKIPPED))
        if outcome.state is OutcomeState.SUCCEEDED and manifest is not None:
            return Concluded(manifest, job, status)
        raise self._error(outcome, manifest, job, status, log)

    def _outcome(
        self, job: RunningJob, manifest: Manifest | None, phase: JobPhase, age: timedelta = timedelta(0)
    ) -> JobOutcome:
        at, grace = parse_iso(job.submitted_at), self.grace
        return evaluate(job.submission_id, manifest, phase, age=age, grace=grace, submitted_at=at, skips=self.skips)

    def _error(
        self, outcome: JobOutcome, manifest: Manifest | None, job: RunningJob, status: JobStatus, log: str = ""
    ) -> OscarProviderError:
        return job_error(
            outcome,
            manifest,
            display_name=self.backend.display_name,
            object_uri=job.object_uri,
            conn_ids=(job.input_conn_id, job.output_conn_id),
            reported=status.reason,
            exit_code=status.exit_code,
            log=log,
        )

    def _observed(self, job: RunningJob, status: JobStatus, log: str) -> Manifest | None:
        if self.observe is None or status.phase is not JobPhase.SUCCEEDED:
            return None
        return self.observe(job, log)

    def _concluded(self, manifest: Manifest, job: RunningJob, status: JobStatus) -> Concluded:
        self.note(job, status, manifest)
        return Concluded(manifest, job, status)

    def _manifest(self, job: RunningJob, log: str) -> Manifest | None:
        """The stored manifest of this very job; that of the log if the store has none, or cannot be asked."""
        marked = self._marked(job, log) if log else None
        whole = marked is not None and not marked.truncated
        try:
            pauses = () if whole else self.pauses
            stored = call_patiently(lambda: self.read_manifest(job), pauses, log=self.log, sleep=self.sleep)
        except TransientError as error:
            if not whole:
                raise
            self.log.warning("The manifest is taken from the log, because its object cannot be read: %s", error)
            return marked
        if stored is not None and not self._is_authentic(job, stored):
            self.log.warning(
                "A manifest of job %s in its output prefix is passed over: it is not signed for this submission, or "
                "names places that are not the job's",
                job.submission_id,
            )
            stored = None
        return stored or marked

    def _marked(self, job: RunningJob, log: str) -> Manifest | None:
        return Manifest.from_marker(log, job.submission_id, lambda manifest: self._is_authentic(job, manifest))

    def _is_authentic(self, job: RunningJob, manifest: Manifest) -> bool:
        return is_authentic(job, manifest, self.verifies)

    def _needed_log(self, job: RunningJob, status: JobStatus) -> str:
        """Return the log of an earlier try's job; of one that ended well it may hold the proof, so it has to be read.

        :raises OscarProviderError: if it cannot be: without it a good job would be removed and run again.
        """
        return (self.backend.log(job.job_id) or "") if status.phase is JobPhase.SUCCEEDED else self._read_log(job)

    def _read_log(self, job: RunningJob) -> str:
        """Return the log; an empty one if it cannot be read: a log decides nothing that the manifest proves."""
        try:
            return self.backend.log(job.job_id) or ""
        except OscarProviderError as error:
            self.log.warning("The log of job %s cannot be read: %s", job.job_id, error)
            return ""

    def _finish(self, job: RunningJob, manifest: Manifest | None) -> None:
        """Make whole what a job that failed left; what cannot be is named, and changes nothing about the failure."""
        try:
            self.finish(job, manifest)
        except OscarProviderError as error:
            self.log.warning("The outputs of job %s cannot be made whole: %s", job.submission_id, error)

    def _complete(self, job: RunningJob, prepare: Callable[[RunningJob], W]) -> None:
        """Add what a try that was killed while it submitted did not come to; a job that has it stays as it is."""
        try:
            self.backend.complete(job, lambda: prepare(job))
        except OscarProviderError as error:
            self.log.warning("Whether job %s has all it needs cannot be seen: %s", job.job_id, error)

    def _keep_access(self, job: RunningJob) -> None:
        """See to it that an adopted job finds fresh access; one that cannot be helped may still end in time."""
        if not job.outlives_access:
            return
        try:
            self.outlived(job)
        except OscarProviderError as error:
            self.log.warning(
                "The access of job %s to its stores, which may end first, is not renewed: %s", job.job_id, error
            )

    def _save_log(self, job: RunningJob, manifest: Manifest | None) -> bool:
        """Copy the log to the job's results, unless the supervisor did; False if that cannot be done now."""
        if self.save_log is None or self.observe is not None or (manifest is not None and manifest.has_log):
            return True
        try:
            uri = self.save_log(job, self.backend.log_chunks(job.job_id))
        except OscarProviderError as error:
            self.log.warning("The log of job %s cannot be saved: %s", job.job_id, error)
            return False
        if uri:
            self.log.info("The log of job %s is kept as %s", job.job_id, quoted(uri))
        return True

    def _cleanup(self, job: RunningJob, manifest: Manifest | None, *, succeeded: bool) -> None:
        """Remove what is left of an ended job, its log saved; what cannot be removed is named and changes no result."""
        kept = self.keep == "always" or (self.keep == "on_failure" and not succeeded)
        saved = self._save_log(job, manifest)
        try:
            if kept or not saved:
                self.backend.release(job.job_id)
                why = f"as keep_pod={self.keep!r} wants it" if kept else "because its log is saved nowhere else"
                self.log.info("Job %s has ended and is left where it ran, %s", job.job_id, why)
            else:
                self.backend.cleanup(job.job_id, succeeded=succeeded)
        except OscarProviderError as error:
            self.log.warning("Job %s has ended and is left where it ran: %s", job.job_id, error)

    def _cleanup_earlier(self, job: RunningJob, manifest: Manifest) -> None:
        """Remove what a try that was killed left of a job that is proven to have done its work, if it is ours."""
        if not self.backend.cleans_up:
            return
        try:
            status = self.backend.status(job.job_id)
            check_owner(job, status, display_name=self.describe(job))
        except OscarProviderError as error:
            self.log.warning("Whether job %s left something behind cannot be seen: %s", job.job_id, error)
            return
        # Kubernetes hears of the end seconds after the manifest is there, when nobody would come back.
        over = self._outcome(job, manifest, status.phase).state is not OutcomeState.RUNNING
        if status.phase.ended or (over and status.owner == job.owner != ""):
            self._cleanup(job, manifest, succeeded=True)

    def _show_rest(self, log: str, job: RunningJob) -> None:
        """Show what was not shown while the job ran."""
        self.log.info("::group::%s", "Rest of the job's log" if job.log_lines else "Log of the job")
        for line in LogPosition(job.log_lines).rest(log):
            self.log.info("%s", line)
        self.log.info("::endgroup::")
        if self.show is not None:
            self.show(job, log)

    def describe(self, job: RunningJob) -> str:
        """Return words that name the job and its object."""
        of_object = f" of {quoted(job.object_uri)}" if job.object_uri else ""
        return f"{self.backend.display_name}: job {job.job_id!r}{of_object}"

    def cancel(self, job: RunningJob, *, patience: float | None = None) -> Cancellation:
        """Save the log of a job, cancel it, and say what was seen of its end.

        :param job: the job.
        :param patience: seconds that saving may take; None for as long as it takes.
        """
        saving = threading.Thread(target=self._save_log, args=(job, None), name="save-log", daemon=True)
        saving.start()
        saving.join(patience)
        if saving.is_alive():
            self.log.warning(
                "The log of job %s could not be saved in time; the job is cancelled all the same", job.job_id
            )
        return self.backend.cancel(job.job_id)

    def _timed_out(self, job: RunningJob, event: JobEvent) -> OscarProviderError:
        self._show_rest(self._read_log(job), job)
        known = self.cancel(job)
        self._finish(job, None)
        return too_late(job, event, display_name=self.describe(job), timeout=self.timeout, known=known)

    def _unobserved(self, job: RunningJob, event: JobEvent) -> OscarProviderError:
        return TransientError(
            f"{self.describe(job)} cannot be observed and was left running: {event.message}"
        ).of_target()
