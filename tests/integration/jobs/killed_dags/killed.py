# SPDX-License-Identifier: Apache-2.0
"""Five SLURM jobs of half a minute: three that the triggerer waits for, two that occupy their worker."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG

from airflow_provider_oscar import InterLinkPodOperator, PlacementTarget, SlurmOptions

HPC = PlacementTarget(
    name="hpc-cpu",
    task_id="x",
    kind="interlink",
    node=os.environ.get("QUICK_NODE", "slurm-cpu"),
    slurm=SlurmOptions(time="5", memory_mib=64),
)
COMMON: dict[str, Any] = {
    "image": "python:3-slim",
    "target": HPC,
    "output_uri": "s3://outgoing/killed",
    "poll_interval": 1,
    "retries": 2,
    "retry_delay": 1,
}


def commands(count: int) -> list[list[str]]:
    """So many commands that take a while."""
    return [["sh", "-c", f"sleep 30; echo {number} > $TMP_OUTPUT_DIR/{number}"] for number in range(count)]


with DAG("killed", schedule=None, is_paused_upon_creation=False):
    InterLinkPodOperator.partial(task_id="deferred", **COMMON).expand(command=commands(3))
    InterLinkPodOperator.partial(task_id="working", deferrable=False, **COMMON).expand(command=commands(2))
