# SPDX-License-Identifier: Apache-2.0
"""One small object to the event of its result, on SLURM; and the same way with a task that does nothing."""

from __future__ import annotations

import os

from airflow.sdk import DAG, Asset, task

from airflow_provider_oscar import InterLinkPodOperator, PlacementTarget, SlurmOptions
from airflow_provider_oscar.ingest import NewObjects

HPC = PlacementTarget(
    name="hpc-cpu",
    task_id="infer",
    kind="interlink",
    node=os.environ.get("BENCH_NODE", "slurm-cpu"),
    slurm=SlurmOptions(time="5", memory_mib=64),
)


def arriving(prefix: str) -> NewObjects:
    """New objects below a prefix."""
    return NewObjects(f"s3://incoming/{prefix}/", start="all", poll_interval=1.0)


with DAG("job", schedule=arriving("job").each(), is_paused_upon_creation=False):
    InterLinkPodOperator(
        task_id="infer",
        image="python:3-slim",
        command=["sh", "-c", 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR"'],
        target=HPC,
        output_uri="s3://outgoing/results",
        outlets=[Asset("bench://job")],
    )

with DAG("floor", schedule=arriving("floor").each(), is_paused_upon_creation=False):

    @task(outlets=[Asset("bench://floor")])
    def nothing() -> None:
        """Do nothing: what is measured is Airflow."""

    nothing()
