# SPDX-License-Identifier: Apache-2.0
"""The pods that the cases send: what ``airflow-provider-oscar`` made when the answers were recorded, frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Where the supervisor of the provider expects its secret.
SECRET_MOUNT_PATH = "/var/run/secrets/airflow-oscar"
_VARIABLES = ("SLURM_JOB_ID", "SLURM_JOB_PARTITION")
_PRE_EXEC = "".join(
    f'export {runtime}ENV_{name}="${{{name}:-}}"\n' for name in _VARIABLES for runtime in ("SINGULARITY", "APPTAINER")
)


@dataclass(frozen=True, kw_only=True)
class JobPod:
    """One pod for a virtual node.

    :param command: program and first arguments.
    :param args: further arguments.
    :param env: environment of its container.
    :param flags: options of ``sbatch``.
    :param secret_name: Secret that is mounted whole, or empty.
    :param empty_dirs: volume name to mount path, in every container.
    :param init: name to shell script of each init container.
    """

    command: Sequence[str] = ("/bin/sh", "-c")
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    flags: str = "--time=5"
    secret_name: str = ""
    empty_dirs: Mapping[str, str] = field(default_factory=dict)
    init: Mapping[str, str] = field(default_factory=dict)

    def build(self, name: str, *, image: str, node: str, namespace: str = "default") -> dict[str, Any]:
        """Return the pod as the Kubernetes API takes it."""
        shared = [{"name": volume, "mountPath": path} for volume, path in self.empty_dirs.items()]
        volumes: list[dict[str, Any]] = [{"name": volume, "emptyDir": {}} for volume in self.empty_dirs]
        mounts: list[dict[str, Any]] = list(shared)
        if self.secret_name:
            secret = {"secretName": self.secret_name, "defaultMode": 0o600}
            volumes.append({"name": "airflow-oscar", "secret": secret})
            mounts.append({"name": "airflow-oscar", "mountPath": SECRET_MOUNT_PATH, "readOnly": True})
        container: dict[str, Any] = {
            "name": "job",
            "image": image,
            "env": [{"name": variable, "value": value} for variable, value in self.env.items()],
            "resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "0", "memory": "0"}},
            "volumeMounts": mounts,
            "command": list(self.command),
            "args": list(self.args),
        }
        spec: dict[str, Any] = {
            "restartPolicy": "Never",
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": volumes,
            "nodeSelector": {"kubernetes.io/hostname": node},
            "tolerations": [{"key": "virtual-node.interlink/no-schedule", "operator": "Exists"}],
        }
        if self.init:
            spec["initContainers"] = [
                {"name": each, "image": image, "volumeMounts": shared, "command": ["/bin/sh", "-c"], "args": [script]}
                for each, script in self.init.items()
            ]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/managed-by": "airflow-provider-oscar"},
                "annotations": slurm_annotations(self.flags),
            },
            "spec": spec,
        }


def slurm_annotations(flags: str = "--time=5") -> dict[str, str]:
    """The annotations that interLink's SLURM plugin reads.

    :param flags: options of ``sbatch``.
    """
    return {"slurm-job.vk.io/flags": flags, "slurm-job.vk.io/pre-exec": _PRE_EXEC}
