# SPDX-License-Identifier: Apache-2.0
"""Real itwinai 0.4.2 runs its own 3DGAN inference pipeline, through both operators, with the example DAG's command.

Run by ``make itwinai``, which says what it downloads. The code of the use case is no part of the package: the directory
``ITWINAI_USE_CASE`` has it, or it is cloned.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from oscar_testbed import LocalImage, LocalPlatform
from oscar_testbed.real import environments
from threedgan.data import write_input

from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.sealing import with_key
from airflow_provider_oscar.jobs.signing import configured_signer
from airflow_provider_oscar.jobs.start_script import service_script
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.dag_files import load
from tests.support.fakes import context

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.environ.get("ITWINAI"), reason="downloads 6.3 GB; run by `make itwinai`"),
]
IMAGE = "itwinai:3dgan"
SHOWERS = 8


@pytest.fixture(scope="module")
def itwinai() -> tuple[Path, Path]:
    """Directory of the programs, and of the use case's code with a model made by it."""
    python, code = environments.itwinai(os.environ.get("ITWINAI_USE_CASE", ""))
    environments.itwinai_model(python, code)
    return python.parent, code


@pytest.fixture(scope="module")
def platform(itwinai: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    images = {IMAGE: LocalImage(IMAGE, [itwinai[0]])}
    with LocalPlatform(tmp_path_factory.mktemp("platform"), images=images) as running:
        yield running


@pytest.fixture
def dag(itwinai: tuple[Path, Path], platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch):
    for name, value in {**platform.environment(), "ITWINAI_CODE": str(itwinai[1])}.items():
        monkeypatch.setenv(name, value)
    return load("itwinai_inference")


@pytest.fixture
def store(dag, itwinai: tuple[Path, Path], tmp_path: Path) -> OscarS3Hook:
    hook = OscarS3Hook()
    if "itwinai" not in {each["Name"] for each in hook.client.list_buckets()["Buckets"]}:
        hook.client.create_bucket(Bucket="itwinai")
    write_input(tmp_path / "showers.h5", SHOWERS, seed=1)
    hook.put_file("itwinai", "in/showers.h5", tmp_path / "showers.h5")
    hook.put_file("itwinai", "models/3dgan-inference.pth", itwinai[1] / "3dgan-inference.pth")
    return hook


@pytest.fixture(params=["oscar", "interlink"])
def task(request, dag, store):
    """The DAG's own task, with an event, the model, and settings for a small machine."""
    template = dag.dag.get_task("infer_in_cloud")
    given = {
        "task_id": f"infer-{request.param}",
        "command": template.command,
        "object_event": store.head("itwinai", "in/showers.h5"),
        "inputs": [store.head("itwinai", "models/3dgan-inference.pth")],
        "environment": {
            **template.environment,
            "BATCH_SIZE": "4",
            "MAX_DATA_SAMPLES": str(SHOWERS),
            "AGGREGATE": "true",
        },
        "output_uri": dag.RESULTS_URI,
        "timeout": 1800,
        "deferrable": False,
    }
    if request.param == "oscar":
        hook = OscarHook()
        definition = ServiceDefinition(name="itwinai", image=IMAGE, script=service_script())
        hook.run(hook.apply_service(with_key(definition, configured_signer())))
        return OscarJobOperator(service="itwinai", **given)
    kube = InterLinkHook()
    node = next(str(each.metadata.name) for each in kube.core.list_node().items if "cpu" in each.metadata.name)
    return InterLinkPodOperator(
        image=IMAGE, target=PlacementTarget(name="hpc", task_id="x", kind="interlink", node=node), **given
    )


def test_pipeline_makes_a_result_of_each_shower(task, store):
    found = task.execute(context(task_id=task.task_id))
    assert found["exit_code"] == 0
    (output,) = found["outputs"]
    assert output["key"].startswith("showers/")
    assert output["key"].endswith(".pkl")
    assert output["size"] > 10_000
    assert store.head("itwinai", f"out/{found['submission_id']}/{output['key']}").size == output["size"]
