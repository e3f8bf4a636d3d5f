# SPDX-License-Identifier: Apache-2.0
"""The same objects on the same SLURM: a job and task for each, and one job for all."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_provider_oscar import (
    InterLinkBatchOperator,
    InterLinkPodOperator,
    NewObjects,
    OffloadBatch,
    PlacementTarget,
    SlurmOptions,
)

OBJECTS = int(os.environ.get("BENCH_OBJECTS", "64"))
MANY = OffloadBatch(max_objects=OBJECTS, max_wait=120, parallel=OBJECTS)
HPC = PlacementTarget(
    name="hpc-cpu",
    task_id="work",
    kind="interlink",
    node=os.environ.get("BENCH_NODE", "slurm-cpu"),
    slurm=SlurmOptions(time="10", memory_mib=64),
)
COMMON = {
    "task_id": "work",
    "image": "python:3-slim",
    "command": ["sh", "-c", 'sleep 1; cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR"'],
    "target": HPC,
    "poll_interval": 2.0,
}


def arriving(prefix: str) -> NewObjects:
    """New objects below a prefix."""
    return NewObjects(f"s3://incoming/{prefix}/", start="all", poll_interval=1.0)


with DAG(
    "one",
    schedule=arriving("one").each(),
    max_active_runs=OBJECTS,
    max_active_tasks=OBJECTS,
    is_paused_upon_creation=False,
):
    InterLinkPodOperator(output_uri="s3://outgoing/one", **COMMON)

with DAG("many", schedule=arriving("many").batch(size=OBJECTS, wait=MANY.max_wait), is_paused_upon_creation=False):
    InterLinkBatchOperator(output_uri="s3://outgoing/many", offload=MANY, **COMMON)
