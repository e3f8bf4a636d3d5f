# SPDX-License-Identifier: Apache-2.0
"""A DAG for the browser tests: work that its first target loses is placed at the other one."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.operators.placed import placed
from airflow_provider_oscar.placement.policies import Fallback
from airflow_provider_oscar.placement.targets import PlacementTarget

hpc = PlacementTarget(
    name="hpc-cpu",
    kind="interlink",
    node="slurm-cpu",
    slurm=SlurmOptions(partition="cpu", time=timedelta(minutes=30), memory_mib=512),
    environment={"WHERE": "hpc"},
)
cloud = PlacementTarget(name="cloud-cpu", kind="oscar")

with DAG("placed_elsewhere", schedule=None, params={"object_uri": Param("", type="string")}) as dag:
    placed(
        "work",
        targets=[hpc, cloud],
        policy=Fallback(order=("hpc-cpu", "cloud-cpu")),
        # Long where it is lost, so that there is time to lose it.
        command=["sh", "-c", 'if [ "${WHERE:-}" = hpc ]; then sleep 600; fi; cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"'],
        service="threedgan",
        image="threedgan",
        output_uri="s3://threedgan/out/",
    )
