# SPDX-License-Identifier: Apache-2.0
"""Mistakes in a DAG file that a type checker finds before Airflow sees it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from airflow.sdk import BaseOperator, BaseSensorOperator
from mypy import api

from airflow_provider_oscar.base_arguments import OperatorArguments, SensorArguments

ROOT = Path(__file__).parents[3]
GOOD = """
from datetime import datetime, timedelta
from airflow_provider_oscar import DCacheBringOnlineOperator, KubernetesJobOperator, OscarJobOperator, OscarJobSensor
from airflow_provider_oscar import DCacheNewObjectTrigger, ObjectFilter, S3NewObjectSensor, S3NewObjectTrigger
from airflow_provider_oscar import InterLinkBatchOperator, OffloadBatch, PlacementTarget, SlurmOptions, task

HPC = PlacementTarget(name="hpc", kind="interlink", node="vk", slurm=SlurmOptions(partition="gpu"))
IMAGE, OUT = "docker://python:3.12", "s3://results/"

S3NewObjectTrigger(asset_name="a", bucket="b", poll_interval=timedelta(seconds=5), filter=ObjectFilter(suffix=".h5"))
S3NewObjectTrigger(asset_name="a", bucket="b", start=datetime(2026, 1, 1), algorithm="cursor")
DCacheNewObjectTrigger(asset_name="a", path="/in", notifications="sse")
S3NewObjectSensor(task_id="t", bucket="b", batch=True, mode="reschedule", deferrable=False, retries=2)
OscarJobOperator(task_id="t", service="s", retry_delay=timedelta(minutes=1), pool="p", outlets=[], timeout=60)
InterLinkBatchOperator(
    task_id="t", output_uri=OUT, target=HPC, image=IMAGE, command=["true"], offload=OffloadBatch(parallel=4), retries=1
)


@task.interlink(image=IMAGE, target=HPC, output_uri=OUT, requirements=["numpy==2"], retries=3, timeout=timedelta(1))
def one(x: int) -> int:
    return x


@task.interlink_cmd(image=IMAGE, target=HPC, output_uri=OUT, keep_pod="on_failure")
def two() -> list[str]:
    return ["true"]


@task.oscar(service="python", output_uri=OUT, serializer="pickle", queue_timeout=60)
def three() -> int:
    return 1


@task.kubernetes_job(image=IMAGE, output_uri=OUT, container_resources={"cpu": "1"})
def four() -> int:
    return 1


@task.placement(targets=[HPC], force="{{ params.target }}", wait_timeout=timedelta(hours=1))
def five() -> str:
    return "hpc"


@task
def six() -> int:
    return 6
"""
BAD = {
    'S3NewObjectTrigger(asset_name="a", bukcet="b")': "bukcet",
    'S3NewObjectTrigger(asset_name="a", bucket="b", poll_interval="soon")': "poll_interval",
    'S3NewObjectTrigger(asset_name="a", bucket=5)': "bucket",
    'S3NewObjectTrigger(asset_name="a", bucket="b", algorithm="guess")': "algorithm",
    'DCacheNewObjectTrigger(asset_name="a", path="/in", notifications="pigeon")': "notifications",
    'DCacheNewObjectTrigger(asset_name="a", path="/in", recursive="yes")': "recursive",
    'S3NewObjectSensor(task_id="t", bucket="b", batch="yes")': "batch",
    'S3NewObjectSensor(task_id="t", bucket="b", start=3)': "start",
    'S3NewObjectSensor(task_id="t", bucket="b", pol_interval=5)': "pol_interval",
    'OscarJobSensor(task_id="t", service="s", job_id="j", poke_intervall=5)': "poke_intervall",
    'OscarJobOperator(task_id="t", service="s", servce="s")': "servce",
    'OscarJobOperator(task_id="t", service=5)': "service",
    'OscarJobOperator(task_id="t", service="s", retris=3)': "retris",
    'KubernetesJobOperator(task_id="t", output_uri="s3://b/", imge="i")': "imge",
    'DCacheBringOnlineOperator(task_id="t", paths=["/a"], lifetme=5)': "lifetme",
    'InterLinkBatchOperator(task_id="t", output_uri=OUT, target=HPC, objcts=[])': "objcts",
    'InterLinkBatchOperator(task_id="t", output_uri=OUT, target="hpc")': "target",
    'InterLinkBatchOperator(task_id="t", output_uri=OUT, target=HPC, inputs=[])': "inputs",
    'InterLinkBatchOperator(task_id="t", output_uri=OUT, target=HPC, offload=4)': "offload",
    "task.interlink(imge=IMAGE, target=HPC, output_uri=OUT)": "imge",
    "task.interlink(image=5, target=HPC, output_uri=OUT)": "image",
    "task.interlink(image=IMAGE, target=HPC)": "output_uri",
    'task.interlink(image=IMAGE, target=HPC, output_uri=OUT, command=["x"])': "command",
    'task.interlink(image=IMAGE, target=HPC, output_uri=OUT, serializer="xml")': "serializer",
    'task.interlink_cmd(image=IMAGE, target=HPC, output_uri=OUT, requirements=["x"])': "requirements",
    'task.interlink_cmd(image=IMAGE, target=HPC, output_uri=OUT, keep_pod="yes")': "keep_pod",
    'task.oscar(servce="python")': "servce",
    'task.oscar(service="python", timeout="soon")': "timeout",
    "task.kubernetes_job(image=IMAGE, output_uri=OUT, retris=3)": "retris",
    "task.placement(targets=[HPC], policy=None)": "policy",
    "task.placement(targets=HPC)": "targets",
    'S3NewObjectTrigger(asset_name="a", bucket="b", filter=ObjectFilter(sufix=".h5"))': "sufix",
}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(OperatorArguments, BaseOperator), (SensorArguments, BaseSensorOperator)],
    ids=["task", "sensor"],
)
def test_the_arguments_of_every_operator_are_those_of_airflow(ours: type, theirs: type) -> None:
    known = {*inspect.signature(BaseOperator.__init__).parameters, *inspect.signature(theirs.__init__).parameters}
    assert ours.__required_keys__ | ours.__optional_keys__ == known - {"self", "kwargs"}


@pytest.mark.timeout(600)  # the first run has to read Airflow
def test_a_misspelt_or_ill_typed_argument_is_an_error_of_the_type_checker(tmp_path: Path) -> None:
    dag = tmp_path / "dag.py"
    dag.write_text(GOOD + "\n".join(BAD) + "\n")
    # With the options of the repository, so that what was checked already is not checked again.
    shown, _, _ = api.run(["--config-file", str(ROOT / "pyproject.toml"), "--no-color", str(dag)])
    first = GOOD.count("\n") + 1
    for number, (line, word) in enumerate(BAD.items(), start=first):
        assert any(f":{number}: error:" in each and word in each for each in shown.splitlines()), f"{line}\n{shown}"
    assert not any(int(each.split(":")[1]) < first for each in shown.splitlines() if ": error:" in each), shown
