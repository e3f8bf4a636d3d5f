# SPDX-License-Identifier: Apache-2.0
"""The stack's SLURM: the embedded platform's private cluster, which is real already."""

from __future__ import annotations

import os

from oscar_testbed.fakes.slurm.real import RealSlurm
from oscar_testbed.real.base import run


class Slurm(RealSlurm):
    """munged, slurmctld and three slurmd; partitions ``cpu`` and ``gpu``."""

    name = "SLURM"
    real = True

    @property
    def version(self) -> str:
        """From the program."""
        return (
            run(["sinfo", "--version"], env={**os.environ, **self.environment()})
            .strip()
            .removeprefix("slurm-wlm ")
            .removeprefix("slurm ")
        )
