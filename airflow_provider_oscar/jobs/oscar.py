# SPDX-License-Identifier: Apache-2.0
"""Jobs of an OSCAR service."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_oscar.core.cancellation import ABSENT_BEFORE, Cancellation
from airflow_provider_oscar.core.errors import AccessError, OscarProviderError, TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.times import read_iso
from airflow_provider_oscar.hooks.checks import Check
from airflow_provider_oscar.hooks.oscar.checks import oscar_checks
from airflow_provider_oscar.hooks.oscar.errors import ACCESS_REMEDY, NotOscarError
from airflow_provider_oscar.hooks.oscar.federation import Member, find_connections, get_members
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.oscar.submissions import JobRequest, Submission
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.status import ABSENT, JobStatus
from airflow_provider_oscar.jobs.unnamed import UnnamedJobs
from airflow_provider_oscar.placement.targets import TargetObservation

if TYPE_CHECKING:
    import httpx
    from airflow.sdk import Connection

    from airflow_provider_oscar.hooks.oscar.requests import OscarJob

log = logging.getLogger(__name__)
#: What the page shows of a service, whose own form holds its token.
SERVICE_FIELDS = ("name", "image", "cpu", "memory", "interlink_node_name")
_USUAL = {"Pending", "Running", "Succeeded", "Failed"}
#: Pages of the job list that a placement looks at; the order is that of random names.
_OBSERVED_PAGES = 3
#: Seconds between looks until a deleted job is gone.
_PAUSES = (0.2, 0.5, 1, 2, 5, 10, 20)


@dataclass(frozen=True, slots=True)
class OscarWork:
    """What is submitted.

    :param body: of the request; or makes it, given the names of the service's secret variables.
    :param submitted_at: as in the job specification; empty if the service's own script gets the body.
    :param specification: the body is a job specification, which the script of this provider alone understands.
    """

    body: bytes | Callable[[Collection[str]], bytes] = field(repr=False)
    submitted_at: str = ""
    specification: bool = False


class OscarBackend:
    """The jobs of one OSCAR service.

    :param conn_id: connection of type ``oscar``.
    :param service: name of the service.
    :param keep_jobs: jobs that stay in OSCAR after they ended: ``all``, ``failed`` or ``none``.
    :param members: clusters of the service's federation: cluster id to connection; a cluster that is not in it needs a
        connection of its own name.
    :param elsewhere: connection and service of the members as :meth:`arguments` writes them; empty for not known yet.
    :param sleep: waits between looks, for tests.
    """

    name: ClassVar[str] = "oscar"
    looks_at_one: ClassVar[bool] = False
    operator: ClassVar[str] = "airflow_provider_oscar.operators.oscar.OscarJobOperator"
    conn_types: ClassVar[tuple[str, ...]] = ("oscar",)
    parts_title: ClassVar[str] = "OSCAR services"

    def __init__(
        self,
        *,
        conn_id: str,
        service: str,
        keep_jobs: str = "all",
        members: Mapping[str, str] | None = None,
        elsewhere: str = "",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.conn_id = conn_id
        self.connection: Connection | None = None
        self.service = service
        self.keep_jobs = keep_jobs
        self._members = dict(members or {})
        self._elsewhere: tuple[OscarBackend, ...] | None = None
        if elsewhere:
            self._elsewhere = self._locations([(str(conn), str(name)) for conn, name in json.loads(elsewhere)])
        self._sleep = sleep

    @cached_property
    def hook(self) -> OscarHook:
        """The hook of the connection, for a worker."""
        return OscarHook(self.conn_id, connection=self.connection, patient=self.connection is None)

    @classmethod
    def checks(cls, connection: Connection, *, write: bool) -> Iterator[Check]:
        """Return what is looked at; a bucket is made and deleted to see whether that is allowed."""
        return oscar_checks(connection, write=write)

    @classmethod
    def parts(cls, connection: Connection) -> list[dict[str, object]]:
        """Return the services."""
        hook = OscarHook(connection.conn_id, connection=connection)
        services = hook.run(hook.list_services())
        return [{name: str(each.get(name) or "") for name in SERVICE_FIELDS} for each in services]

    def address(self) -> dict[str, str]:
        """Return connection and service; jobs of its federation are not looked for."""
        return {"conn_id": self.conn_id, "service": self.service, "elsewhere": "[]"}

    def cancel_command(self, job_id: str) -> str:
        """Return the command that deletes the job."""
        return f"airflow oscar jobs cancel {self.service} {job_id} --conn-id {self.conn_id}"

    def arguments(self) -> dict[str, str]:
        """Return what makes an equal backend, the members of a federated service included."""
        try:
            locations = [(each.conn_id, each.service) for each in self.elsewhere]
        except (OscarProviderError, AirflowNotFoundException) as error:
            log.warning("Whether %s hands jobs to other clusters cannot be seen: %s", self.display_name, error)
            locations = []
        places_argument = {"elsewhere": json.dumps(locations)} if locations else {}
        return {"conn_id": self.conn_id, "service": self.service, **places_argument}

    @property
    def key(self) -> Hashable:
        """Connection and service, and those of the members."""
        locations = tuple((each.conn_id, each.service) for each in self._elsewhere or ())
        return ("oscar", self.conn_id, self.service, *locations)

    @property
    def elsewhere(self) -> tuple[OscarBackend, ...]:
        """The services of other clusters that jobs may be handed to; asks OSCAR unless that is known.

        :raises DefinitionError: for a cluster without a connection.
        """
        if self._elsewhere is None:
            hook = self.hook
            if hook.api.service_token:
                # It may not look at its own service.
                self._elsewhere = ()
            else:
                found = hook.run(hook.get_service(self.service))
                self._federate(get_members(found or {}, endpoint=hook.api.endpoint))
        return self._elsewhere or ()

    def _federate(self, members: tuple[Member, ...]) -> None:
        self._elsewhere = self._locations(
            find_connections(members, self._members, is_oscar_connection, display_name=self.display_name)
            if members
            else ()
        )

    def _locations(self, locations: Sequence[tuple[str, str]]) -> tuple[OscarBackend, ...]:
        return tuple(OscarBackend(conn_id=conn_id, service=service, elsewhere="[]") for conn_id, service in locations)

    @property
    def display_name(self) -> str:
        """Service and connection, for messages."""
        return f"OSCAR service {self.service!r} (connection {self.conn_id!r})"

    def submit_new(self, job: RunningJob, prepare: Callable[[RunningJob], OscarWork]) -> RunningJob | None:
        """Start the job under its name: OSCAR 4.1 says if there is one, and to look means to list all of them."""
        work = prepare(job)
        with self.hook.client() as client:
            prepared = self._prepared(job, work, client)
            if not prepared.named or not self._sent(prepared, job.submission_id, client):
                return None
        return self._started(job, work, Submission(job.submission_id))

    def submit(self, job: RunningJob, work: OscarWork) -> RunningJob:
        """Start the job, or adopt the one of its name."""
        with self.hook.client() as client:
            prepared = self._prepared(job, work, client)
            if prepared.named:
                adopted = not self._sent(prepared, job.submission_id, client)
                return self._started(job, work, Submission(job.submission_id, adopted=adopted))
        with _access_may_come_back():
            made = UnnamedJobs(self.hook, self.service, sleep=self._sleep).submit(prepared, job.submission_id)
        log.info("This OSCAR is older than 4.1 and called the job %s", made.job_id)
        return self._started(job, work, made)

    def _prepared(self, job: RunningJob, work: OscarWork, client: httpx.Client) -> JobRequest:
        flow = self.hook.prepare_job(
            self.service, work.body, needs_supervisor=work.specification, object_uri=job.object_uri
        )
        with _access_may_come_back():
            prepared = self.hook.run(flow, client)
            self._federate(prepared.members)
            return prepared

    def _sent(self, prepared: JobRequest, submission_id: str, client: httpx.Client) -> bool:
        with _access_may_come_back():
            return self.hook.run(self.hook.send_job(prepared, submission_id), client)

    def _started(self, job: RunningJob, work: OscarWork, made: Submission) -> RunningJob:
        log.info("Job %s of %s was %s", made.job_id, self.display_name, "adopted" if made.adopted else "submitted")
        return replace(job, job_id=made.job_id, submitted_at="" if made.adopted else work.submitted_at)

    def status(self, job_id: str) -> JobStatus:
        """Look at one job, where it was submitted and at the members; OSCAR has a list alone."""
        found = self.hook.run(self.hook.list_jobs(self.service)).get(job_id)
        if found is None:
            for backend in self.elsewhere:
                status = backend.status(job_id)
                if status.phase is not JobPhase.ABSENT:
                    log.info("Job %s was handed to %s", job_id, backend.display_name)
                    return status
        return job_status(found)

    def log(self, job_id: str) -> str | None:
        """Return the log, of a very long one its end, of the cluster that has the job."""
        text = self.hook.run(self.hook.job_log(self.service, job_id))
        for backend in self.elsewhere if text is None else ():
            if (text := backend.log(job_id)) is not None:
                break
        return text

    def log_chunks(self, job_id: str) -> Iterator[bytes]:
        """Return the whole log in pieces, of the cluster that has the job."""
        for backend in (self, *self.elsewhere):
            chunks = backend.hook.log_chunks(backend.service, job_id)
            if first := next(chunks, b""):
                yield first
                yield from chunks
                return

    def complete(self, job: RunningJob, prepare: Callable[[], OscarWork]) -> None:
        """Nothing: a request brings all there is."""

    def cancel(self, job_id: str) -> Cancellation:
        """Delete the job, which ends it, in the cluster that has it."""
        there = self.hook.run(self.hook.delete_job(self.service, job_id))
        there = there or any(backend.cancel(job_id).found for backend in self.elsewhere)
        # OSCAR answers 403 for what is not there; so does whoever refuses to delete what is.
        if not there and self.status(job_id).phase.active:
            raise self._undeleted(job_id)
        return _deleted(there)

    def _undeleted(self, job_id: str) -> AccessError:
        return AccessError(
            f"{self.display_name}: job {job_id!r} is listed and was not deleted; for DELETE "
            f"'/system/logs/{self.service}/{job_id}' {ACCESS_REMEDY}"
        )

    def delete_ended(self, job_id: str) -> None:
        """Delete the job and wait until OSCAR does not list it any more."""
        there = self.cancel(job_id).found
        for pause in _PAUSES:
            if self.status(job_id).phase is JobPhase.ABSENT:
                return
            self._sleep(pause)
        if not there:
            raise self._undeleted(job_id)
        raise TransientError(f"{self.display_name}: job {job_id!r} of an earlier try was deleted but is still listed")

    @property
    def cleans_up(self) -> bool:
        """Whether jobs that succeeded are removed."""
        return self.keep_jobs != "all"

    def cleanup(self, job_id: str, *, succeeded: bool) -> None:
        """Remove the job if its kind is not to be kept; OSCAR itself keeps jobs for 30 days, and lists all of them."""
        if self.keep_jobs == "none" or (self.keep_jobs == "failed" and succeeded):
            self.cancel(job_id)

    def release(self, job_id: str) -> None:
        """Nothing: what an OSCAR job was given has an end of its own."""

    def observe(self) -> TargetObservation:
        """Look whether the service can take a job, and how many it has; of many jobs, a few pages stand for all."""
        try:
            if self.hook.run(self.hook.get_service(self.service)) is None:
                return TargetObservation(name=self.service, up=False, reason=f"no OSCAR service {self.service!r}")
            jobs = self.hook.run(self.hook.list_jobs(self.service, most_pages=_OBSERVED_PAGES))
        except OscarProviderError as error:
            return TargetObservation(name=self.service, up=False, reason=str(error))
        waiting = [job for job in jobs.values() if job.phase is JobPhase.PENDING]
        # OSCAR says when a pod was given to a node; one that none has room for has no time.
        since = [made for job in waiting if (made := _time(job.created)) is not None]
        now = datetime.now(UTC)
        return TargetObservation(
            name=self.service,
            active=sum(job.phase.active for job in jobs.values()),
            pending=len(waiting),
            oldest_pending=max([*((now - each).total_seconds() for each in since), 0.0]),
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[OscarJobClient]:
        """Open a client for a poll, with one for each member of a federated service."""
        async with AsyncExitStack() as stack:
            hook = await OscarHook.resolved(self.conn_id)
            client = await stack.enter_async_context(hook.async_client())
            others = [await stack.enter_async_context(backend.open()) for backend in self._elsewhere or ()]
            yield OscarJobClient(hook, client, self.service, tuple(others))

    async def acancel(self, job_id: str) -> Cancellation:
        """Delete the job without blocking the event loop, in the cluster that has it."""
        hook = await OscarHook.resolved(self.conn_id)
        if await hook.arun(hook.delete_job(self.service, job_id)):
            return _deleted(there=True)
        for backend in self._elsewhere or ():
            if (done := await backend.acancel(job_id)).found:
                return done
        return _deleted(there=False)


def is_oscar_connection(conn_id: str) -> bool:
    """Whether Airflow has a connection of type ``oscar`` of this id."""
    try:
        return bool(conn_id) and BaseHook.get_connection(conn_id).conn_type == OscarHook.conn_type
    except AirflowNotFoundException:
        return False


def _time(text: str) -> datetime | None:
    try:
        return read_iso(text)
    except ValueError:
        return None


@contextmanager
def _access_may_come_back() -> Iterator[None]:
    """OSCAR refuses access too while an issuer or a proxy is away; what is wrong is as wrong at the next try."""
    try:
        yield
    except (AccessError, NotOscarError) as error:
        raise TransientError(str(error)) from error


@dataclass(frozen=True)
class OscarJobClient:
    """One list of jobs for all who wait for jobs of a service.

    :param hook: the connection.
    :param client: sends the requests.
    :param service: name of the service.
    :param others: the same for services that jobs may be handed to.
    """

    hook: OscarHook
    client: httpx.AsyncClient
    service: str
    others: tuple[OscarJobClient, ...] = ()

    async def statuses(self) -> Mapping[str, JobStatus]:
        """List the jobs of the service, and those of the members; one that cannot be asked might have any of them."""
        found: dict[str, JobStatus] = {}
        for other in self.others:
            found.update(await other.statuses())
        jobs = await self.hook.arun(self.hook.list_jobs(self.service), self.client)
        return found | {name: job_status(job) for name, job in jobs.items()}

    async def log(self, job_id: str) -> str | None:
        """Return the whole log so far."""
        text = await self.hook.arun(self.hook.job_log(self.service, job_id), self.client)
        for other in self.others if text is None else ():
            if (text := await other.log(job_id)) is not None:
                break
        return text


def _deleted(there: bool) -> Cancellation:
    return Cancellation(found=True, verified=True, known="was cancelled") if there else ABSENT_BEFORE


def job_status(job: OscarJob | None) -> JobStatus:
    """Return one look at an OSCAR job; OSCAR's own word only where it says more than the phase."""
    return ABSENT if job is None else JobStatus(phase=job.phase, reason="" if job.raw in _USUAL else job.raw)


BACKEND = OscarBackend
