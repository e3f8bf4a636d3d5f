# SPDX-License-Identifier: Apache-2.0
"""Worker pods of Airflow's KubernetesExecutor on the stack's kubelet node, without an image of Airflow.

A pod changes its root to the node's own, where the Airflow of the tests is installed; what runs in it is Airflow's.
Its settings and connections come from a Secret of the cluster, so that the pod itself shows none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oscar_testbed.programs import require_program
from oscar_testbed.real.images import image_archive
from oscar_testbed.real.kubelet import NODE, Containerd

IMAGE = "localhost/change-root:1"
_LABEL = "kubernetes_executor=True"
SECRET = "airflow-worker"
#: What a worker is told; the rest of our environment stays here.
_PREFIXES = ("AIRFLOW", "THREEDGAN_")
_NAMES = frozenset({"PATH", "HOME", "LANG", "NO_PROXY", "PYTHONWARNINGS"})


def load_image(containerd: Containerd, directory: Path) -> None:
    """Make the image and give it to the node.

    :param directory: a place for it.
    :raises MissingPrerequisite: without a statically linked busybox.
    """
    busybox = require_program("busybox", package="busybox-static")
    root = directory / "change-root"
    (root / "host").mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, root / "busybox")
    containerd.load(image_archive(IMAGE, root, directory / "change-root.tar", ["/busybox"]))


def settings(template: Path, kubeconfig: Path, namespace: str) -> dict[str, str]:
    """Variables that make the scheduler use the executor."""
    section = {
        "pod_template_file": str(template),
        "namespace": namespace,
        "config_file": str(kubeconfig),
        "in_cluster": "False",
        # So that a test can look at them afterwards.
        "delete_worker_pods": "False",
        "worker_pods_creation_batch_size": "4",
    }
    found = {f"AIRFLOW__KUBERNETES_EXECUTOR__{name.upper()}": value for name, value in section.items()}
    return {**found, "AIRFLOW__CORE__EXECUTOR": "KubernetesExecutor"}


def write_template(path: Path) -> None:
    """Write the pod that the executor gives its arguments to."""
    container = {
        "name": "base",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/busybox", "chroot", "/host", "/bin/sh", "-c", 'exec "$@"', "worker"],
        "envFrom": [{"secretRef": {"name": SECRET}}],
        "volumeMounts": [{"name": "node", "mountPath": "/host"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "worker"},
        "spec": {
            "containers": [container],
            "volumes": [{"name": "node", "hostPath": {"path": "/"}}],
            "nodeSelector": {"kubernetes.io/hostname": NODE},
            # Everything else of the test listens on the node's loopback.
            "hostNetwork": True,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
        },
    }
    path.write_text(json.dumps(pod))


def put_environment(core: Any, namespace: str, environment: Mapping[str, str]) -> None:
    """Store what the workers are told as a Secret, in place of an older one.

    :param core: the cluster's ``CoreV1Api``.
    """
    chosen = {name: value for name, value in environment.items() if name.startswith(_PREFIXES) or name in _NAMES}
    remove_environment(core, namespace)
    core.create_namespaced_secret(namespace, {"metadata": {"name": SECRET}, "stringData": chosen})


def remove_environment(core: Any, namespace: str) -> None:
    """Remove the Secret; it is not an error if there is none."""
    core.delete_collection_namespaced_secret(namespace, field_selector=f"metadata.name={SECRET}")


def pods(core: Any, namespace: str) -> list[Any]:
    """The worker pods that are there."""
    found: list[Any] = core.list_namespaced_pod(namespace, label_selector=_LABEL).items
    return found


def remove_pods(core: Any, namespace: str) -> None:
    """Remove them all, at once."""
    core.delete_collection_namespaced_pod(namespace, label_selector=_LABEL, grace_period_seconds=0)
