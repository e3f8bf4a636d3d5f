# SPDX-License-Identifier: Apache-2.0
"""The same job in a pod on an ordinary node."""

from __future__ import annotations

import json

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.operators.kubernetes import KubernetesJobOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import EVENT, OUTPUT, context

pytestmark = pytest.mark.usefixtures("supervisor")

CLOUD_POD = PlacementTarget(name="cloud-pod", task_id="t", kind="kubernetes", resources={"cpu": "2"})


def operator(**arguments):
    wanted = {
        "task_id": "infer",
        "image": "python:3.12-slim",
        "command": ["python3", "infer.py"],
        "object_event": EVENT,
        "output_uri": OUTPUT,
        "kubernetes_conn_id": "interlink_default",
    }
    return KubernetesJobOperator(**wanted | arguments)


def deferred(task, seen):
    with pytest.raises(TaskDeferred) as raised:
        task.execute(seen)
    return raised.value


def test_pod_goes_wherever_the_scheduler_puts_it(cluster):
    pause = deferred(operator(target=CLOUD_POD), context())
    (pod,) = cluster.created
    assert "nodeSelector" not in pod["spec"]
    assert not [key for key in pod["metadata"]["annotations"] if "slurm" in key]
    assert pod["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "2"}}
    assert json.loads(cluster.secrets[pod["metadata"]["name"]]["job.json"])["placement"] == "cloud-pod"
    assert pause.trigger.backend == "kubernetes"


def test_resources_of_the_task_win_over_those_of_the_target(cluster):
    deferred(operator(target=CLOUD_POD, container_resources={"memory": "1Gi"}), context())
    assert cluster.created[0]["spec"]["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}}


def test_target_of_another_kind_is_refused():
    other = PlacementTarget(name="hpc", task_id="x", kind="interlink", node="vk")
    with pytest.raises(DefinitionError, match="target 'hpc' of task 'infer' is of kind 'interlink'"):
        operator(target=other)


def test_results_need_a_place():
    with pytest.raises(DefinitionError, match="no output_uri"):
        operator(output_uri="")
