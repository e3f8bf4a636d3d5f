# SPDX-License-Identifier: Apache-2.0
"""As many jobs of one second as the variable QUICK_JOBS says, each a mapped task that may not fail once."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_provider_oscar import InterLinkPodOperator, PlacementTarget, SlurmOptions

HPC = PlacementTarget(
    name="hpc-cpu",
    task_id="quick",
    kind="interlink",
    node=os.environ.get("QUICK_NODE", "slurm-cpu"),
    slurm=SlurmOptions(time="5", memory_mib=64),
)

COMMANDS = [["sh", "-c", f"sleep 1; echo {number}"] for number in range(int(os.environ.get("QUICK_JOBS", "2")))]

with DAG("quick", schedule=None, is_paused_upon_creation=False):
    InterLinkPodOperator.partial(
        task_id="quick",
        image="python:3-slim",
        target=HPC,
        output_uri="s3://outgoing/quick",
        poll_interval=1,
        retries=1,
        retry_delay=1,
    ).expand(command=COMMANDS)
