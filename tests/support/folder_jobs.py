# SPDX-License-Identifier: Apache-2.0
"""A third kind of job, which the provider knows nothing of: one module with a back end and its operator.

The system is a directory: a job is a folder in it with ``job.json`` and a file ``phase``.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

from airflow.sdk import BaseHook

from airflow_provider_oscar.base_arguments import OperatorArguments, checks_arguments
from airflow_provider_oscar.core.cancellation import ABSENT_BEFORE, Cancellation
from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.hooks.checks import Check
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.status import ABSENT, JobStatus
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.operators.job_building import build_job
from airflow_provider_oscar.placement.targets import PlacementTarget, TargetObservation

if TYPE_CHECKING:
    from airflow.sdk import Connection, Context

Work = Mapping[str, str]


@dataclass(frozen=True)
class Folder:
    """The system behind a connection, whose host is the directory."""

    path: Path

    def entries(self) -> list[Path]:
        if not self.path.is_dir():
            raise TransientError(f"{self.path} is not there")
        return sorted(self.path.iterdir())

    def status(self, job_id: str) -> JobStatus:
        if self.path / job_id not in self.entries():
            return ABSENT
        return JobStatus(JobPhase((self.path / job_id / "phase").read_text()))


class FolderBackend:
    """The jobs of one directory."""

    name: ClassVar[str] = "folder"
    operator: ClassVar[str] = "tests.support.folder_jobs.FolderJobOperator"
    conn_types: ClassVar[tuple[str, ...]] = ("folder",)
    parts_title: ClassVar[str] = "Folders"
    looks_at_one: ClassVar[bool] = True
    cleans_up = True

    def __init__(self, *, conn_id: str) -> None:
        self.conn_id = conn_id
        self.connection: Connection | None = None

    @cached_property
    def folder(self) -> Folder:
        return Folder(Path(str((self.connection or BaseHook.get_connection(self.conn_id)).host)))

    @classmethod
    def checks(cls, connection: Connection, *, write: bool) -> Iterator[Check]:
        folder = Folder(Path(str(connection.host)))
        yield Check("list jobs", lambda: f"{len(folder.entries())} jobs", gate=True)

    @classmethod
    def parts(cls, connection: Connection) -> list[dict[str, object]]:
        return [{"name": each.name} for each in Folder(Path(str(connection.host))).entries()]

    def arguments(self) -> dict[str, str]:
        return {"conn_id": self.conn_id}

    def address(self) -> dict[str, str]:
        return self.arguments()

    @property
    def key(self) -> tuple[str, str]:
        return ("folder", self.conn_id)

    @property
    def display_name(self) -> str:
        return f"folder (connection {self.conn_id!r})"

    def cancel_command(self, job_id: str) -> str:
        return f"rm -r {job_id}"

    def submit_new(self, job: RunningJob, prepare: Callable[[RunningJob], Work]) -> RunningJob | None:
        return None

    def submit(self, job: RunningJob, work: Work) -> RunningJob:
        made = self.folder.path / job.job_id
        made.mkdir()
        (made / "job.json").write_text(work["job.json"])
        (made / "phase").write_text(JobPhase.PENDING.value)
        return replace(job, submitted_at="")

    def complete(self, job: RunningJob, prepare: Callable[[], Work]) -> None:
        pass

    def status(self, job_id: str) -> JobStatus:
        return self.folder.status(job_id)

    def log(self, job_id: str) -> str | None:
        return None

    def log_chunks(self, job_id: str) -> Iterator[bytes]:
        yield from ()

    def cancel(self, job_id: str) -> Cancellation:
        if self.status(job_id) == ABSENT:
            return ABSENT_BEFORE
        shutil.rmtree(self.folder.path / job_id)
        return Cancellation(found=True, verified=True, known="was cancelled")

    def delete_ended(self, job_id: str) -> None:
        self.cancel(job_id)

    def cleanup(self, job_id: str, *, succeeded: bool) -> None:
        self.cancel(job_id)

    def release(self, job_id: str) -> None:
        pass

    def observe(self) -> TargetObservation:
        try:
            return TargetObservation(name=self.display_name, active=len(self.folder.entries()))
        except TransientError as error:
            return TargetObservation(name=self.display_name, up=False, reason=str(error))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FolderClient]:
        yield FolderClient(self.folder)

    async def acancel(self, job_id: str) -> Cancellation:
        return await asyncio.to_thread(self.cancel, job_id)


@dataclass(frozen=True)
class FolderClient:
    """Looks at all jobs for whoever waits."""

    folder: Folder

    async def statuses(self) -> Mapping[str, JobStatus]:
        entries = await asyncio.to_thread(self.folder.entries)
        return {each.name: self.folder.status(each.name) for each in entries}

    async def log(self, job_id: str) -> str | None:
        return None


class FolderJobOperator(JobOperator[Work]):
    """Runs a command as a folder."""

    @checks_arguments
    def __init__(
        self,
        *,
        command: Sequence[str],
        output_uri: str,
        object_event: object = None,
        output_conn_id: str = "oscar_s3_default",
        environment: Mapping[str, str] | None = None,
        placement: str = "",
        folder_conn_id: str = "folder_default",
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(
            object_event=object_event,
            output_uri=output_uri,
            output_conn_id=output_conn_id,
            command=command,
            environment=environment,
            timeout=None,
            queue_timeout=None,
            poll_interval=0.01,
            deferrable=True,
            reuse="retries",
            **kwargs,
        )
        self.placement = placement
        self.folder_conn_id = folder_conn_id

    @classmethod
    def for_target(cls, target: PlacementTarget, *, service: str, image: str, **arguments: Any) -> Self:
        return cls(placement=target.name, **arguments)

    @cached_property
    def backend(self) -> FolderBackend:
        return FolderBackend(conn_id=self.folder_conn_id)

    def prepare(self, job: RunningJob, context: Context) -> Work:
        return build_job(self, job, placement=self.placement).secret
