# SPDX-License-Identifier: Apache-2.0
"""Cloud jobs of the embedded OSCAR as pods of a real node, shaped as OSCAR's own are."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from oscar_testbed.fakes.oscar.jobs import Job
from oscar_testbed.fakes.oscar.offload import CONTAINER, NAMESPACE
from oscar_testbed.process import wait_until
from oscar_testbed.real.cluster import apply, kube_client
from oscar_testbed.real.oscar_volume import MOUNT, embedded_supervisor

_CONFIG = "/oscar/config"
_CORE = f"/api/v1/namespaces/{NAMESPACE}"
_PODS = f"{_CORE}/pods"
_LABEL = "oscar_service"
_MARK = {"app.kubernetes.io/managed-by": "embedded-oscar"}
_SELECTOR = ",".join(f"{name}={value}" for name, value in _MARK.items())
_GRACE_SECONDS = 2
_GONE_SECONDS = 40.0


class PodRunner:
    """Takes the place of the embedded OSCAR's job slots.

    :param kubeconfig: the cluster, whose administrator we are.
    :param node: name of the real node.
    :param directory: holds the supervisor that is mounted into every pod.
    """

    def __init__(self, kubeconfig: Mapping[str, Any], node: str, directory: Path) -> None:
        self._node = node
        self._directory = directory.absolute()
        self._client = kube_client(kubeconfig)
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def start(self, runtime: Path) -> None:
        """Lay out the supervisor; the image has the interpreter for it."""
        embedded_supervisor(self._directory)

    def stop(self) -> None:
        """Remove every pod, so that the node has none of ours left."""
        for name in list(self._jobs):
            self.remove(name)
        wait_until(lambda: not self._pods(), what="OSCAR's pods are gone", timeout=_GONE_SECONDS)
        for plural in ("secrets", "configmaps"):
            self._client.delete(f"{_CORE}/{plural}", params={"labelSelector": _SELECTOR}).raise_for_status()
        self._client.close()

    def submit(self, job: Job) -> bool:
        """Create the pod, and before it what it mounts."""
        with self._lock:
            if job.name in self._jobs:
                return False
            self._jobs[job.name] = job
        files = {target: path for path, target in job.binds}
        config = _texts(files, _CONFIG)
        keys = next(target.rpartition("/")[0] for target in files if target.startswith("/var/run/secrets/"))
        self._keep("ConfigMap", job.service, {"data": config})
        self._keep("Secret", "minio", {"stringData": _texts(files, keys)})
        # A job's variables hold the values of the service's secrets, and its event URLs that open doors.
        self._keep("Secret", job.name, {"stringData": dict(job.environment)})
        answer = self._client.post(_PODS, json=self._pod(job, json.loads(config["function_config.yaml"]), keys))
        if answer.is_error:
            with self._lock:
                del self._jobs[job.name]
            answer.raise_for_status()
        return True

    def jobs(self, service: str) -> dict[str, Job]:
        """Jobs of a service by name, with what Kubernetes says of their pods."""
        pods = {pod["metadata"]["name"]: pod for pod in self._pods()}
        with self._lock:
            found = {job.name: job for job in self._jobs.values() if job.service == service}
            for name, job in found.items():
                if name in pods:
                    _update(job, pods[name]["status"])
            return found

    def taken(self, name: str) -> bool:
        """Whether a job of that name exists."""
        return name in self._jobs

    def remove(self, name: str) -> None:
        """Delete the pod."""
        with self._lock:
            job = self._jobs.pop(name, None)
        if job is not None:
            self._client.delete(f"{_CORE}/secrets/{name}")
            options = {"gracePeriodSeconds": _GRACE_SECONDS}
            answer = self._client.request("DELETE", f"{_PODS}/{name}", json=options)
            if answer.status_code != httpx.codes.NOT_FOUND:
                answer.raise_for_status()

    def log(self, job: Job) -> bytes:
        """What the container printed, from the node."""
        answer = self._client.get(f"{_PODS}/{job.name}/log", params={"container": CONTAINER})
        return answer.content if answer.is_success else b""

    def _keep(self, kind: str, name: str, content: Mapping[str, Any]) -> None:
        head = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": _MARK}}
        apply(self._client, f"{_CORE}/{kind.lower()}s/{name}", {**head, **content})

    def _pods(self) -> list[dict[str, Any]]:
        answer = self._client.get(_PODS, params={"labelSelector": _SELECTOR}).raise_for_status()
        found: list[dict[str, Any]] = answer.json()["items"]
        return found

    def _pod(self, job: Job, service: Mapping[str, Any], keys: str) -> dict[str, Any]:
        volumes = {
            "oscar-config": (_CONFIG, {"configMap": {"name": job.service}}),
            "oscar-bin": (MOUNT, {"hostPath": {"path": str(self._directory), "type": "Directory"}}),
            "minio": (keys, {"secret": {"secretName": "minio"}}),
        }
        mounts = [{"name": name, "mountPath": path, "readOnly": True} for name, (path, _) in volumes.items()]
        container = {
            "name": CONTAINER,
            "image": job.image,
            "command": ["/bin/sh", "-c", f"echo $EVENT | {MOUNT}/supervisor"],
            "envFrom": [{"secretRef": {"name": job.name}}],
            "resources": {"limits": {"cpu": str(service["cpu"]), "memory": str(service["memory"])}},
            "volumeMounts": mounts,
        }
        return {
            "metadata": {"name": job.name, "labels": {**_MARK, _LABEL: job.service}},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "nodeSelector": {"kubernetes.io/hostname": self._node},
                "containers": [container],
                "volumes": [{"name": name, **source} for name, (_, source) in volumes.items()],
            },
        }


def _texts(files: Mapping[str, Path], folder: str) -> dict[str, str]:
    """Contents of the files that are mounted into a folder, by their names there."""
    inside = {target.rpartition("/")[2]: path for target, path in files.items() if target.startswith(f"{folder}/")}
    return {name: path.read_text() for name, path in inside.items()}


def _update(job: Job, status: Mapping[str, Any]) -> None:
    job.status = status.get("phase", "Pending")
    job.creation_time = status.get("startTime")
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        details = state.get("terminated") or state.get("running") or {}
        job.start_time, job.finish_time = details.get("startedAt"), details.get("finishedAt")
