# SPDX-License-Identifier: Apache-2.0
"""The stack's SLURM: the embedded platform's private cluster, which is real already."""

from __future__ import annotations

from oscar_testbed.fakes.slurm import programs
from oscar_testbed.fakes.slurm.real import RealSlurm


class Slurm(RealSlurm):
    """munged, slurmctld and three slurmd; partitions ``cpu`` and ``gpu``."""

    name = "SLURM"
    real = True

    @property
    def version(self) -> str:
        """From the program."""
        return programs.version()
