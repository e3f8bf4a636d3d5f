# SPDX-License-Identifier: Apache-2.0
"""Generate 3DGAN showers for each new file, in the cloud or on a supercomputer, whichever suits the file.

One run per new file of a bucket and of a dCache directory. The file decides the place, unless whoever starts a run by
hand does. To change where it looks, set the ``THREEDGAN_*`` variables in the environment of Airflow.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Asset, Param

from airflow_provider_oscar import (
    NewObjects,
    PlacementTarget,
    Rule,
    RuleBased,
    SlurmOptions,
    object_param,
    placed,
    placement_param,
)

EXPECT_DAGS = ["threedgan_inference"]
EXPECT_TARGETS = ["cloud-cpu", "hpc-cpu", "hpc-gpu"]
setting = os.environ.get

# [START watch]
incoming = NewObjects(
    f"s3://{setting('THREEDGAN_BUCKET', 'threedgan')}/{setting('THREEDGAN_PREFIX', 'in/')}",
    f"dcache://dcache_default{setting('THREEDGAN_DCACHE_PATH', '/data/threedgan/in')}",
    suffix=".h5",
    start="all",
    poll_interval=float(setting("THREEDGAN_POLL_INTERVAL", "10")),
)
# [END watch]

# [START targets]
cpus = SlurmOptions(partition="cpu", time=timedelta(minutes=30), memory_mib=2048)
gpus = SlurmOptions(partition="gpu", time=timedelta(minutes=30), memory_mib=2048, gpus=1)
cpu_node = setting("THREEDGAN_CPU_NODE", "slurm-cpu")
gpu_node = setting("THREEDGAN_GPU_NODE", "slurm-gpu")
on_gpu = {"ACCELERATOR": "gpu"}
targets = [
    PlacementTarget(name="cloud-cpu", kind="oscar", cost_per_hour=0.05),
    PlacementTarget(name="hpc-cpu", kind="interlink", node=cpu_node, slurm=cpus, cost_per_hour=0.03),
    PlacementTarget(name="hpc-gpu", kind="interlink", node=gpu_node, slurm=gpus, cost_per_hour=1.5, environment=on_gpu),
]
LARGE = int(setting("THREEDGAN_LARGE_BYTES", "2000000"))
near = Rule(target="hpc-cpu", source="dcache", because="dCache is next door to the HPC site")
large = Rule(target="hpc-gpu", min_size=LARGE, because=f"{LARGE / 1e6:g} MB or more pay for a GPU's queue")
policy = RuleBased(rules=(near, large), default="cloud-cpu")
titles = {
    "cloud-cpu": "Cloud, on CPUs (OSCAR)",
    "hpc-cpu": "Supercomputer, on CPUs (SLURM)",
    "hpc-gpu": "Supercomputer, on GPUs (SLURM)",
}
# [END targets]

results = Asset("threedgan_results")
params = {
    "object_uri": object_param(),
    "target": placement_param(targets, titles),
    "batch_size": Param(4, type="integer", minimum=1, maximum=256, title="Showers per network call"),
    "picture": Param(True, type="boolean", title="Draw a picture of the showers", description="It takes a second."),
}

# [START infer]
with DAG(
    "threedgan_inference",
    description="3DGAN showers for each new file",
    schedule=incoming.each(),
    params=params,
    default_args={"retries": 5, "retry_delay": timedelta(seconds=15), "retry_exponential_backoff": 2},
    max_active_runs=8,
    tags=["3dgan", "inference"],
    doc_md=__doc__,
) as dag:
    placed(
        "infer",
        targets=targets,
        policy=policy,
        command=["threedgan", "infer"],
        environment={
            "ACCELERATOR": "cpu",
            "BATCH_SIZE": "{{ params.batch_size }}",
            "THREEDGAN_PICTURE": "{{ params.picture | string | lower }}",
        },
        service="threedgan",
        image=setting("THREEDGAN_IMAGE", "threedgan"),
        output_uri=setting("THREEDGAN_RESULTS_URI", "s3://threedgan/out/"),
        outlets=[results],
    )
# [END infer]
