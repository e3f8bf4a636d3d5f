# SPDX-License-Identifier: Apache-2.0
"""A DAG of the demo: the same small work at two partitions; the policy learns which is faster, and when it is not.

How long the work takes at a partition is given by whoever starts a run, in place of a machine that others begin to use:
the policy is not told, and sees nothing but what jobs took.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_oscar import FastestFinish, PlacementTarget, SlurmOptions, placed

setting = os.environ.get
TARGETS = [
    PlacementTarget(
        name=name,
        kind="interlink",
        node=setting(f"THREEDGAN_{kind.upper()}_NODE", f"slurm-{kind}"),
        slurm=SlurmOptions(partition=kind, time=timedelta(minutes=10), memory_mib=256),
        environment={"SECONDS": f"{{{{ params.seconds_{kind} }}}}"},
        capacity=2,
    )
    for name, kind in (("hpc-cpu", "cpu"), ("hpc-gpu", "gpu"))
]

with DAG(
    "placement_learns",
    description="Where the same work is done, by what it took before",
    schedule=None,
    params={
        "objects": Param([], type="array", title="Objects, as the dictionaries of ObjectEvent"),
        "seconds_cpu": Param(6.0, type="number", title="Seconds of the work at hpc-cpu"),
        "seconds_gpu": Param(0.5, type="number", title="Seconds of the work at hpc-gpu"),
    },
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["demo", "placement"],
    doc_md=__doc__,
) as dag:
    placed(
        "work",
        targets=TARGETS,
        policy=FastestFinish(explore_every=0),
        command=["python3", "-c", "import os, time; time.sleep(float(os.environ['SECONDS']))"],
        image=setting("THREEDGAN_IMAGE", "threedgan"),
        output_uri=setting("THREEDGAN_RESULTS_URI", "s3://threedgan/out/"),
        object_event="{{ params.objects | tojson }}",
        each=True,
    )
