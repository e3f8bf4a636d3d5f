# SPDX-License-Identifier: Apache-2.0
"""The batch system of the embedded platform: real SLURM when it is installed, a small queue when not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from oscar_testbed.errors import PlatformError, RejectedError
from oscar_testbed.fakes.slurm.batch import BatchJob, BatchSystem, Partition
from oscar_testbed.fakes.slurm.builtin import BuiltinSlurm
from oscar_testbed.fakes.slurm.real import RealSlurm, missing_programs
from oscar_testbed.faults import SlurmFaults

__all__ = ["BatchJob", "BatchSystem", "BuiltinSlurm", "Partition", "RealSlurm", "SlurmMode", "open_slurm"]

log = logging.getLogger(__name__)

SlurmMode = Literal["auto", "real", "builtin"]


def open_slurm(directory: Path, mode: SlurmMode = "auto", faults: SlurmFaults | None = None) -> BatchSystem:
    """Return the batch system that ``mode`` asks for, started.

    :param directory: where all its files go.
    :param mode: ``real`` insists on SLURM's programs, ``builtin`` never uses them, ``auto`` uses them when
        all of them are there and come up.
    :param faults: switches of the built-in queue; real SLURM takes none.
    :raises RejectedError: for another mode.
    :raises MissingPrerequisite: when ``real`` is asked for and programs are missing.
    """
    if mode not in ("auto", "real", "builtin"):
        raise RejectedError(f"slurm={mode!r}: expected 'auto', 'real' or 'builtin'")
    if mode == "real" or (mode == "auto" and not missing_programs()):
        real = RealSlurm(directory)
        try:
            real.start()
        except (PlatformError, OSError) as error:
            if mode == "real":
                raise
            log.warning("SLURM is installed but does not start here, using the built-in queue: %s", error)
        else:
            return real
    queue = BuiltinSlurm(directory, faults=faults)
    queue.start()
    return queue
