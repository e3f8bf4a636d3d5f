# SPDX-License-Identifier: Apache-2.0
"""How a command starts on more than one process or node: through ``srun``, ``mpirun`` or ``torchrun``.

Pure composition of command lines. Without a launcher the command runs once, on the first node of the allocation.
"""

from __future__ import annotations

import re
from typing import Any

#: Where the first node listens for torchrun's rendezvous, unless the job sets MASTER_PORT. The node is called as SLURM
#: calls it, unless the job sets MASTER_ADDR.
TORCH_PORT = 29500


def launched(spec: dict[str, Any], environment: dict[bytes, bytes]) -> list[str]:
    """Return the command line that starts the job's command with its launcher.

    :param spec: the job specification.
    :param environment: of the command; SLURM's variables in it fill in what the specification leaves open.
    """
    compose = {"srun": _srun, "mpirun": _mpirun, "torchrun": _torchrun}.get(spec["launcher"])
    command: list[str] = spec["command"]
    return command if compose is None else [*compose(spec, environment), *command]


def thread_count(spec: dict[str, object], environment: dict[bytes, bytes]) -> int | None:
    """Return the OMP_NUM_THREADS of each process: what SLURM gave each task, if it did."""
    return None if b"OMP_NUM_THREADS" in environment else _number(environment, "SLURM_CPUS_PER_TASK")


def first_node(nodelist: str) -> str:
    """Return the first host of SLURM's compressed list: ``cn[07-09,12],gpu1`` gives ``cn07``."""
    found = re.match(r"([^\[,]+)(?:\[([^\],-]+)[^\]]*\])?([^,\[]*)", nodelist)
    return "" if found is None else found.group(1) + (found.group(2) or "") + (found.group(3) or "")


def _srun(spec: dict[str, Any], environment: dict[bytes, bytes]) -> list[str]:
    words = ["srun", "--kill-on-bad-exit=1", "--label" if spec["ntasks"] and spec["ntasks"] > 1 else "--unbuffered"]
    for flag in ("nodes", "ntasks", "ntasks_per_node"):
        if spec[flag]:
            words.append(f"--{flag.replace('_', '-')}={spec[flag]}")
    cpus = _number(environment, "SLURM_CPUS_PER_TASK")
    # Since SLURM 22.05 srun does not take it from sbatch any more.
    return words + ([f"--cpus-per-task={cpus}"] if cpus else [])


def _tasks(spec: dict[str, Any], environment: dict[bytes, bytes]) -> int:
    nodes = spec["nodes"] or _number(environment, "SLURM_JOB_NUM_NODES") or 1
    if spec["ntasks"]:
        return int(spec["ntasks"])
    if spec["ntasks_per_node"]:
        return int(spec["ntasks_per_node"]) * int(nodes)
    return _number(environment, "SLURM_NTASKS") or int(nodes)


def _mpirun(spec: dict[str, object], environment: dict[bytes, bytes]) -> list[str]:
    # -n is common to Open MPI, MPICH and Intel MPI; hosts come from SLURM's variables, which all of them read.
    return ["mpirun", "-n", str(_tasks(spec, environment))]


def _torchrun(spec: dict[str, Any], environment: dict[bytes, bytes]) -> list[str]:
    nodes = int(spec["nodes"] or _number(environment, "SLURM_JOB_NUM_NODES") or 1)
    per_node = spec["ntasks_per_node"] or max(1, _tasks(spec, environment) // nodes)
    words = ["torchrun", f"--nnodes={nodes}", f"--nproc-per-node={per_node}", "--no-python"]
    if nodes == 1:
        return [*words[:1], "--standalone", *words[2:]]
    host = _text(environment, "MASTER_ADDR") or first_node(_text(environment, "SLURM_JOB_NODELIST"))
    port = _number(environment, "MASTER_PORT") or TORCH_PORT
    start = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    return [
        *start,
        *words,
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={host}:{port}",
        f"--rdzv-id={spec['submission_id']}",
    ]


def _text(environment: dict[bytes, bytes], name: str) -> str:
    return environment.get(name.encode("ascii"), b"").decode("ascii", "replace")


def _number(environment: dict[bytes, bytes], name: str) -> int | None:
    value = _text(environment, name)
    return int(value) if value.isdigit() and int(value) > 0 else None
