# SPDX-License-Identifier: Apache-2.0
"""Generate 3DGAN showers for each new file, in the cloud or on a supercomputer, whichever suits the file.

One run per new file of a bucket and of a dCache directory. The file decides the place, unless whoever starts a run by
hand does. To change where it looks, set the ``THREEDGAN_*`` variables in the environment of Airflow.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Asset, Param, TaskGroup, get_current_context, task

from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.ingest import NewObjects, get_object
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.operators.placement import PlacementBranchOperator
from airflow_provider_oscar.placement.policies import Rule, RuleBased
from airflow_provider_oscar.placement.targets import PlacementTarget

BUCKET = os.environ.get("THREEDGAN_BUCKET", "threedgan")
PREFIX = os.environ.get("THREEDGAN_PREFIX", "in/")
DIRECTORY = os.environ.get("THREEDGAN_DCACHE_PATH", "/data/threedgan/in")
POLL_INTERVAL = float(os.environ.get("THREEDGAN_POLL_INTERVAL", "10"))
IMAGE = os.environ.get("THREEDGAN_IMAGE", "threedgan")
RESULTS_URI = os.environ.get("THREEDGAN_RESULTS_URI", "s3://threedgan/out/")
LARGE = int(os.environ.get("THREEDGAN_LARGE_BYTES", "2000000"))
CPU_NODE = os.environ.get("THREEDGAN_CPU_NODE", "slurm-cpu")
GPU_NODE = os.environ.get("THREEDGAN_GPU_NODE", "slurm-gpu")

EXPECT_DAGS = ["threedgan_inference"]
EXPECT_TARGETS = ["cloud-cpu", "hpc-cpu", "hpc-gpu"]

# [START watch]
incoming = NewObjects(
    f"s3://{BUCKET}/{PREFIX}",
    f"dcache://dcache_default{DIRECTORY}",
    suffix=".h5",
    start="all",
    poll_interval=POLL_INTERVAL,
)
# [END watch]

# [START targets]
cloud_cpu = PlacementTarget(name="cloud-cpu", task_id="cloud_cpu", kind="oscar", cost_per_hour=0.05)
hpc_cpu = PlacementTarget(
    name="hpc-cpu",
    task_id="hpc_cpu",
    kind="interlink",
    node=CPU_NODE,
    slurm=SlurmOptions(partition="cpu", time=timedelta(minutes=30), memory_mib=2048),
    cost_per_hour=0.03,
)
hpc_gpu = PlacementTarget(
    name="hpc-gpu",
    task_id="hpc_gpu",
    kind="interlink",
    node=GPU_NODE,
    slurm=SlurmOptions(partition="gpu", time=timedelta(minutes=30), memory_mib=2048, gpus=1),
    cost_per_hour=1.5,
    capabilities=frozenset({"gpu"}),
)
policy = RuleBased(
    rules=(
        Rule(target="hpc-cpu", source="dcache", because="dCache is next door to the HPC site"),
        Rule(target="hpc-gpu", min_size=LARGE, because=f"{LARGE / 1e6:g} MB or more pay for a GPU's queue"),
    ),
    default="cloud-cpu",
)
# [END targets]

results = Asset("threedgan_results")

with DAG(
    "threedgan_inference",
    description="3DGAN showers for each new file",
    schedule=incoming.each(),
    params={
        "object_uri": Param(
            None,
            type=["null", "string"],
            title="Object",
            pattern=r"^(s3://[^/\s]+/\S*[^/\s]|dcache://[^/\s]*/\S*[^/\s])$",
            examples=[f"{RESULTS_URI.rpartition('/out/')[0]}/in/electrons-100-200.h5", "dcache:///data/in/photons.h5"],
            description="For a run by hand: the file to process, as s3://bucket/key or dcache://conn_id/path "
            "(dcache:///path uses the connection dcache_default). Blanks and special characters percent-encoded.",
        ),
        "target": Param(
            "auto",
            enum=["auto", *EXPECT_TARGETS],
            title="Placement",
            values_display={
                "auto": "Let the policy decide",
                "cloud-cpu": "Cloud, on CPUs (OSCAR)",
                "hpc-cpu": "Supercomputer, on CPUs (SLURM)",
                "hpc-gpu": "Supercomputer, on GPUs (SLURM)",
            },
            description="Where the file is processed. A forced place is used even if the policy prefers another.",
        ),
        "batch_size": Param(
            4,
            type="integer",
            minimum=1,
            maximum=256,
            title="Showers per network call",
            description="More are faster on a GPU and need more memory; 4 suits a small CPU.",
        ),
    },
    default_args={"retries": 2, "retry_delay": timedelta(seconds=15)},
    max_active_runs=8,
    catchup=False,
    tags=["3dgan", "inference"],
    doc_md=__doc__,
) as dag:
    # [START infer]
    @task(multiple_outputs=False)
    def read_event() -> dict:
        """Return the object this run is about."""
        return get_object(get_current_context()).to_dict()

    event = read_event()
    choose_target = PlacementBranchOperator(
        task_id="choose_target",
        targets=[cloud_cpu, hpc_cpu, hpc_gpu],
        policy=policy,
        object_event=event,
        force="{{ params.target }}",
    )
    job = {
        "object_event": event,
        "command": ["threedgan", "infer"],
        "output_uri": RESULTS_URI,
        "output_conn_id": "oscar_s3_default",
    }
    settings = {"BATCH_SIZE": "{{ params.batch_size }}", "ACCELERATOR": "cpu"}

    with TaskGroup("cloud_cpu", tooltip="OSCAR service on Kubernetes") as in_cloud:
        OscarJobOperator(task_id="infer", service="threedgan", placement=cloud_cpu.name, environment=settings, **job)

    with TaskGroup("hpc_cpu", tooltip="SLURM partition cpu, through interLink") as on_cpus:
        InterLinkPodOperator(task_id="infer", image=IMAGE, target=hpc_cpu, environment=settings, **job)

    with TaskGroup("hpc_gpu", tooltip="SLURM partition gpu, through interLink") as on_gpus:
        with_gpu = {**settings, "ACCELERATOR": "gpu"}
        InterLinkPodOperator(task_id="infer", image=IMAGE, target=hpc_gpu, environment=with_gpu, **job)
    # [END infer]

    # [START publish]
    @task(outlets=[results], multiple_outputs=False, trigger_rule="none_failed_min_one_success")
    def publish(ti=None, outlet_events=None) -> dict:
        """Tell what came out, as an event of the results asset."""
        decision = ti.xcom_pull(task_ids="choose_target", key="decision")
        manifest = ti.xcom_pull(task_ids=f"{decision['task_id']}.infer")
        summary = {
            "object": manifest["input"],
            "target": decision["target"],
            "reasons": decision["reasons"],
            "output_uri": manifest["output_uri"],
            "showers": manifest["metrics"].get("showers"),
            "device": manifest["device"],
            "phases": manifest["phases"],
        }
        outlet_events[results].extra = summary
        return summary

    choose_target >> [in_cloud, on_cpus, on_gpus] >> publish()
    # [END publish]
