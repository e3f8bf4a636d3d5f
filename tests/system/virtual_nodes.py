# SPDX-License-Identifier: Apache-2.0
"""Virtual nodes and a store on a batch system of the caller's choice: the least that runs a job.

The nodes are the embedded ones, or interLink's own on a real API server.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from oscar_testbed.fakes.interlink import LocalInterLink
from oscar_testbed.fakes.kubernetes import LocalKubernetes
from oscar_testbed.fakes.s3 import LocalS3
from oscar_testbed.fakes.slurm import BatchSystem
from oscar_testbed.fakes.slurm.real import RealSlurm
from oscar_testbed.images import LocalImage
from oscar_testbed.process import Component
from oscar_testbed.real import kubernetes_build
from oscar_testbed.real.control_plane import control_plane
from oscar_testbed.real.upstream import overlay_container, programs
from oscar_testbed.real.upstream.nodes import UpstreamNodes

from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget

#: Image of all jobs: this interpreter.
IMAGE = "python:3-slim"
NODE = "slurm-cpu"


@dataclass(frozen=True)
class VirtualNodes:
    """What runs, and how a task reaches it.

    :param connections: Airflow connections by id.
    :param patience: seconds until what happened at one end is known at the other.
    :param restart: ends plugin and virtual nodes, and starts them again.
    :param store: of the results.
    :param embedded: the embedded nodes, if it is those.
    :param kubernetes: the embedded API server, if it is that.
    """

    connections: Mapping[str, Mapping[str, Any]]
    patience: float
    restart: Callable[[], None]
    store: LocalS3
    embedded: LocalInterLink | None = None
    kubernetes: LocalKubernetes | None = None

    def environment(self) -> dict[str, str]:
        """The connections as Airflow reads them."""
        return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(found) for name, found in self.connections.items()}


@contextlib.contextmanager
def embedded(directory: Path, slurm: BatchSystem) -> Iterator[VirtualNodes]:
    """Run the embedded nodes over a batch system that is up; there is a bucket ``outgoing``."""
    kubernetes = LocalKubernetes(directory / "kubernetes")
    interlink = LocalInterLink(kubernetes, slurm, _images(), directory / "nodes")
    with _running(kubernetes, interlink), _store(directory) as store:
        connections = {"interlink_default": kubernetes.connection(), "oscar_s3_default": store.connection()}

        def restart() -> None:
            interlink.stop()
            interlink.start()

        yield VirtualNodes(connections, 30, restart, store, embedded=interlink, kubernetes=kubernetes)


@contextlib.contextmanager
def upstream(directory: Path, slurm: RealSlurm) -> Iterator[VirtualNodes]:
    """Run interLink's programs over a cluster that is up; skips the test where they, or Kubernetes, are absent."""
    programs.require(*programs.INTERLINK)
    if missing := kubernetes_build.missing_programs():
        pytest.skip(f"Kubernetes is not there: {', '.join(missing)}")
    etcd, api, scheduler, controllers = control_plane(directory)
    runtime = overlay_container.install(directory / "bin", _images())
    nodes = UpstreamNodes(api, slurm, directory / "nodes", lambda: runtime)
    with _running(etcd, api, scheduler, controllers, nodes), _store(directory) as store:
        connections = {"interlink_default": api.connection(), "oscar_s3_default": store.connection()}
        yield VirtualNodes(connections, 90, nodes.restart, store)


@contextlib.contextmanager
def _running(*parts: Component) -> Iterator[None]:
    with contextlib.ExitStack() as running:
        for part in parts:
            running.callback(part.stop)
            part.start()
        yield


@contextlib.contextmanager
def _store(directory: Path) -> Iterator[LocalS3]:
    store = LocalS3(directory / "s3", mode="seaweedfs")
    with _running(store):
        store.create_bucket("outgoing")
        yield store


def _images() -> dict[str, LocalImage]:
    return {IMAGE: LocalImage(IMAGE, path=[Path(sys.executable).parent])}


def job(command: list[str], *, memory_mib: int = 256, **given: Any) -> InterLinkPodOperator:
    """A task that runs a command as a job on the node for CPUs."""
    slurm = SlurmOptions(time="10", memory_mib=memory_mib)
    target = PlacementTarget(name="hpc-cpu", task_id="x", kind="interlink", node=NODE, slurm=slurm)
    arguments: dict[str, Any] = {"task_id": "run", "image": IMAGE, "output_uri": "s3://outgoing/results"}
    arguments |= {"target": target, "timeout": 120, "poll_interval": 0.5, "deferrable": False}
    return InterLinkPodOperator(command=command, **arguments | given)
