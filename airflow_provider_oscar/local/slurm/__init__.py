# SPDX-License-Identifier: Apache-2.0
"""The batch system of the embedded platform: real SLURM when it is installed, a small queue when not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from airflow_provider_oscar.local.faults import SlurmFaults
from airflow_provider_oscar.local.slurm.batch import BatchJob, BatchSystem, Partition
from airflow_provider_oscar.local.slurm.builtin import BuiltinSlurm
from airflow_provider_oscar.local.slurm.real import RealSlurm, missing_programs
from airflow_provider_oscar.model.errors import DefinitionError, OscarProviderError

__all__ = ["BatchJob", "BatchSystem", "BuiltinSlurm", "Partition", "RealSlurm", "open_slurm"]

log = logging.getLogger(__name__)


def open_slurm(
    directory: Path, mode: Literal["auto", "real", "builtin"] = "auto", faults: SlurmFaults | None = None
) -> BatchSystem:
    """Start a batch system and return it running.

    :param directory: where all its files go.
    :param mode: ``real`` insists on SLURM's programs, ``builtin`` never uses them, ``auto`` uses them when
        all of them are there and come up.
    :param faults: switches of the built-in queue; real SLURM takes none.
    :raises DefinitionError: for another mode, or when ``real`` is asked for and programs are missing.
    """
    if mode not in {"auto", "real", "builtin"}:
        raise DefinitionError(f"slurm={mode!r}: expected 'auto', 'real' or 'builtin'")
    if mode == "real" or (mode == "auto" and not missing_programs()):
        real = RealSlurm(directory)
        try:
            real.start()
        except (OscarProviderError, OSError) as error:
            if mode == "real":
                raise
            log.warning("SLURM is installed but does not start here, using the built-in queue: %s", error)
        else:
            return real
    queue = BuiltinSlurm(directory, faults=faults)
    queue.start()
    return queue
