# SPDX-License-Identifier: Apache-2.0
"""One workload as one service for each target."""

from __future__ import annotations

import pytest

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.services import ServiceDefinition, StoragePath
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.placement.services import services_for
from airflow_provider_oscar.placement.targets import PlacementTarget

WORK = ServiceDefinition(
    name="gan",
    image="docker://gan:1",
    script="true",
    memory="1Gi",
    annotations={"mine": "yes", "slurm-job.vk.io/flags": "--time=10"},
    inputs=(StoragePath(storage_provider="minio", path="inbox/x"),),
    outputs=(StoragePath(storage_provider="minio", path="out/x"),),
)


def target(name, **fields):
    return PlacementTarget(**{"name": name, "task_id": f"run_{name}", "kind": "oscar"} | fields)


CPU = SlurmOptions(cpus_per_task=4, memory_mib=8192, time="01:00:00")
TARGETS = [
    target("cloud-cpu", resources={"cpu": "2", "memory": "2Gi"}),
    target("hpc-cpu", node="vega-cpu", slurm=CPU),
    target("hpc-gpu", node="vega-gpu", capabilities=frozenset({"gpu"})),
    target("cloud-gpu", capabilities=frozenset({"gpu"})),
    target("elsewhere", kind="interlink", node="n"),
]


def test_each_target_gets_its_own_service():
    cloud, cpu, gpu, cloud_gpu = services_for(WORK, TARGETS, images={"hpc-gpu": "/images/gan.sif"})
    assert [each.name for each in (cloud, cpu, gpu, cloud_gpu)] == [
        "gan-cloud-cpu",
        "gan-hpc-cpu",
        "gan-hpc-gpu",
        "gan-cloud-gpu",
    ]
    assert (cloud.cpu, cloud.memory, cloud.interlink_node_name, cloud.annotations) == ("2", "2Gi", "", {"mine": "yes"})
    assert (cpu.interlink_node_name, cpu.cpu, cpu.memory) == ("vega-cpu", "4", "8192Mi")
    assert cpu.annotations["slurm-job.vk.io/flags"] == "--time=01:00:00"
    assert cpu.annotations["mine"] == "yes"
    assert gpu.annotations["slurm-job.vk.io/flags"] == "--time=10", "its own are those of the workload"
    assert (gpu.image, cpu.image) == ("/images/gan.sif", "docker://gan:1")
    assert [each.enable_gpu for each in (cloud, cpu, gpu, cloud_gpu)] == [False, False, False, True]


def test_no_service_is_started_by_files_and_all_keep_their_outputs():
    for each in services_for(WORK, TARGETS):
        assert (each.inputs, each.outputs) == ((), WORK.outputs)


@pytest.mark.parametrize(
    ("targets", "images", "words"),
    [
        ([], {}, "none of its targets is of kind 'oscar'"),
        (TARGETS[4:], {}, "none of its targets is of kind 'oscar'"),
        (TARGETS, {"elsewhere": "i"}, "no target 'elsewhere'"),
        ([target("x" * 40)], {}, "would have 44 characters"),
    ],
)
def test_what_cannot_work_is_refused(targets, images, words):
    with pytest.raises(DefinitionError, match=words):
        services_for(WORK, targets, images=images)
