# SPDX-License-Identifier: Apache-2.0
"""The embedded virtual nodes and store on a batch system of the caller's choice: the least that runs a job."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_oscar.local.images import LocalImage
from airflow_provider_oscar.local.interlink import LocalInterLink
from airflow_provider_oscar.local.kubernetes import LocalKubernetes
from airflow_provider_oscar.local.s3 import LocalS3
from airflow_provider_oscar.local.slurm import BatchSystem
from airflow_provider_oscar.model.placement import PlacementTarget
from airflow_provider_oscar.model.slurm import SlurmOptions
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator

#: Image of all jobs: this interpreter.
IMAGE = "python:3-slim"
NODE = "slurm-cpu"


@dataclass(frozen=True)
class EmbeddedNodes:
    """What runs, and how a task reaches it."""

    interlink: LocalInterLink
    kubernetes: LocalKubernetes
    store: LocalS3

    def environment(self) -> dict[str, str]:
        """The connections as Airflow reads them."""
        found = {"interlink_default": self.kubernetes.connection(), "oscar_s3_default": self.store.connection()}
        return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(connection) for name, connection in found.items()}


@contextlib.contextmanager
def embedded_nodes(directory: Path, slurm: BatchSystem) -> Iterator[EmbeddedNodes]:
    """Run nodes over a batch system that is up; there is a bucket ``outgoing``."""
    kubernetes = LocalKubernetes(directory / "kubernetes")
    images = {IMAGE: LocalImage(IMAGE, path=[Path(sys.executable).parent])}
    interlink = LocalInterLink(kubernetes, slurm, images, directory / "nodes")
    store = LocalS3(directory / "s3", mode="seaweedfs")
    with contextlib.ExitStack() as running:
        for part in (kubernetes, store, interlink):
            running.callback(part.stop)
            part.start()
        store.create_bucket("outgoing")
        yield EmbeddedNodes(interlink, kubernetes, store)


def job(command: list[str], *, memory_mib: int = 256, **given: Any) -> InterLinkPodOperator:
    """A task that runs a command as a job on the node for CPUs."""
    slurm = SlurmOptions(time="10", memory_mib=memory_mib)
    target = PlacementTarget(name="hpc-cpu", task_id="x", kind="interlink", node=NODE, slurm=slurm)
    arguments: dict[str, Any] = {"task_id": "run", "image": IMAGE, "output_uri": "s3://outgoing/results"}
    arguments |= {"target": target, "timeout": 120, "poll_interval": 0.5, "deferrable": False}
    return InterLinkPodOperator(command=command, **arguments | given)
