# SPDX-License-Identifier: Apache-2.0
"""Three DAGs whose placements are exported and scored; how fast a place is stands in a file that somebody changes."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_oscar import (
    CheapestWithinDeadline,
    Fallback,
    FastestFinish,
    NewObjects,
    PlacementTarget,
    SlurmOptions,
    placed,
)

PACES = os.environ.get("PROOF_PACES", "/nonexistent")
#: Reads the pace of its place when it starts, as a machine that others load would have it.
WORK = """
import os, pathlib, time
size = os.path.getsize(os.environ["INPUT_FILE_PATH"])
pace = float(pathlib.Path(os.environ["PACE"]).read_text())
time.sleep(pace * (1 + size / 20000))
pathlib.Path(os.environ["TMP_OUTPUT_DIR"], "size.txt").write_text(str(size))
"""


def slurm(partition: str) -> SlurmOptions:
    return SlurmOptions(partition=partition, time=timedelta(minutes=10), memory_mib=64)


def pace(name: str) -> dict[str, str]:
    return {"PACE": f"{PACES}/{name}"}


targets = [
    PlacementTarget(name="cloud-cpu", kind="oscar", cost_per_hour=0.3, environment=pace("cloud-cpu"), prior_run=5),
    PlacementTarget(
        name="hpc-cpu",
        kind="interlink",
        node=os.environ.get("PROOF_CPU_NODE", "slurm-cpu"),
        slurm=slurm("cpu"),
        cost_per_hour=0.1,
        environment=pace("hpc-cpu"),
        prior_run=5,
    ),
    PlacementTarget(
        name="hpc-gpu",
        kind="interlink",
        node=os.environ.get("PROOF_GPU_NODE", "slurm-gpu"),
        slurm=slurm("gpu"),
        cost_per_hour=1.5,
        environment=pace("hpc-gpu"),
        prior_run=5,
    ),
]
common = {
    "targets": targets,
    "command": ["python3", "-c", WORK],
    "service": "proof",
    "image": "python:3-slim",
    "poll_interval": 1,
    "retries": 2,
    "retry_delay": timedelta(seconds=5),
}
BATCH = int(os.environ.get("PROOF_BATCH", "10"))


def incoming(name: str) -> NewObjects:
    return NewObjects(f"s3://proof/in/{name}/", start="all", poll_interval=2)


with DAG("proof_fastest", schedule=incoming("fastest").batch(size=BATCH, wait=5), max_active_runs=2):
    placed("work", policy=FastestFinish(), output_uri="s3://proof/out/fastest/", each=True, **common)

with DAG("proof_cheapest", schedule=incoming("cheapest").batch(size=BATCH, wait=5), max_active_runs=2):
    policy = CheapestWithinDeadline(deadline=30)
    placed("work", policy=policy, output_uri="s3://proof/out/cheapest/", each=True, **common)

with DAG("proof_fallback", schedule=incoming("fallback").each(), max_active_runs=6):
    policy = Fallback(("hpc-cpu", "cloud-cpu"))
    placed("work", policy=policy, output_uri="s3://proof/out/fallback/", learn=True, **common)
