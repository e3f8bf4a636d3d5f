# SPDX-License-Identifier: Apache-2.0
"""Waits for a job of an OSCAR service; one list of jobs per service and triggerer, however many tasks wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.hooks.oscar.api import OscarJob
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.triggers.jobs import JobArguments, JobTrigger
from airflow_provider_oscar.triggers.shared_poll import JobSource, JobView, OpenSource

_USUAL = {"Pending", "Running", "Succeeded", "Failed"}


@dataclass(frozen=True, kw_only=True)
class OscarJobArguments(JobArguments):
    """Arguments of :class:`OscarJobTrigger`; those of ``JobArguments``, and:

    :param service: name of the OSCAR service.
    """

    service: str


class OscarJobTrigger(JobTrigger[OscarJobArguments]):
    """Waits until a job of a service has ended, and shows its log meanwhile.

    Arguments: see :class:`OscarJobArguments`.
    """

    arguments_type = OscarJobArguments

    def poll_key(self) -> Hashable:
        return ("oscar", self.arguments.conn_id, self.arguments.service)

    def source(self) -> OpenSource:
        conn_id, service = self.arguments.conn_id, self.arguments.service

        @asynccontextmanager
        async def opened() -> AsyncIterator[JobSource]:
            hook = await OscarHook.resolved(conn_id)
            async with hook.async_client() as client:
                yield _ServiceJobs(hook, client, service)

        return opened

    async def cancel_job(self) -> bool:
        hook = await OscarHook.resolved(self.arguments.conn_id)
        return await hook.arun(hook.delete_job(self.arguments.service, self.arguments.job_id))


@dataclass(frozen=True)
class _ServiceJobs:
    hook: OscarHook
    client: httpx.AsyncClient
    service: str

    async def snapshot(self) -> Mapping[str, JobView]:
        jobs = await self.hook.arun(self.hook.list_jobs(self.service), self.client)
        return {name: job_view(job) for name, job in jobs.items()}

    async def read_log(self, job: str) -> str | None:
        return await self.hook.arun(self.hook.job_log(self.service, job), self.client)


def job_view(job: OscarJob | None) -> JobView:
    """Return one look at an OSCAR job; OSCAR's own word only where it says more than the phase."""
    if job is None:
        return JobView(JobPhase.ABSENT)
    return JobView(phase=job.phase, note="" if job.raw in _USUAL else job.raw)
