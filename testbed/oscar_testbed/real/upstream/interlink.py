# SPDX-License-Identifier: Apache-2.0
"""interLink's API server and its virtual kubelet as programs: a virtual node in front of a plugin."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import httpx

from oscar_testbed.process import LOOPBACK, Program, free_ports, wait_until
from oscar_testbed.real.upstream.plugin import SlurmPluginProgram
from oscar_testbed.real.upstream.programs import require


class InterLinkPrograms:
    """One virtual node: API server and virtual kubelet, which live and die together.

    :param directory: configuration, kubeconfig and logs.
    :param node: name of the virtual node.
    :param plugin: the running plugin behind it.
    :param kubeconfig: path of a kubeconfig whose user may do what a node and its controller do.
    :param ready: tells whether the API server of Kubernetes has the node as Ready.
    """

    def __init__(
        self,
        directory: Path,
        node: str,
        plugin: SlurmPluginProgram,
        kubeconfig: Path,
        *,
        ready: Callable[[str], bool],
    ) -> None:
        api, kubelet = require("interlink", "virtual-kubelet")
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.node = node
        self._plugin = plugin
        self._ready = ready
        self._api_port, self._kubelet_port = free_ports(2)
        base = {"PATH": "/usr/bin:/bin", "HOME": str(self.directory)}
        self._api = Program(
            f"interLink API of {node}",
            [str(api)],
            log_path=self.directory / "interlink.log",
            env={**base, "INTERLINKCONFIGPATH": str(self.directory / "interlink.yaml")},
            cwd=self.directory,
        )
        self._kubelet = Program(
            f"virtual kubelet of {node}",
            [str(kubelet)],
            log_path=self.directory / "virtual-kubelet.log",
            env={
                **base,
                "CONFIGPATH": str(self.directory / "virtual-kubelet.yaml"),
                "NODENAME": node,
                "KUBECONFIG": str(kubeconfig.absolute()),
                "KUBELET_URL": LOOPBACK,
                "KUBELET_PORT": str(self._kubelet_port),
                "POD_IP": LOOPBACK,
            },
            cwd=self.directory,
        )

    @property
    def url(self) -> str:
        """Address of the API server."""
        return f"http://{LOOPBACK}:{self._api_port}"

    def launch(self) -> None:
        """Start both; the node is Ready only after its first ping, half a minute later (:meth:`await_ready`)."""
        verbose = bool(os.environ.get("SYSTEM_VERBOSE"))
        self._write(
            "interlink.yaml",
            {
                "InterlinkAddress": f"http://{LOOPBACK}",
                "InterlinkPort": str(self._api_port),
                "SidecarURL": self._plugin.url,
                "SidecarPort": "",
                "DataRootFolder": f"{self.directory}/data/",
                "VerboseLogging": verbose,
            },
        )
        self._write(
            "virtual-kubelet.yaml",
            {
                "InterlinkURL": f"http://{LOOPBACK}",
                "InterlinkPort": str(self._api_port),
                "VKTokenFile": "",
                "ServiceAccount": "default",
                "Namespace": "default",
                "DisableCSR": True,
                "Resources": {"CPU": "100", "Memory": "3000Gi", "Pods": "1000"},
                "HTTP": {"Insecure": True},
                "KubeletHTTP": {"Insecure": True},
                "VerboseLogging": verbose,
            },
        )
        self._api.start()
        wait_until(self._answers, what="the interLink API answers", timeout=30, program=self._api)
        self._kubelet.start()

    def await_ready(self, *, timeout: float = 180.0) -> None:
        """Return once Kubernetes has the node as Ready."""
        wait_until(
            lambda: self._ready(self.node), what=f"node {self.node} is Ready", timeout=timeout, program=self._kubelet
        )

    def stop(self) -> None:
        """End both; jobs go on."""
        self._kubelet.stop()
        self._api.stop()

    def healthy(self) -> bool:
        """Whether both run and the node is Ready."""
        return self._api.running and self._kubelet.running and self._ready(self.node)

    def _answers(self) -> bool:
        try:
            return httpx.post(f"{self.url}/pinglink", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def _write(self, name: str, config: dict[str, object]) -> None:
        (self.directory / name).write_text(json.dumps(config, indent=1))
