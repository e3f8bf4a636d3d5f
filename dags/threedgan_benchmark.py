# SPDX-License-Identifier: Apache-2.0
"""Generate the same 3DGAN showers at every target some times over, and compare how long it takes.

Started by hand with the file to process. Each target does its repetitions one after the other, all targets at once;
`compare` writes a table and a figure (the distribution of each target) beside the results. What the talk found is
shown as a reference only: its machines were others.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Param, task

from airflow_provider_oscar import (
    InterLinkPodOperator,
    OscarJobOperator,
    PlacementTarget,
    SlurmOptions,
    object_param,
)

EXPECT_DAGS = ["threedgan_benchmark"]
setting = os.environ.get
RESULTS_URI = setting("THREEDGAN_RESULTS_URI", "s3://threedgan/out/")
REFERENCE = {"hpc-cpu": 30.0, "hpc-gpu": 80.0}

# [START targets]
cpus = SlurmOptions(partition="cpu", time=timedelta(minutes=30), memory_mib=2048)
gpus = SlurmOptions(partition="gpu", time=timedelta(minutes=30), memory_mib=2048, gpus=1)
hpc_cpu = PlacementTarget(name="hpc-cpu", kind="interlink", node=setting("THREEDGAN_CPU_NODE", "slurm-cpu"), slurm=cpus)
hpc_gpu = PlacementTarget(name="hpc-gpu", kind="interlink", node=setting("THREEDGAN_GPU_NODE", "slurm-gpu"), slurm=gpus)
# [END targets]

# [START benchmark]
with DAG(
    "threedgan_benchmark",
    description="The same 3DGAN showers at every target, compared",
    schedule=None,
    params={
        "object_uri": object_param(),
        "repetitions": Param(5, type="integer", minimum=1, maximum=100, title="Repetitions at each target"),
        "batch_size": Param(4, type="integer", minimum=1, maximum=256, title="Showers per network call"),
    },
    default_args={"retries": 1, "retry_delay": timedelta(seconds=15)},
    max_active_runs=1,
    tags=["3dgan", "benchmark"],
    doc_md=__doc__,
) as dag:

    @task
    def repetitions(accelerator: str, params=None) -> list[dict[str, str]]:
        """Return the variables of each repetition."""
        common = {"ACCELERATOR": accelerator, "BATCH_SIZE": str(params["batch_size"]), "THREEDGAN_PICTURE": "false"}
        return [{**common, "REPETITION": str(number)} for number in range(params["repetitions"])]

    @task(trigger_rule="all_done")
    def compare(manifests: list, params=None, dag_run=None) -> str:
        """Write table and figure beside the results, and return the table."""
        from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
        from airflow_provider_oscar.placement.comparison import figure, markdown, measure

        measured = measure([each for found in manifests for each in found])
        table = markdown(measured, REFERENCE, source="the talk, other machines")
        bucket, _, prefix = RESULTS_URI.removeprefix("s3://").rstrip("/").partition("/")
        place = f"{prefix}/benchmark/{dag_run.run_id}".lstrip("/")
        title = f"3DGAN inference of {params['object_uri']}"
        hook = OscarS3Hook("oscar_s3_default")
        hook.put_bytes(bucket, f"{place}/table.md", table.encode())
        hook.put_bytes(bucket, f"{place}/figure.svg", figure(measured, title, "seconds of the command").encode())
        return table

    job = {"command": ["threedgan", "infer"], "output_uri": RESULTS_URI, "max_active_tis_per_dagrun": 1}
    image = setting("THREEDGAN_IMAGE", "threedgan")
    on_cpu = repetitions.override(task_id="on_cpu")("cpu")
    on_gpu = repetitions.override(task_id="on_gpu")("gpu")
    done = [
        OscarJobOperator.partial(task_id="cloud_cpu", service="threedgan", placement="cloud-cpu", **job).expand(
            environment=on_cpu
        ),
        InterLinkPodOperator.partial(task_id="hpc_cpu", image=image, target=hpc_cpu, **job).expand(environment=on_cpu),
        InterLinkPodOperator.partial(task_id="hpc_gpu", image=image, target=hpc_gpu, **job).expand(environment=on_gpu),
    ]
    compare([each.output for each in done])
# [END benchmark]
