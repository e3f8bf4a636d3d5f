# SPDX-License-Identifier: Apache-2.0
"""interLink in one process: two virtual nodes whose pods become SLURM jobs that run process containers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from oscar_testbed.fakes.interlink.containers import install_runtime
from oscar_testbed.fakes.interlink.plugin import SlurmPlugin
from oscar_testbed.fakes.interlink.virtual_node import VirtualNode
from oscar_testbed.fakes.kubernetes import LocalKubernetes
from oscar_testbed.fakes.slurm import BatchSystem
from oscar_testbed.faults import InterLinkFaults
from oscar_testbed.images import LocalImage

__all__ = ["LocalInterLink", "SlurmPlugin", "VirtualNode", "install_runtime"]


class LocalInterLink:
    """Virtual nodes ``slurm-cpu`` and ``slurm-gpu``, one per partition of the batch system.

    A node's partition is its default; the annotation ``slurm-job.vk.io/flags`` of a pod overrides it. Jobs
    outlive :meth:`stop` as they outlive a restart of the real virtual kubelet; the batch system ends them.

    :param kubernetes: where the nodes register.
    :param slurm: where jobs go.
    :param images: what each image name means; may grow until :meth:`start`.
    :param directory: scripts, logs and mounts of the jobs.
    :param faults: switches, looked at all the time.
    """

    def __init__(  # noqa: PLR0917 - the parts in the order of the platform
        self,
        kubernetes: LocalKubernetes,
        slurm: BatchSystem,
        images: Mapping[str, LocalImage],
        directory: Path,
        faults: InterLinkFaults | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.log_path = self.directory
        self.faults = faults or InterLinkFaults()
        self._kubernetes = kubernetes
        self._slurm = slurm
        self._images = images
        self.nodes: list[VirtualNode] = []

    def start(self) -> None:
        """Install the container runtime and register the nodes."""
        self.directory.mkdir(parents=True, exist_ok=True)
        runtime = install_runtime(self.directory / "bin", self._images)
        if not self.nodes:
            for partition in self._slurm.partitions():
                name = f"slurm-{partition.name}"
                flags = (f"--partition={partition.name}",)
                plugin = SlurmPlugin(self.directory / name, self._slurm, runtime, flags, self.faults)
                self.nodes.append(
                    VirtualNode(name, self._kubernetes, plugin, self._slurm, self.faults, gpus=partition.gpus)
                )
        for node in self.nodes:
            node.start()

    def stop(self) -> None:
        """Stop the nodes' threads."""
        for node in self.nodes:
            node.stop()

    def healthy(self) -> bool:
        """Whether every node is looked after."""
        return bool(self.nodes) and all(node.healthy() for node in self.nodes)
