# SPDX-License-Identifier: Apache-2.0
"""interLink itself as a part of the stack: a plugin, an API server and a virtual kubelet per SLURM partition."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx

from oscar_testbed.fakes.slurm.real import RealSlurm
from oscar_testbed.real.control_plane import ApiServer
from oscar_testbed.real.upstream.interlink import InterLinkPrograms
from oscar_testbed.real.upstream.plugin import SlurmPluginProgram
from oscar_testbed.real.upstream.programs import INTERLINK, version

_REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


class UpstreamNodes:
    """The same virtual nodes as the embedded ones, by upstream's programs; takes the place of ``VirtualNodes``.

    :param api: the running API server.
    :param slurm: the running cluster.
    :param directory: logs, sockets and jobs.
    :param runtime: returns the container runtime the jobs call.
    """

    name = "interLink nodes"
    real = True

    def __init__(self, api: ApiServer, slurm: RealSlurm, directory: Path, runtime: Callable[[], Path]) -> None:
        self.directory = directory.absolute()
        self.log_path = self.directory
        self._api = api
        self._slurm = slurm
        self._runtime = runtime
        self._running = ExitStack()
        self.nodes: list[InterLinkPrograms] = []
        self._plugins: list[SlurmPluginProgram] = []

    @property
    def version(self) -> str:
        """The versions of the three, if they are the same just once."""
        return " ".join(dict.fromkeys(version(name) for name in INTERLINK))

    def start(self) -> None:
        """Start the programs of all nodes, then wait for the nodes: each takes half a minute to say it is ready."""
        runtime = self._runtime()
        try:
            for partition in self._slurm.partitions():
                name = f"slurm-{partition.name}"
                directory = self.directory / name
                plugin = SlurmPluginProgram(directory, self._slurm, runtime, (f"--partition={partition.name}",))
                self._running.callback(plugin.stop)
                plugin.start()
                self._plugins.append(plugin)
                node = InterLinkPrograms(directory, name, plugin, self._api.kubeconfig_path, ready=self._ready)
                self._running.callback(node.stop)
                node.launch()
                self.nodes.append(node)
            for node in self.nodes:
                node.await_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the programs and take the nodes out of the cluster."""
        self._running.close()
        if self._api.healthy():
            with self._api.client() as client:
                for node in self.nodes:
                    client.delete(f"/api/v1/nodes/{node.node}")
        self.nodes, self._plugins = [], []

    def restart(self, *, pause: float = 0.0) -> None:
        """End the programs of all nodes and start them again; jobs, pods and nodes stay where they are.

        :param pause: seconds in between.
        """
        for node, plugin in zip(self.nodes, self._plugins, strict=True):
            node.stop()
            plugin.stop()
        time.sleep(pause)
        for node, plugin in zip(self.nodes, self._plugins, strict=True):
            plugin.start()
            node.launch()
        for node in self.nodes:
            node.await_ready()

    def healthy(self) -> bool:
        """Whether every node is looked after and Ready."""
        return bool(self.nodes) and all(node.healthy() for node in self.nodes)

    def _ready(self, name: str) -> bool:
        with self._api.client() as client:
            _approve_certificates(client)
            answer = client.get(f"/api/v1/nodes/{name}")
        if answer.is_error:  # it is not registered yet
            return False
        conditions = answer.json().get("status", {}).get("conditions") or []
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _approve_certificates(client: httpx.Client) -> None:
    """Do what a site's administrator does for interLink before 0.6.1, which has logs only with a certificate."""
    for found in client.get(_REQUESTS).json().get("items", []):
        if not found["status"].get("conditions"):
            approved = {"type": "Approved", "status": "True", "reason": "TestBed", "message": "a node of the test bed"}
            found["status"] = {"conditions": [approved]}
            client.put(f"{_REQUESTS}/{found['metadata']['name']}/approval", json=found).raise_for_status()
