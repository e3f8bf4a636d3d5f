# SPDX-License-Identifier: Apache-2.0
"""The jobs that OSCAR starts by itself, as a place that is watched: each that has ended is an object.

A file comes to the input of a service, MinIO calls OSCAR, and OSCAR runs a job of a name of its own making, the service
and a UUID (``pkg/handlers/job.go``). Such a job is told from those that this provider submits, whose names it chooses.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.times import read_iso
from airflow_provider_oscar.hooks.oscar.federation import Member, find_connections, get_members
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.oscar.requests import OscarJob
from airflow_provider_oscar.watch.source import EmptyListingGuard, ListingSource, Page

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
#: OSCAR cuts the name of a service that is as long as this, to the length that follows, before it adds the UUID.
_LONG, _KEPT = 25, 16


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


@dataclass(eq=False, kw_only=True)
class ServiceJobsSource(ListingSource):
    """Lists the jobs of a service; those that have ended are its objects.

    :param conn_id: connection of type ``oscar``.
    :param service: name of the service.
    :param interval: seconds between listings.
    :param members: clusters of the service's federation: cluster id to connection.
    """

    conn_id: str
    service: str
    interval: float
    members: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._empty_listings = EmptyListingGuard()

    @property
    def display_name(self) -> str:
        """Service and connection."""
        return f"watching the jobs of OSCAR service {self.service!r} (connection {self.conn_id!r})"

    async def full_listing(self) -> AsyncGenerator[Page, None]:
        """List the jobs once: of the service, then of each cluster that may have been handed some."""
        hook = await OscarHook.resolved(self.conn_id)
        found = await hook.arun(hook.get_service(self.service))
        members = get_members(found or {}, endpoint=hook.api.endpoint)
        locations = [(self.conn_id, self.service), *await self._elsewhere(members)]
        ended: set[str] = set()
        for number, (conn_id, service) in enumerate(locations):
            there = hook if number == 0 else await OscarHook.resolved(conn_id)
            jobs = await there.arun(there.list_jobs(service))
            self._empty_listings.require(len(jobs), self.display_name, f"{conn_id}/{service}")
            now = datetime.now(tz=UTC)
            # A job that runs is another version of what it will be, so nothing of it is remembered.
            events = [
                job_event(conn_id, service, job, now=now)
                for name, job in jobs.items()
                if job.phase.ended and name not in ended
            ]
            ended |= {event.key for event in events}
            yield Page(events, first=number == 0, last=number == len(locations) - 1)

    async def _elsewhere(self, members: tuple[Member, ...]) -> tuple[tuple[str, str], ...]:
        own = {each.cluster_id for each in members} - self.members.keys()
        known = {each for each in own if await _is_connection(each)}
        return find_connections(members, self.members, known.__contains__, display_name=self.display_name)


async def _is_connection(conn_id: str) -> bool:
    """Whether Airflow has a connection of type ``oscar`` of this id; asked without blocking the event loop."""
    try:
        return bool(conn_id) and (await OscarHook.aget_connection(conn_id)).conn_type == OscarHook.conn_type
    except AirflowNotFoundException:
        return False
