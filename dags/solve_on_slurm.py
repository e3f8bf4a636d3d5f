# SPDX-License-Identifier: Apache-2.0
"""Run a Python function with numpy as a SLURM job, and use its value in the next task.

Needs the connections ``interlink_default`` and ``oscar_s3_default``, a virtual node ``slurm-cpu``, the bucket
``results``, and an image that has numpy.
"""

from __future__ import annotations

# [START solve]
from datetime import timedelta

from airflow.sdk import dag

from airflow_provider_oscar import PlacementTarget, SlurmOptions, task

hpc = PlacementTarget(
    name="hpc-cpu",
    kind="interlink",
    node="slurm-cpu",
    slurm=SlurmOptions(partition="cpu", time=timedelta(minutes=5), memory_mib=512),
)


@dag(schedule=None)
def solve_on_slurm():
    @task.interlink(image="docker://python", target=hpc, output_uri="s3://results/solve/", retries=2)
    def largest_eigenvalue(size: int) -> float:
        import numpy as np

        numbers = np.random.default_rng(seed=1).normal(size=(size, size))
        return float(np.linalg.eigvalsh(numbers + numbers.T).max())

    @task
    def tell(value: float) -> str:
        return f"the largest eigenvalue is {value:.3f}"

    tell(largest_eigenvalue(200))


solve_on_slurm()
# [END solve]

EXPECT_DAGS = ["solve_on_slurm"]
