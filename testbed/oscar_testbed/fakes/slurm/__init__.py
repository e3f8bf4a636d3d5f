# SPDX-License-Identifier: Apache-2.0
"""The batch system of the embedded platform: real SLURM when it is installed, a small queue when not."""

from __future__ import annotations

import logging
from pathlib import Path

from oscar_testbed.errors import PlatformError, RejectedError
from oscar_testbed.fakes.slurm.batch import BatchJob, BatchSystem, Partition
from oscar_testbed.fakes.slurm.builtin import BuiltinSlurm
from oscar_testbed.fakes.slurm.real import RealSlurm, missing_programs
from oscar_testbed.faults import SlurmFaults

__all__ = ["BatchJob", "BatchSystem", "BuiltinSlurm", "LocalSlurm", "Partition", "RealSlurm", "open_slurm"]

log = logging.getLogger(__name__)


class LocalSlurm:
    """The batch system that ``mode`` asks for, chosen when it is started.

    :param directory: where all its files go.
    :param mode: ``real`` insists on SLURM's programs, ``builtin`` never uses them, ``auto`` uses them when
        all of them are there and come up.
    :param faults: switches of the built-in queue; real SLURM takes none.
    :raises RejectedError: for another mode.
    """

    def __init__(self, directory: Path, mode: str = "auto", faults: SlurmFaults | None = None) -> None:
        if mode not in {"auto", "real", "builtin"}:
            raise RejectedError(f"slurm={mode!r}: expected 'auto', 'real' or 'builtin'")
        self._directory = directory
        self._mode = mode
        self._faults = faults
        self._queue: BatchSystem = BuiltinSlurm(directory, faults=faults)
        self._running = False

    @property
    def kind(self) -> str:
        """``real`` or ``builtin``; final once it is started."""
        return self._queue.kind

    @property
    def log_path(self) -> Path:
        """Log of the scheduler."""
        return self._queue.log_path

    def start(self) -> None:
        """Start it; does nothing if it runs.

        :raises RejectedError: when ``real`` is asked for and programs are missing.
        """
        if self._running:
            return
        self._queue = self._open()
        self._running = True

    def stop(self) -> None:
        """See :meth:`BatchSystem.stop`."""
        self._running = False
        self._queue.stop()

    def healthy(self) -> bool:
        """See :meth:`BatchSystem.healthy`."""
        return self._running and self._queue.healthy()

    def submit(self, script: Path) -> str:
        """See :meth:`BatchSystem.submit`."""
        return self._queue.submit(script)

    def jobs(self) -> dict[str, BatchJob]:
        """See :meth:`BatchSystem.jobs`."""
        return self._queue.jobs()

    def cancel(self, job_id: str) -> None:
        """See :meth:`BatchSystem.cancel`."""
        self._queue.cancel(job_id)

    def partitions(self) -> tuple[Partition, ...]:
        """See :meth:`BatchSystem.partitions`."""
        return self._queue.partitions()

    def environment(self) -> dict[str, str]:
        """What a shell needs so that ``squeue`` and its kin talk to this cluster; empty for the built-in queue."""
        return self._queue.environment() if isinstance(self._queue, RealSlurm) else {}

    def _open(self) -> BatchSystem:
        if self._mode == "real" or (self._mode == "auto" and not missing_programs()):
            real = RealSlurm(self._directory)
            try:
                real.start()
            except (PlatformError, OSError) as error:
                if self._mode == "real":
                    raise
                log.warning("SLURM is installed but does not start here, using the built-in queue: %s", error)
            else:
                return real
        queue = BuiltinSlurm(self._directory, faults=self._faults)
        queue.start()
        return queue


def open_slurm(directory: Path, mode: str = "auto", faults: SlurmFaults | None = None) -> LocalSlurm:
    """Return a batch system that is not yet started; parameters as for :class:`LocalSlurm`."""
    return LocalSlurm(directory, mode, faults)
