# SPDX-License-Identifier: Apache-2.0
"""The embedded platform's virtual nodes on a real API server, where interLink's own programs are not at hand.

What the embedded API server does in one process needs a network here: logs are served over HTTPS as a kubelet
serves them, and a lease is renewed so that the controller manager believes that the node is alive.
"""

from __future__ import annotations

import datetime
import logging
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oscar_testbed import __version__
from oscar_testbed.fakes.interlink import SlurmPlugin, VirtualNode
from oscar_testbed.fakes.kubernetes import LocalKubernetes, LogSource, logs
from oscar_testbed.fakes.kubernetes.answers import ApiError
from oscar_testbed.fakes.kubernetes.store import ConflictError, NotFoundError, Object, ObjectStore
from oscar_testbed.fakes.slurm import BatchSystem
from oscar_testbed.faults import InterLinkFaults
from oscar_testbed.process import LOOPBACK
from oscar_testbed.real.base import run
from oscar_testbed.real.control_plane import ApiServer
from oscar_testbed.real.kube_store import KubeStore
from oscar_testbed.webserver import AsgiServer

log = logging.getLogger(__name__)

_LEASE_SECONDS = 5.0


class VirtualNodes:
    """Nodes ``slurm-cpu`` and ``slurm-gpu`` of a real cluster, played by the embedded virtual kubelet and plugin.

    :param api: the real API server.
    :param slurm: where jobs go.
    :param directory: job directories, certificate, runtime.
    :param runtime: makes the container runtime the jobs call, and returns its path.
    """

    name = "interLink nodes"
    real = False

    def __init__(self, api: ApiServer, slurm: BatchSystem, directory: Path, runtime: Callable[[], Path]) -> None:
        self.directory = directory
        self.log_path = directory
        self.version = __version__
        self.faults = InterLinkFaults()
        self.nodes: list[VirtualNode] = []
        self._api = api
        self._slurm = slurm
        self._runtime = runtime
        self._cluster: _Cluster | None = None

    def start(self) -> None:
        """Register the nodes."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        runtime = self._runtime()
        self._cluster = cluster = _Cluster(self._api.client, self.directory)
        cluster.start()
        for partition in self._slurm.partitions():
            name = f"slurm-{partition.name}"
            flags = (f"--partition={partition.name}",)
            plugin = SlurmPlugin(self.directory / name, self._slurm, runtime, flags, self.faults)
            kubernetes = cast(LocalKubernetes, cluster)
            node = VirtualNode(name, kubernetes, plugin, self._slurm, self.faults, gpus=partition.gpus)
            self.nodes.append(node)
            node.start()
            cluster.keep_alive(name)

    def stop(self) -> None:
        """Stop looking after the pods, and take the nodes out of the cluster."""
        for node in self.nodes:
            node.stop()
        if self._cluster is not None:
            for node in self.nodes:
                with suppress(NotFoundError, httpx.HTTPError, RuntimeError):
                    self._cluster.store.remove("nodes", "", node.name)
            self._cluster.stop()
        self.nodes, self._cluster = [], None

    def healthy(self) -> bool:
        """Whether every node is looked after."""
        return bool(self.nodes) and all(node.healthy() for node in self.nodes)


class _Scheduler:
    """Stands where the embedded platform has its own scheduler; a real cluster's needs no reminder."""

    def schedule(self) -> None:
        """Do nothing."""


class _Cluster:
    """What a :class:`VirtualNode` sees of the cluster; takes the place of ``LocalKubernetes``."""

    def __init__(self, client: Callable[..., httpx.Client], directory: Path) -> None:
        self.log_sources: dict[str, LogSource] = {}
        self.api = _Scheduler()
        context = _tls(directory)
        self._server = AsgiServer(self._application(), ssl=context)
        self._kept: list[str] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.store = _NodeStore(client(), self._server)
        self._leases = client()

    def start(self) -> None:
        self._server.start()
        self.store.start()
        self._thread = threading.Thread(target=self._renew, name="node-leases", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._leases.close()
        self.store.stop()
        self._server.stop()

    def keep_alive(self, node: str) -> None:
        self._kept.append(node)

    def _renew(self) -> None:
        store = KubeStore(self._leases)
        while not self._stopping.wait(_LEASE_SECONDS if self._kept else 0.1):
            for node in list(self._kept):
                try:
                    store.replace("leases", "kube-node-lease", node, _renewed)
                    store.update("nodes", "", node, _revived)
                except (httpx.HTTPError, RuntimeError, ConflictError, NotFoundError) as error:
                    log.warning("lease of node %s: %s", node, error)

    def _application(self) -> Starlette:
        return Starlette(routes=[Route("/containerLogs/{namespace}/{pod}/{container}", self._log)])

    async def _log(self, request: Request) -> Response:
        words = request.path_params
        store = cast(ObjectStore, self.store)
        try:
            pod = store.get("pods", words["namespace"], words["pod"])
            source = self.log_sources.get(pod["spec"].get("nodeName", ""))
            query = {**request.query_params, "container": words["container"]}
            return await logs.answer(store, pod, source, query, 0)
        except NotFoundError as error:
            return PlainTextResponse(str(error), status_code=404)
        except ApiError as error:
            return PlainTextResponse(str(error), status_code=404)


class _NodeStore(KubeStore):
    """Adds to a node what the embedded one does not need: the port of its log server."""

    def __init__(self, client: httpx.Client, server: AsgiServer) -> None:
        super().__init__(client)
        self._server = server

    def create(self, plural: str, body: Object) -> Object:
        """See :meth:`KubeStore.create`."""
        if plural == "nodes":
            body = {**body, "status": {**body["status"], **_endpoint(self._server.port)}}
        if plural == "leases":
            body = _renewed(body)
        return super().create(plural, body)


def _endpoint(port: int) -> dict[str, Any]:
    return {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}


def _renewed(lease: Object) -> Object:
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {**lease, "spec": {**lease["spec"], "renewTime": moment, "leaseDurationSeconds": 40}}


def _revived(node: Object) -> Object | None:
    """A node that was given up after a silence comes back only when it says so itself."""
    conditions = node["status"].get("conditions") or []
    if all(one["status"] != "Unknown" for one in conditions):
        return None
    # The controller manager adds conditions nobody ever reported; of those, True would be the bad news.
    back = [
        {
            **one,
            "status": "False" if one["type"].endswith("Pressure") else "True",
            "reason": "KubeletReady",
            "message": "",
        }
        for one in conditions
    ]
    return {**node, "status": {**node["status"], "conditions": back}}


def _tls(directory: Path) -> ssl.SSLContext:
    """A certificate of our own; the API server asks a node for one and does not check whose it is."""
    certificate, key = directory / "node.crt", directory / "node.key"
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={LOOPBACK}"]
    run(["openssl", "req", *words, "-keyout", str(key), "-out", str(certificate)])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
