# SPDX-License-Identifier: Apache-2.0
"""Jobs of services with ``interlink_node_name``: the pod OSCAR makes for a virtual node, and what it says of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from oscar_testbed.fakes.interlink.containers import SUPERVISOR_KIT_IMAGE
from oscar_testbed.fakes.kubernetes import LocalKubernetes, NotFoundError, Object
from oscar_testbed.fakes.oscar.definitions import Service

NAMESPACE = "oscar-svc"
CONTAINER = "oscar-container"


#: OSCAR prepares every container for a watchdog, which runs in none of these jobs.
_WATCHDOG = {
    "max_inflight": "1",
    "write_debug": "true",
    "exec_timeout": "0",
    "read_timeout": "300",
    "write_timeout": "300",
    "healthcheck_interval": "5",
    "fprocess": "/oscar/bin/supervisor",
}


def build_pod(
    service: Service, name: str, event: bytes, *, secret: bool = False, further: Mapping[str, str] | None = None
) -> Object:
    """The pod of one job; its event travels in base64, variables as they are written in the definition.

    :param secret: whether the service has secret variables, which the container gets from a Secret of its name.
    :param further: variables that only this platform needs.
    """
    variables = {
        **(service["environment"].get("variables") or {}),
        "OSCAR_SERVICE_NAME": service["name"],
        "OSCAR_SERVICE_TOKEN": service["token"],
        "OSCAR_SERVICE_BASE_PATH": "",
        **_WATCHDOG,
        "EVENT": base64.b64encode(event).decode(),
        "JOB_UUID": name,
        **(further or {}),
    }
    node_name = {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}
    labels = {**service["labels"], "oscar_service": service["name"]}
    limits = {"cpu": service["cpu"], "memory": service["memory"]}
    share = {"name": "supervisor-share-data", "mountPath": "/data"}
    # Mounts of a process container lie below this directory; elsewhere the variable is empty.
    root = "$CONTAINER_SANDBOX_MOUNT_POINT"
    return {
        "metadata": {"name": name, "labels": labels, "annotations": dict(service["annotations"])},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "nodeSelector": {"kubernetes.io/hostname": service["interlink_node_name"]},
            "tolerations": [{"key": "virtual-node.interlink/no-schedule", "operator": "Exists"}],
            "initContainers": [
                {
                    "name": "supervisor-container",
                    "image": SUPERVISOR_KIT_IMAGE,
                    "command": ["/bin/sh", "-c"],
                    "args": [f'cp -r "${{SUPERVISOR_KIT:-/supervisor}}"/* "{root}/data"'],
                    "volumeMounts": [share],
                }
            ],
            "containers": [
                {
                    "name": CONTAINER,
                    "image": service["image"],
                    "command": ["/bin/sh", "-c"],
                    "args": [f'echo $EVENT | base64 -d | "{root}/data/supervisor"'],
                    "env": [
                        *({"name": key, **({"value": value} if value else {})} for key, value in variables.items()),
                        {"name": "RESOURCE_ID", "valueFrom": node_name},
                    ],
                    **({"envFrom": [{"secretRef": {"name": service["name"]}}]} if secret else {}),
                    "resources": {"limits": limits, "requests": limits},
                    "volumeMounts": [
                        share,
                        {"name": "oscar-config", "mountPath": "/oscar/config"},
                        {"name": "minio-user", "mountPath": "/var/run/secrets/providers/minio.default"},
                    ],
                }
            ],
            "volumes": [
                {"name": "supervisor-share-data", "emptyDir": {}},
                {"name": "oscar-config", "configMap": {"name": service["name"]}},
                {"name": "minio-user", "secret": {"secretName": "minio"}},
            ],
        },
    }


class Offloader:
    """Pods of offloaded jobs in the embedded Kubernetes."""

    def __init__(self, kubernetes: LocalKubernetes) -> None:
        self._kubernetes = kubernetes

    def available(self) -> bool:
        """Whether a virtual node is there."""
        label = "virtual-node.interlink/type"
        nodes = self._kubernetes.store.objects("nodes")
        return any((node["metadata"].get("labels") or {}).get(label) == "virtual-kubelet" for node in nodes)

    def publish(
        self, service: Service, files: Mapping[str, str], keys: Mapping[str, str], secrets: Mapping[str, str]
    ) -> None:
        """Write the service's ConfigMap, the Secret with its variables, and the Secret with the storage keys."""
        self._replace("configmaps", {"metadata": {"name": service["name"]}, "data": dict(files)})
        self._replace("secrets", {"metadata": {"name": "minio"}, "stringData": dict(keys)})
        if secrets:
            self._replace("secrets", {"metadata": {"name": service["name"]}, "stringData": dict(secrets)})

    def submit(self, pod: Object) -> None:
        """Create the pod.

        :raises ApiError: when Kubernetes refuses it.
        """
        self._kubernetes.api.create("pods", NAMESPACE, pod)

    def get(self, name: str) -> Object | None:
        """The pod of a job, or None."""
        try:
            return self._kubernetes.store.get("pods", NAMESPACE, name)
        except NotFoundError:
            return None

    def jobs(self, service: str) -> dict[str, dict[str, Any]]:
        """What the job list says of every pod of a service; one that is being deleted has no job any more."""
        found = {}
        for pod in self._kubernetes.store.objects("pods", NAMESPACE):
            if "deletionTimestamp" in pod["metadata"]:
                continue
            if (pod["metadata"].get("labels") or {}).get("oscar_service") == service:
                found[pod["metadata"]["name"]] = _entry(pod)
        return found

    def log(self, pod: Object) -> bytes | None:
        """Log of the job's container, empty while it waits in a queue; None when it is not there yet."""
        source = self._kubernetes.log_sources.get(pod["spec"].get("nodeName", ""))
        files = source.log_files(pod["metadata"]["uid"], CONTAINER) if source else None
        if files is None:
            return None
        return b"".join(path.read_bytes() for path in (files.head, files.body) if path.exists())

    def delete(self, name: str) -> None:
        """Delete the pod, which cancels its batch job."""
        self._kubernetes.api.delete("pods", NAMESPACE, name)

    def _replace(self, plural: str, body: Object) -> None:
        with suppress(NotFoundError):
            self._kubernetes.api.delete(plural, NAMESPACE, body["metadata"]["name"])
        self._kubernetes.api.create(plural, NAMESPACE, body)


def _entry(pod: Object) -> dict[str, Any]:
    status = pod["status"]
    entry: dict[str, Any] = {"status": status.get("phase", "Unknown"), "creation_time": status.get("startTime")}
    for container in status.get("containerStatuses") or []:
        if container["name"] == CONTAINER:
            state = container.get("state") or {}
            details = state.get("terminated") or state.get("running") or {}
            entry |= {"start_time": details.get("startedAt"), "finish_time": details.get("finishedAt")}
    return {key: value for key, value in entry.items() if value is not None}
