# SPDX-License-Identifier: Apache-2.0
"""Calls to SLURM, each a pair: ``<verb>_command`` gives the arguments, ``parse_<verb>`` reads what came back."""

from __future__ import annotations

import re
from pathlib import Path

from oscar_testbed.errors import PlatformError, RejectedError, quoted
from oscar_testbed.fakes.slurm.batch import BatchJob

_WIDTHS = (20, 12, 12, 40, 40, 60)
_COLUMNS = ("JobArrayID", "StateCompact", "exit_code", "Partition", "NodeList", "Reason")


def submit_command(script: Path) -> list[str]:
    """``sbatch`` in the form the interLink SLURM plugin uses (one script, everything in ``#SBATCH`` lines)."""
    return ["sbatch", str(script)]


def parse_submit(code: int, stdout: str, stderr: str) -> str:
    """Job id from what ``sbatch`` printed.

    Like the plugin, any text on standard error counts as a refusal, even when the job was accepted.

    :raises RejectedError: with the text on standard error.
    """
    found = re.match(r"Submitted batch job (\d+)", stdout)
    if code == 0 and not stderr.strip() and found:
        return found[1]
    raise RejectedError(stderr.strip() or f"sbatch exit status {code}, output {quoted(stdout)}")


def jobs_command() -> list[str]:
    """``squeue`` over all jobs it remembers, in fixed-width columns."""
    columns = ",".join(f"{name}:{width}" for name, width in zip(_COLUMNS, _WIDTHS, strict=True))
    return ["squeue", "--noheader", "--all", "--states=all", "-O", columns]


def parse_jobs(code: int, stdout: str, stderr: str) -> dict[str, BatchJob]:
    """Jobs by id; a line that is not understood is left out, a state that is not known is kept.

    :raises PlatformError: when ``squeue`` failed.
    """
    if code != 0:
        raise PlatformError(f"squeue exit status {code}: {quoted(stderr.strip())}; is slurmctld running?")
    found = {}
    for line in stdout.splitlines():
        cells, start = [], 0
        for width in _WIDTHS:
            cells.append(line[start : start + width].strip())
            start += width
        job_id, state, status, partition, node, reason = cells
        if not job_id.isdigit() or not state:
            continue
        wait_status = _wait_status(status)
        found[job_id] = BatchJob(job_id, state, wait_status=wait_status, reason=reason, partition=partition, node=node)
    return found


def _wait_status(text: str) -> int:
    """Read an exit code as SLURM up to 22 prints it (the wait status), or as later ones do (``code:signal``)."""
    found = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    if found is None:
        return 0
    return int(found[1]) if found[2] is None else (int(found[1]) << 8) + int(found[2])


def cancel_command(job_id: str) -> list[str]:
    """``scancel`` of one job."""
    return ["scancel", job_id]
