# SPDX-License-Identifier: Apache-2.0
"""The jobs that OSCAR starts by itself, as a place that is watched: each that has ended is an object.

A file comes to the input of a service, MinIO calls OSCAR, and OSCAR runs a job of a name of its own making, the service
and a UUID (``pkg/handlers/job.go``). Such a job is told from those that this provider submits, whose names it chooses.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.times import read_iso
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.oscar.requests import OscarJob
from airflow_provider_oscar.watch.arguments.base import WatchArguments
from airflow_provider_oscar.watch.policy import Policy
from airflow_provider_oscar.watch.source import EmptyListingGuard, ListingSource, Page

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
#: OSCAR cuts the name of a service that is as long as this, to the length that follows, before it adds the UUID.
_LONG, _KEPT = 25, 16
#: How a job may end, by the word that a watcher gives for it.
STATES = {"succeeded": JobPhase.SUCCEEDED, "failed": JobPhase.FAILED}


def is_named_by_oscar(service: str, job: str) -> bool:
    """Whether a job has a name of OSCAR's own making, so that it was started by an event and not by this provider."""
    start = f"{service if len(service) < _LONG else service[:_KEPT]}-"
    return job.startswith(start) and _UUID.fullmatch(job[len(start) :]) is not None


def job_event(conn_id: str, service: str, job: OscarJob, *, now: datetime) -> ObjectEvent:
    """Return a job as an object.

    :param now: stands for the time of its end where OSCAR does not tell it; it is not part of the identity.
    """
    try:
        ended = read_iso(job.finished or job.started or job.created)
    except ValueError:
        ended = now
    return ObjectEvent(
        source=StoreType.OSCAR,
        conn_id=conn_id,
        container=service,
        key=job.name,
        size=None,
        etag=job.phase.value,
        version_id="",
        modified=ended,
    )


class ServiceJobsSource(ListingSource):
    """Lists the jobs of a service; those that have ended are its objects.

    :param conn_id: connection of type ``oscar``.
    :param service: name of the service.
    :param interval: seconds between listings.
    """

    def __init__(self, *, conn_id: str, service: str, interval: float) -> None:
        self.interval = interval
        self._conn_id = conn_id
        self._service = service
        self._believed = EmptyListingGuard()

    @property
    def about(self) -> str:
        """Service and connection."""
        return f"watching the jobs of OSCAR service {self._service!r} (connection {self._conn_id!r})"

    async def full_listing(self) -> AsyncGenerator[Page, None]:
        """List the jobs once."""
        hook = await OscarHook.resolved(self._conn_id)
        jobs = await hook.arun(hook.list_jobs(self._service))
        self._believed.require(len(jobs), self.about)
        now = datetime.now(tz=UTC)
        seen = {name: job_event(self._conn_id, self._service, job, now=now) for name, job in jobs.items()}
        ended = [event for name, event in seen.items() if jobs[name].phase.ended]
        # A job that runs is another version of what it will be, so nothing of it is remembered.
        yield Page(ended, first=True, last=True)


@dataclass(frozen=True, kw_only=True)
class ServiceJobsArguments(WatchArguments):
    """What a watcher of a service's jobs has; ``OscarServiceJobsTrigger`` says what each means.

    :param service: name of the service.
    :param states: how a job must have ended: ``succeeded``, ``failed``.
    :param submitted: whether jobs that were submitted under a chosen name count as well.
    """

    service: str
    states: tuple[str, ...] = ("succeeded",)
    submitted: bool = False
    personal = frozenset({"states", "submitted"})

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", tuple(self.states))
        super().__post_init__()
        if not self.service:
            raise DefinitionError("service of a watcher is empty; give the name of an OSCAR service")
        if not self.states or set(self.states) - STATES.keys():
            raise DefinitionError(f"states of a watcher is {quoted(self.states)}; expected some of {', '.join(STATES)}")
        if self.sentinel:
            raise DefinitionError("a watcher of jobs has no sentinel")

    def to_dict(self) -> dict[str, object]:
        """Return what the database holds: every argument, as JSON."""
        return {**super().to_dict(), "states": list(self.states)}

    def state_place(self) -> tuple[str, ...]:
        """Return connection, service and which of its jobs count."""
        return ("oscar", self.conn_id, self.service, ",".join(sorted(self.states)), str(self.submitted))

    def source(self) -> ServiceJobsSource:
        """Return the listing of the jobs."""
        return ServiceJobsSource(conn_id=self.conn_id, service=self.service, interval=self.poll_interval)

    def about(self) -> str:
        """Return service and connection."""
        return f"jobs of OSCAR service {self.service!r} (connection {self.conn_id!r})"

    def policy(self) -> Policy:
        """Return what the watcher wants to see."""
        return replace(super().policy(), accepts=self._accepts)

    def _accepts(self, event: ObjectEvent) -> bool:
        wanted = {STATES[state].value for state in self.states}
        own = self.submitted or is_named_by_oscar(self.service, event.key)
        return own and event.etag in wanted and self.filter.accepts(event)
