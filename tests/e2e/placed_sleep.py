# SPDX-License-Identifier: Apache-2.0
"""A DAG for the browser tests: sleeps as long and where it is told to, and lets placement learn from it."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.operators.placement import PlacementBranchOperator
from airflow_provider_oscar.placement.policies import RuleBased
from airflow_provider_oscar.placement.targets import PlacementTarget

cloud = PlacementTarget(name="cloud-cpu", task_id="in_cloud", kind="oscar", cost_per_hour=0.05)
hpc = PlacementTarget(
    name="hpc-cpu",
    task_id="on_hpc",
    kind="interlink",
    node="slurm-cpu",
    slurm=SlurmOptions(partition="cpu", time=timedelta(minutes=30), memory_mib=512),
    cost_per_hour=0.03,
)

with DAG(
    "placed_sleep",
    schedule=None,
    params={"target": Param("cloud-cpu", enum=["cloud-cpu", "hpc-cpu"]), "seconds": Param(1, type="integer")},
) as dag:
    choose = PlacementBranchOperator(
        task_id="choose",
        targets=[cloud, hpc],
        policy=RuleBased(rules=(), default="cloud-cpu"),
        force="{{ params.target }}",
        learn=True,
    )
    job = {
        "command": ["sleep", "{{ params.seconds }}"],
        "output_uri": "s3://threedgan/out/",
        "output_conn_id": "oscar_s3_default",
    }
    choose >> [
        OscarJobOperator(task_id="in_cloud", service="threedgan", placement=cloud.name, **job),
        InterLinkPodOperator(task_id="on_hpc", image="threedgan", target=hpc, **job),
    ]
