# SPDX-License-Identifier: Apache-2.0
"""What a job's lifecycle gives and takes: a job that succeeded, and where people read what happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.status import JobStatus


class Log(Protocol):
    """The part of a logger that is used."""

    def info(self, text: str, /, *values: object) -> object:
        """Log a line."""

    def warning(self, text: str, /, *values: object) -> object:
        """Log a line that somebody should read."""


@dataclass(frozen=True, slots=True)
class Concluded:
    """A job that succeeded.

    :param manifest: what proves it.
    :param job: as it is remembered.
    :param status: the last look at it.
    """

    manifest: Manifest
    job: RunningJob
    status: JobStatus
