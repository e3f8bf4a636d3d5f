# SPDX-License-Identifier: Apache-2.0
"""What the rest of the embedded platform asks of a batch system, and the values it gets back.

Two classes answer to :class:`BatchSystem`: :class:`~oscar_testbed.fakes.slurm.real.RealSlurm`
(SLURM's own programs) and :class:`~oscar_testbed.fakes.slurm.builtin.BuiltinSlurm` (a queue of
our own, for machines without SLURM). The words are SLURM's in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: Long state name -> the compact code ``squeue`` prints, for the states that both implementations know.
COMPACT = {
    "PENDING": "PD",
    "CONFIGURING": "CF",
    "RUNNING": "R",
    "SUSPENDED": "S",
    "COMPLETING": "CG",
    "COMPLETED": "CD",
    "CANCELLED": "CA",
    "FAILED": "F",
    "TIMEOUT": "TO",
    "NODE_FAIL": "NF",
    "PREEMPTED": "PR",
    "OUT_OF_MEMORY": "OOM",
    "DEADLINE": "DL",
    "BOOT_FAIL": "BF",
    "STOPPED": "ST",
}
_LONG = {code: name for name, code in COMPACT.items()}

#: States a job does not leave again.
FINISHED = frozenset({"CD", "CA", "F", "TO", "NF", "PR", "OOM", "DL", "BF"})


@dataclass(frozen=True)
class BatchJob:
    """A job as the scheduler last described it.

    ``state`` is ``squeue``'s compact code and is kept as it came, also when this provider does not know it.
    """

    job_id: str
    state: str
    #: The raw wait status, as ``squeue -O exit_code`` prints it: 768 for ``exit 3``, 15 for a SIGTERM.
    wait_status: int = 0
    reason: str = ""
    partition: str = ""
    node: str = ""

    @property
    def finished(self) -> bool:
        """True once the job will not run any more; False for a state that is not known."""
        return self.state in FINISHED

    @property
    def exit_code(self) -> int:
        """Exit code of the batch script, 0 to 255."""
        return (self.wait_status >> 8) & 0xFF

    @property
    def long_state(self) -> str:
        """State in SLURM's long words, or the compact code itself when it is not known."""
        return _LONG.get(self.state, self.state)


@dataclass(frozen=True)
class Partition:
    """A partition with what its nodes offer together."""

    name: str
    nodes: int
    cpus: int
    memory_mib: int
    gpus: int = 0
    default: bool = False


#: What the embedded cluster looks like, whichever implementation runs it.
PARTITIONS = (
    Partition("cpu", nodes=2, cpus=8, memory_mib=16_000, default=True),
    Partition("gpu", nodes=1, cpus=4, memory_mib=8_000, gpus=2),
)


class BatchSystem(Protocol):
    """A small cluster: submit a script, ask for jobs, cancel one."""

    #: ``real`` or ``builtin``.
    kind: str
    log_path: Path

    def start(self) -> None:
        """Bring the cluster up; returns when jobs can be submitted."""

    def stop(self) -> None:
        """Kill every job and every process of the cluster."""

    def healthy(self) -> bool:
        """True while the cluster answers."""

    def submit(self, script: Path) -> str:
        """Queue a script with ``#SBATCH`` lines and return its job id.

        :raises RejectedError: when the scheduler refuses it, with the text ``sbatch`` wrote.
        """

    def jobs(self) -> dict[str, BatchJob]:
        """Every job the scheduler still remembers, by id.

        :raises PlatformError: when the scheduler does not answer.
        """

    def cancel(self, job_id: str) -> None:
        """Cancel a job; an unknown or finished one is not an error."""

    def requeue(self, job_id: str) -> None:
        """End a job that runs and let it wait again, as preemption does where jobs may be requeued."""

    def partitions(self) -> tuple[Partition, ...]:
        """The partitions jobs can name."""

    def environment(self) -> dict[str, str]:
        """What a shell needs so that ``squeue`` and its kin talk to this cluster; empty for the built-in queue."""
