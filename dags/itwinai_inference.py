# SPDX-License-Identifier: Apache-2.0
"""Run itwinai's own 3DGAN inference pipeline for each new file, as an OSCAR service or as a SLURM job.

The image is that of itwinai's use case ``3dgan`` (code and ``config.yaml`` in ``/usr/src/app``), its files stay what
they are: HDF5 in, ``.pth`` and ``.jpg`` of each shower out, or one pickle with ``aggregate``. The model is a second
object, made by the use case's ``create_inference_sample.py``. Set the ``ITWINAI_*`` variables for your site.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Param, get_current_context, task

from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.ingest import NewObjects, get_object
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.operators.oscar_service import OscarServiceOperator
from airflow_provider_oscar.operators.placement import PlacementBranchOperator
from airflow_provider_oscar.placement.policies import Rule, RuleBased
from airflow_provider_oscar.placement.targets import PlacementTarget

#: Of itwinai 0.3 or later, whose command line is Hydra's; or the path of a ``.sif`` on the cluster.
IMAGE = os.environ.get("ITWINAI_IMAGE", "ghcr.io/intertwin-eu/itwinai:3dgan")
CODE = os.environ.get("ITWINAI_CODE", "/usr/src/app")
PLACE = os.environ.get("ITWINAI_INPUT", "s3://itwinai/in/")
RESULTS_URI = os.environ.get("ITWINAI_RESULTS_URI", "s3://itwinai/out/")
MODEL_URI = os.environ.get("ITWINAI_MODEL_URI", "s3://itwinai/models/3dgan-inference.pth")
NODE = os.environ.get("ITWINAI_NODE", "slurm-gpu")
PARTITION = os.environ.get("ITWINAI_PARTITION", "gpu")
LARGE = int(os.environ.get("ITWINAI_LARGE_BYTES", "100000000"))

EXPECT_DAGS = ["itwinai_inference"]

# [START targets]
cloud = PlacementTarget(name="cloud-cpu", task_id="cloud", kind="oscar")
hpc = PlacementTarget(
    name="hpc-gpu",
    task_id="hpc",
    kind="interlink",
    node=NODE,
    slurm=SlurmOptions(partition=PARTITION, time=timedelta(minutes=55), cpus_per_task=4, memory_mib=20480, gpus=1),
    capabilities=frozenset({"gpu"}),
)
policy = RuleBased(rules=(Rule(target="hpc-gpu", min_size=LARGE, because="it is large"),), default="cloud-cpu")
# [END targets]

# [START command]
# It writes logs and checkpoints where it stands, which are not results; the saver empties the directory it is given.
PIPELINE = f"""\
cd "$(mktemp -d)" || exit 73
exec itwinai exec-pipeline --config-path "{CODE}" +pipe_key=inference_pipeline \\
  "dataset_location=$TMP_INPUT_DIR" "inference_model_uri=$TMP_INPUT_DIR/$MODEL_NAME" \\
  "inference_results_location=$TMP_OUTPUT_DIR/showers" "aggregate_predictions=$AGGREGATE" \\
  "batch_size=$BATCH_SIZE" "max_dataset_size=$MAX_DATA_SAMPLES" num_workers_dataloader=0 \\
  "hw_accelerators=$ACCELERATOR" distributed_strategy=auto devices=auto logs_dir=logs checkpoints_path=checkpoints
"""
# [END command]

with DAG(
    "itwinai_inference",
    description="itwinai's 3DGAN inference pipeline for each new file",
    schedule=NewObjects(PLACE, suffix=".h5").each(),
    params={
        "batch_size": Param(4, type="integer", minimum=1, description="At most the showers of a file; more go faster."),
        "max_samples": Param(5000, type="integer", minimum=1, description="Showers that are read of a file."),
        "aggregate": Param(True, type="boolean", description="One pickle instead of two files for each shower."),
        "image": Param(IMAGE, type="string", minLength=1, description="Image of the OSCAR service."),
        "target": Param("auto", enum=["auto", "cloud-cpu", "hpc-gpu"], description="Where it runs."),
    },
    default_args={"retries": 5, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": 2},
    max_active_runs=4,
    catchup=False,
    tags=["3dgan", "itwinai", "inference"],
    doc_md=__doc__,
) as dag:
    # [START infer]
    @task(multiple_outputs=False)
    def read_event() -> dict:
        """Return the object this run is about."""
        return get_object(get_current_context()).to_dict()

    @task(multiple_outputs=False)
    def read_model() -> dict:
        """Return the model as it is now; a newer one is another request."""
        bucket, _, key = MODEL_URI.removeprefix("s3://").partition("/")
        model = storage_hook(MODEL_URI).head(bucket, key)
        if model is None:
            raise ValueError(f"there is no model at {MODEL_URI}; create_inference_sample.py of the use case makes one")
        return model.to_dict()

    event, model = read_event(), read_model()
    choose = PlacementBranchOperator(
        task_id="choose", targets=[cloud, hpc], policy=policy, object_event=event, force="{{ params.target }}"
    )
    job = {
        "object_event": event,
        "inputs": [model],
        "command": ["/bin/sh", "-c", PIPELINE],
        "output_uri": RESULTS_URI,
        "timeout": timedelta(hours=1),
    }
    settings = {
        "MODEL_NAME": MODEL_URI.rpartition("/")[2],
        "BATCH_SIZE": "{{ params.batch_size }}",
        "MAX_DATA_SAMPLES": "{{ params.max_samples }}",
        "AGGREGATE": "{{ params.aggregate | lower }}",
        # Hydra tells the cause of an error many lines above its own words; with this, last.
        "HYDRA_FULL_ERROR": "1",
        # The pipeline logs into files, which newer versions of MLflow refuse unless they are told.
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }
    service = OscarServiceOperator(task_id="cloud", fdl="itwinai_service.yaml")
    in_cloud = OscarJobOperator(
        task_id="infer_in_cloud",
        service="itwinai",
        placement=cloud.name,
        environment={**settings, "ACCELERATOR": "cpu"},
        **job,
    )
    on_hpc = InterLinkPodOperator(
        task_id="hpc", image=IMAGE, target=hpc, environment={**settings, "ACCELERATOR": "gpu"}, **job
    )
    choose >> [service, on_hpc]
    service >> in_cloud
    # [END infer]
