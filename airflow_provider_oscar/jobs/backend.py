# SPDX-License-Identifier: Apache-2.0
"""The seam between jobs and the systems that run them: one class per system, found by the name of its module.

A kind of job is one module of this package, ``jobs/<name>.py``, that names its class ``BACKEND``, and the hook it
uses. Operators, the one trigger, sensors and placement know the protocol alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import ClassVar, Protocol, TypeVar, cast

from airflow_provider_oscar.core.cancellation import Cancellation
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.status import JobStatus
from airflow_provider_oscar.placement.targets import TargetObservation

W_contra = TypeVar("W_contra", contravariant=True)


class JobClient(Protocol):
    """Looks at the jobs of one place from the event loop, through one client for all who wait."""

    async def statuses(self) -> Mapping[str, JobStatus]:
        """Return every job there, by name; one request or a few, however many jobs."""

    async def log(self, job_id: str) -> str | None:
        """Return the whole log so far, or None while there is none."""


class JobPlace(Protocol):
    """One place that runs jobs: a service, or a namespace.

    The methods without ``async`` block and are called on a worker; those with it are called in the triggerer.
    """

    conn_id: str
    """Airflow connection of the system."""
    name: ClassVar[str]
    """Name of the module, as triggers and placement targets store it."""

    def arguments(self) -> dict[str, str]:
        """Return the keyword arguments that make an equal backend in another process; no secret is among them."""

    looks_at_one: ClassVar[bool]
    """Whether :meth:`status` asks for one job alone; else it lists all there are."""

    @property
    def key(self) -> Hashable:
        """Backends with an equal key look at the same place, and share one poll."""

    @property
    def display_name(self) -> str:
        """Connection and service, node or namespace, for messages."""

    def status(self, job_id: str) -> JobStatus:
        """Look at one job."""

    def log(self, job_id: str) -> str | None:
        """Return the whole log, or None if there is none."""

    def log_chunks(self, job_id: str) -> Iterable[bytes]:
        """Return the whole log as it is, in pieces, however long it is."""

    def cancel(self, job_id: str) -> Cancellation:
        """Cancel and remove the job, and look what became of it."""

    def delete_ended(self, job_id: str) -> None:
        """Remove a job that has ended, and return when its name is free again."""

    @property
    def cleans_up(self) -> bool:
        """Whether :meth:`cleanup` removes anything of a job that succeeded."""

    def cleanup(self, job_id: str, *, succeeded: bool) -> None:
        """Remove what an ended job leaves behind, once its log and manifest were read."""

    def release(self, job_id: str) -> None:
        """Take from an ended job what it was given, and leave the rest for people to look at."""

    def observe(self) -> TargetObservation:
        """Look whether the place takes work, and how many jobs it has; never raises for an outage."""

    def open(self) -> AbstractAsyncContextManager[JobClient]:
        """Open a client for a poll."""

    async def acancel(self, job_id: str) -> Cancellation:
        """Do what :meth:`cancel` does without blocking the event loop."""


class JobBackend(JobPlace, Protocol[W_contra]):
    """A place to which jobs can be submitted; ``W`` is what it takes: a request body, or a pod and its secret."""

    def submit_new(self, job: RunningJob, prepare: Callable[[RunningJob], W_contra]) -> RunningJob | None:
        """Start the job unless one of its name is there, where that costs less than to look for it first.

        :param prepare: makes what is submitted.
        :return: the job as it is to be remembered; None if one is there, or if it has to be looked for.
        """

    def submit(self, job: RunningJob, work: W_contra) -> RunningJob:
        """Start the job, or adopt the one that came into being meanwhile; return it as it is to be remembered."""

    def complete(self, job: RunningJob, prepare: Callable[[], W_contra]) -> None:
        """Give an adopted job that waits what its submission did not come to, if anything."""


def open_backend(name: str, arguments: Mapping[str, str]) -> JobPlace:
    """Make the backend that a trigger or a sensor stored.

    :param name: name of a module of this package.
    :param arguments: from :meth:`JobPlace.arguments`.
    :raises DefinitionError: if there is no such backend, or it does not take these arguments.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise DefinitionError(f"{quoted(name)} is not the name of a job backend")
    try:
        kind = import_module(f"airflow_provider_oscar.jobs.{name}").BACKEND
    except (ModuleNotFoundError, AttributeError) as error:
        raise DefinitionError(f"there is no job backend {name!r}") from error
    try:
        return cast("JobPlace", kind(**arguments))
    except TypeError as error:
        raise DefinitionError(f"job backend {name!r} cannot be made: {error}") from error
