# SPDX-License-Identifier: Apache-2.0
"""The seam between jobs and the systems that run them: one class per system, found by the name of its module.

A kind of job is one module of this package, ``jobs/<name>.py``, that names its class ``BACKEND``, and the hook it
uses; or, in a distribution of its own, an entry point ``<name>`` of the group ``airflow_provider_oscar.job_backends``
that leads to the class. Operators, the one trigger, sensors, placement, the page and the command line know the
protocol alone.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar, cast

from airflow_provider_oscar.core.cancellation import Cancellation
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.words import nearest
from airflow_provider_oscar.hooks.checks import Check
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.status import JobStatus
from airflow_provider_oscar.placement.targets import TargetObservation

if TYPE_CHECKING:
    from airflow.sdk import Connection

#: Entry points of back ends that other distributions bring.
GROUP = "airflow_provider_oscar.job_backends"
W_contra = TypeVar("W_contra", contravariant=True)


class JobClient(Protocol):
    """Looks at the jobs of one place from the event loop, through one client for all who wait."""

    async def statuses(self) -> Mapping[str, JobStatus]:
        """Return every job there, by name; one request or a few, however many jobs."""

    async def log(self, job_id: str) -> str | None:
        """Return the whole log so far, or None while there is none."""


class JobSystem(Protocol):
    """One place that runs jobs: a service, or a namespace.

    The methods without ``async`` block and are called on a worker; those with it are called in the triggerer.
    """

    conn_id: str
    """Airflow connection of the system."""
    name: ClassVar[str]
    """Name of the module or entry point, as triggers store it and as placement targets have it as their ``kind``."""
    operator: ClassVar[str]
    """Path of the operator whose tasks submit these jobs; a placement makes them by its ``for_target``."""
    conn_types: ClassVar[tuple[str, ...]]
    """Types of the connections it takes."""
    connection: Connection | None
    """The connection, where it was read already: in the API server, which also repeats no call for long."""

    @classmethod
    def checks(cls, connection: Connection, *, write: bool) -> Iterator[Check]:
        """Return what ``airflow oscar check`` looks at.

        :param connection: of one of ``conn_types``.
        :param write: also try what leaves a trace for a moment.
        """

    parts_title: ClassVar[str]
    """What the page calls the parts of such a system, in the plural."""

    @classmethod
    def parts(cls, connection: Connection) -> list[dict[str, object]]:
        """Return what the page shows of a system, nothing secret: one row for each part, with its ``name``.

        :param connection: of one of ``conn_types``.
        """

    def address(self) -> dict[str, str]:
        """Return the keyword arguments that make a backend which finds a job of this one again; asks nobody."""

    def cancel_command(self, job_id: str) -> str:
        """Return the command line by which a person cancels a job."""

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


class JobBackend(JobSystem, Protocol[W_contra]):
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


def find_backend(name: str) -> type[JobSystem]:
    """Return the back end of a name.

    :param name: name of a module of this package, or of an entry point.
    :raises DefinitionError: if there is none.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise DefinitionError(f"{quoted(name)} is not the name of a job backend")
    own = f"{__package__}.{name}"
    try:
        return cast("type[JobSystem]", import_module(own).BACKEND)
    except ModuleNotFoundError as error:
        if error.name != own:
            raise
    except AttributeError:
        pass
    for each in entry_points(group=GROUP, name=name):
        return cast("type[JobSystem]", each.load())
    known = backend_names()
    raise DefinitionError(f"there is no job backend {name!r}; expected one of {', '.join(known)}{nearest(name, known)}")


def require_backend(name: str, argument: str) -> None:
    """Refuse a kind of job that nothing makes, without loading what makes the others.

    :param name: as of :func:`find_backend`.
    :param argument: words that say where it was given.
    :raises DefinitionError: with the nearest name.
    """
    own = (Path(__file__).parent / f"{name}.py").is_file() or (Path(__file__).parent / name).is_dir()
    if not own and not entry_points(group=GROUP, name=name):
        known = backend_names()
        raise DefinitionError(f"{argument} is {quoted(name)}; expected one of {', '.join(known)}{nearest(name, known)}")


def backend_names() -> list[str]:
    """Return the names of all back ends, sorted."""
    modules = (each.name for each in pkgutil.iter_modules([str(Path(__file__).parent)]))
    own = {name for name in modules if hasattr(import_module(f"{__package__}.{name}"), "BACKEND")}
    return sorted(own | {each.name for each in entry_points(group=GROUP)})


def backends_by_connection() -> dict[str, type[JobSystem]]:
    """Return the back end of each type of connection; of several that share one, the first by name."""
    found: dict[str, type[JobSystem]] = {}
    for kind in map(find_backend, backend_names()):
        for conn_type in kind.conn_types:
            found.setdefault(conn_type, kind)
    return found


def open_backend(name: str, arguments: Mapping[str, str]) -> JobSystem:
    """Make the back end that a trigger, a sensor or a job stored.

    :param name: as of :func:`find_backend`.
    :param arguments: from :meth:`JobSystem.arguments` or :meth:`JobSystem.address`.
    :raises DefinitionError: if there is no such back end, or it does not take these arguments.
    """
    kind = find_backend(name)
    try:
        return kind(**arguments)
    except TypeError as error:
        raise DefinitionError(f"job backend {name!r} cannot be made: {error}") from error
