# SPDX-License-Identifier: Apache-2.0
"""The job that is run with the least rights, each of them taken away in turn."""

from __future__ import annotations

from typing import Any

from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import context


def run_on_slurm(node: str, run: str, found: ObjectEvent, **wanted: Any) -> dict[str, Any]:
    """Run a job on a virtual node as an operator does, on the worker, and return its manifest.

    :param node: the virtual node.
    :param run: partition key of the DAG run.
    :param found: what the job is about.
    :param wanted: further arguments of the operator.
    """
    cpu = PlacementTarget(
        name="hpc-cpu", task_id="x", kind="interlink", node=node, slurm=SlurmOptions(time="10", memory_mib=256)
    )
    task = InterLinkPodOperator(
        task_id="least", target=cpu, object_event=found, poll_interval=0.3, deferrable=False, **wanted
    )
    return task.execute(context(partition_key=run, task_id="least"))
