# SPDX-License-Identifier: Apache-2.0
"""Jobs whose workers are killed at three places, one that is waited for, and the DAG that sweeps."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any, NoReturn

from airflow.sdk import DAG, Context
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_oscar import (
    InterLinkMaintenanceOperator,
    InterLinkPodOperator,
    PlacementTarget,
    SlurmOptions,
)
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

HPC = PlacementTarget(
    name="hpc-cpu",
    task_id="x",
    kind="interlink",
    node=os.environ.get("LEFT_NODE", "slurm-cpu"),
    slurm=SlurmOptions(time="10", memory_mib=64),
)
COMMON: dict[str, Any] = {
    "image": "python:3-slim",
    "target": HPC,
    "output_uri": "s3://outgoing/left",
    "poll_interval": 1,
    "retries": 0,
}


def _killed(*_: object, **__: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class KilledBeforeItWaits(InterLinkPodOperator):
    """Its worker is killed between submission and deferral."""

    def execute(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except TaskDeferred:
            _killed()


class KilledBeforeTheSecret(InterLinkPodOperator):
    """Its worker is killed when the pod is there, and what it needs is not."""

    def execute(self, context: Context) -> Any:
        InterLinkHook._put_secret = _killed  # type: ignore[method-assign]  # of this process, which ends
        return super().execute(context)


with DAG("left", schedule=None, is_paused_upon_creation=False):
    KilledBeforeItWaits(task_id="runs_on", command=["sleep", "600"], **COMMON)
    KilledBeforeItWaits(task_id="ended", command=["true"], **COMMON)
    KilledBeforeTheSecret(task_id="waits_for_its_secret", command=["true"], **COMMON)
    InterLinkPodOperator(task_id="waited_for", command=["sleep", "600"], **COMMON)

with DAG("sweep", schedule=None, is_paused_upon_creation=False):
    InterLinkMaintenanceOperator(
        task_id="sweep", logs_uri="s3://outgoing/swept", older_than=timedelta(seconds=1), retries=0
    )
