# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes API in one process: pods, secrets, nodes and what else Airflow and interLink touch.

It has no kubelet. Pods run only where a virtual node (:mod:`oscar_testbed.fakes.interlink`) takes
them; all others stay Pending with the scheduler's reason.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from oscar_testbed.fakes.kubernetes.api import Api
from oscar_testbed.fakes.kubernetes.logs import LogFiles, LogSource
from oscar_testbed.fakes.kubernetes.server import application
from oscar_testbed.fakes.kubernetes.store import NotFoundError, Object, ObjectStore
from oscar_testbed.faults import KubernetesFaults
from oscar_testbed.files import write_private
from oscar_testbed.webserver import AsgiServer

__all__ = ["LocalKubernetes", "LogFiles", "LogSource", "NotFoundError", "Object", "ObjectStore"]

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease", "oscar", "oscar-svc")


class LocalKubernetes:
    """The API server, its objects and its scheduler.

    Objects live in memory; the token survives a restart with the same ``directory``.

    :param directory: where the token and the kubeconfig file are written.
    :param faults: switches, looked at for every request.
    :param namespace: the one the Airflow connection names.
    """

    def __init__(self, directory: Path, *, faults: KubernetesFaults | None = None, namespace: str = "default") -> None:
        self.directory = directory.absolute()
        self.log_path = self.directory / "kubernetes.log"
        self.namespace = namespace
        self.faults = faults or KubernetesFaults()
        self.store = ObjectStore()
        self.log_sources: dict[str, LogSource] = {}
        self.token = ""
        self.api = Api(self.store, self.log_sources, self.faults)
        self._server: AsgiServer | None = None
        for name in NAMESPACES:
            meta = {"name": name, "labels": {"kubernetes.io/metadata.name": name}}
            namespace_object = {"kind": "Namespace", "apiVersion": "v1", "metadata": meta}
            self.store.create("namespaces", {**namespace_object, "status": {"phase": "Active"}})

    @property
    def url(self) -> str:
        """Address of the API server; empty before the first start."""
        return self._server.url if self._server else ""

    def start(self) -> None:
        """Serve; does nothing if it does already."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._server is None:
            self.token = self._token()
            self._server = AsgiServer(application(self.api, token=self.token, faults=self.faults))
        self._server.start()
        write_private(self.directory / "kubeconfig.json", json.dumps(self.kubeconfig(), indent=1))

    def stop(self) -> None:
        """Stop serving; the objects stay until this instance goes."""
        if self._server is not None:
            self._server.stop()

    def healthy(self) -> bool:
        """Whether it serves."""
        return self._server is not None and self._server.running

    def kubeconfig(self) -> dict[str, Any]:
        """A kubeconfig with the bearer token in it."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "embedded", "cluster": {"server": self.url}}],
            "users": [{"name": "embedded", "user": {"token": self.token}}],
            "contexts": [
                {
                    "name": "embedded",
                    "context": {"cluster": "embedded", "user": "embedded", "namespace": self.namespace},
                }
            ],
            "current-context": "embedded",
        }

    def connection(self) -> dict[str, Any]:
        """The Airflow connection for it (type ``interlink``); holds the token."""
        return {
            "conn_type": "interlink",
            "extra": {"kube_config_secret": json.dumps(self.kubeconfig())},
        }

    def _token(self) -> str:
        path = self.directory / "token"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32))
        return path.read_text()
