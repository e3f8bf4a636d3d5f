# SPDX-License-Identifier: Apache-2.0
"""Each object of the bucket is a job on OSCAR, each of the dCache directory one on SLURM; slower than the uploads."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.ingest import NewObjects
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.placement.targets import PlacementTarget

in_bucket = NewObjects("s3://inbox/in/", start="all", poll_interval=2)
in_dcache = NewObjects("dcache://dcache_default/inbox", start="all", poll_interval=2)
partition = PlacementTarget(
    name="hpc-cpu",
    task_id="infer",
    kind="interlink",
    node="slurm-cpu",
    slurm=SlurmOptions(partition="cpu", time=timedelta(minutes=10), memory_mib=256),
)
# The text itself, so that no image has to be made for it.
COMMAND = ["python3", "-c", (Path(__file__).parents[1] / "bin" / "world-job").read_text()]
# As in the DAGs we ship, but faster: all tries lie within minutes.
ARGUMENTS = {"retries": 5, "retry_delay": timedelta(seconds=5), "retry_exponential_backoff": 2}

with DAG("cloud", schedule=in_bucket.each(), max_active_runs=3, default_args=ARGUMENTS) as cloud:
    OscarJobOperator(task_id="infer", service="world", command=COMMAND, output_uri="s3://results/cloud/")

with DAG("hpc", schedule=in_dcache.each(), max_active_runs=3, default_args=ARGUMENTS) as hpc:
    InterLinkPodOperator(
        task_id="infer",
        image=os.environ["WORLD_IMAGE"],
        target=partition,
        command=COMMAND,
        environment={"WORLD_LEDGER": os.environ["WORLD_LEDGER"]},
        output_uri="dcache://dcache_default/results/hpc",
    )
