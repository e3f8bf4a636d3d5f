# SPDX-License-Identifier: Apache-2.0
"""Wait for a file, run a command on it as a SLURM job, and read the result in the next task.

Needs the connections ``interlink_default`` and ``oscar_s3_default``, a virtual node ``slurm-cpu``, and the buckets
``incoming`` and ``results``.
"""

from __future__ import annotations

# [START measure]
from datetime import timedelta

from airflow.sdk import dag, task

from airflow_provider_oscar import InterLinkPodOperator, PlacementTarget, S3NewObjectSensor, SlurmOptions

hpc = PlacementTarget(
    name="hpc-cpu",
    kind="interlink",
    node="slurm-cpu",
    slurm=SlurmOptions(partition="cpu", time=timedelta(minutes=5), memory_mib=256),
)


@dag(schedule=None)
def measure_on_slurm():
    wait = S3NewObjectSensor(task_id="wait", bucket="incoming", prefix="measurements/", suffix=".csv", start="all")
    measure = InterLinkPodOperator(
        task_id="measure",
        image="docker://python",
        target=hpc,
        object_event=wait.output,
        command=["sh", "-c", 'sort -n "$INPUT_FILE_PATH" | tail -n 1 > "$TMP_OUTPUT_DIR/largest.txt"'],
        output_uri="s3://results/measurements/",
        retries=2,
    )

    @task
    def read(manifest: dict) -> float:
        from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

        (output,) = manifest["outputs"]
        uri = f"{manifest['output_uri'].rstrip('/')}/{output['key']}"
        return float(OscarS3Hook("oscar_s3_default").read_bytes(uri, 1000) or "nan")

    read(measure.output)


measure_on_slurm()
# [END measure]

EXPECT_DAGS = ["measure_on_slurm"]
