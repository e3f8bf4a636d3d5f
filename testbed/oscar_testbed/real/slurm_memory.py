# SPDX-License-Identifier: Apache-2.0
"""The stack's SLURM with memory limits that hold: jobs live in control groups, and one that takes too much is killed.

Needs root and version 1 of control groups, which is what SLURM 22.05 can do.
"""

from __future__ import annotations

import os
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.slurm.real import NODES
from oscar_testbed.real.slurm import Slurm
from oscar_testbed.real.undo_log import UndoLog

CGROUPS = Path("/sys/fs/cgroup")
_HIERARCHIES = ("memory", "freezer")


def missing() -> str:
    """What this machine lacks, in words; empty if nothing."""
    if os.geteuid() != 0:
        return "memory limits of SLURM need root"
    for name in _HIERARCHIES:
        path = CGROUPS / name
        if not (path / "tasks").exists():
            return f"memory limits of SLURM 22.05 need the control group hierarchy {path} (version 1)"
        if not os.access(path, os.W_OK):
            return f"{path} is not writable"
    return ""


def groups() -> list[Path]:
    """Control groups of this cluster's nodes that are there now, in every hierarchy."""
    names = [_group(node) for node, _, _ in NODES]
    return sorted(path for name in names for path in CGROUPS.glob(f"*/{name}"))


def _group(node: str) -> str:
    """Several slurmd on one host have a group each."""
    return f"slurm_{node}"


class MemoryBoundSlurm(Slurm):
    """As :class:`Slurm`; each job has a control group with its memory limit.

    :param directory: as for :class:`Slurm`; one such cluster at a time, since the groups are named after the nodes.
    :param ledger: where the groups are written down.
    """

    name = "SLURM with memory limits"

    def __init__(self, directory: Path, undo_log: UndoLog) -> None:
        super().__init__(
            directory,
            settings={"TaskPlugin": "task/cgroup", "ProctrackType": "proctrack/cgroup"},
            cgroup={
                "CgroupMountpoint": str(CGROUPS),
                "CgroupAutomount": "no",
                "ConstrainRAMSpace": "yes",
                "ConstrainCores": "no",
                "ConstrainDevices": "no",
            },
        )
        self._undo_log = undo_log

    def start(self) -> None:
        """See :meth:`RealSlurm.start`."""
        if lack := missing():
            raise MissingPrerequisite(lack)
        for node, _, _ in NODES:
            self._undo_log.note("cgroup", _group(node))
        super().start()
