# SPDX-License-Identifier: Apache-2.0
"""The pod that carries one job: to a virtual node of interLink, or to an ordinary node of the cluster.

:func:`build_pod` offers only what survives interLink: a persistent volume claim, for instance, makes
the virtual kubelet drop every mount of its container, so it is refused for a virtual node.
The result is a plain dictionary that any Kubernetes client sends as it is.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.pod_merge import merge_pod, template_limits
from airflow_provider_oscar.core.pod_options import PodOptions
from airflow_provider_oscar.core.podstatus import OWNER_LABEL, SECRET_VOLUME
from airflow_provider_oscar.core.resources import check_resources
from airflow_provider_oscar.core.slurm import SlurmOptions, check_annotations

#: Name of the container that runs the job.
CONTAINER_NAME = "job"
#: Where the supervisor expects its secret.
SECRET_MOUNT_PATH = "/var/run/secrets/airflow-oscar"
#: Taint of every virtual node, in all versions of interLink.
VIRTUAL_NODE_TAINT = "virtual-node.interlink/no-schedule"

#: Limits of a job on a virtual node that nothing else gives; without a limit interLink's plugin asks SLURM for 1 MB.
DEFAULT_LIMITS = {"cpu": "1", "memory": "1024Mi"}

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_META_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_UNSAFE_IN_LABEL = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitContainer:
    """A container that runs to its end before the job, and shares the job's empty directories.

    :param name: DNS-1123 label.
    :param image: container image.
    :param command: program and first arguments.
    :param args: further arguments.
    """

    name: str
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRequest:
    """What a pod needs.

    :param name: pod name, normally the submission id; a DNS-1123 label.
    :param namespace: namespace; a DNS-1123 label.
    :param node: virtual node of interLink; empty means an ordinary node of the cluster.
    :param image: container image; for interLink also ``docker://…`` or the absolute path of a ``.sif``.
    :param command: program and first arguments; empty means the image's entry point.
    :param args: further arguments.
    :param env: environment; names must be shell identifiers. Not for secrets: the SLURM plugin writes it in clear
        to the shared file system.
    :param secret_name: Kubernetes Secret that is mounted whole at ``secret_mount_path``; empty means none.
    :param secret_mount_path: absolute path of that mount.
    :param slurm: SLURM options; only together with ``node``.
    :param resources: resource limits as Kubernetes quantities; they win over those of ``slurm``.
    :param labels: pod labels; :func:`label_value` makes any text fit.
    :param annotations: further pod annotations.
    :param empty_dirs: volume name to absolute mount path, in every container.
    :param init_containers: containers that run before.
    :param options: a user's additions.
    :param template: a pod to begin with, of the options' template.
    """

    name: str
    namespace: str
    image: str
    node: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secret_name: str = ""
    secret_mount_path: str = SECRET_MOUNT_PATH
    slurm: SlurmOptions | None = None
    resources: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    empty_dirs: Mapping[str, str] = field(default_factory=dict)
    init_containers: tuple[InitContainer, ...] = ()
    options: PodOptions = field(default_factory=PodOptions)
    template: Mapping[str, object] = field(default_factory=dict)


def build_pod(request: PodRequest) -> dict[str, object]:
    """Return the pod as the Kubernetes API takes it.

    :raises DefinitionError: for whatever Kubernetes would refuse or interLink would mangle.
    """
    _check(request)
    volumes: list[dict[str, object]] = [{"name": name, "emptyDir": {}} for name in request.empty_dirs]
    mounts: list[dict[str, object]] = [{"name": name, "mountPath": path} for name, path in request.empty_dirs.items()]
    init_mounts = list(mounts)
    if request.secret_name:
        # The SLURM plugin writes the files with this mode to the shared file system, and the job has the same user;
        # a kubelet keeps them for itself, and the container's user may be another. It dereferences a missing one.
        mode = 0o600 if request.node else 0o644
        volumes.append({"name": SECRET_VOLUME, "secret": {"secretName": request.secret_name, "defaultMode": mode}})
        mounts.append({"name": SECRET_VOLUME, "mountPath": request.secret_mount_path, "readOnly": True})
    container: dict[str, object] = {
        "name": CONTAINER_NAME,
        "image": request.image,
        "env": [{"name": name, "value": value} for name, value in request.env.items()],
        "resources": _resources(request),
        "volumeMounts": mounts,
    }
    container |= _argv(request.command, request.args)
    spec: dict[str, object] = {
        "restartPolicy": "Never",
        # Both would reach the HPC side: addresses of every service, and a token that lives 100 years.
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": volumes,
    }
    if request.init_containers:
        spec["initContainers"] = [
            {"name": init.name, "image": init.image, "volumeMounts": init_mounts, **_argv(init.command, init.args)}
            for init in request.init_containers
        ]
    if request.node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": request.node}
        spec["tolerations"] = [{"key": VIRTUAL_NODE_TAINT, "operator": "Exists"}]
    made: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": request.name,
            "namespace": request.namespace,
            "labels": {"app.kubernetes.io/managed-by": "airflow-provider-oscar", **request.labels},
            "annotations": _annotations(request),
        },
        "spec": spec,
    }
    if not request.template and not request.options.to_dict():
        return made
    return merge_pod(made, request.options, template=request.template, node=request.node)


def build_secret(name: str, data: Mapping[str, str], uid: str, owner: str) -> dict[str, Any]:
    """Return the secret of a pod, which Kubernetes removes with it.

    :param name: of both.
    :param data: its contents, in clear.
    :param uid: of the pod.
    :param owner: label of the pod that says whose it is; may be empty.
    """
    pod = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    labels = {"app.kubernetes.io/managed-by": "airflow-provider-oscar", **({OWNER_LABEL: owner} if owner else {})}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": labels, "ownerReferences": [pod]},
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def label_value(text: str) -> str:
    """Return any text cut and replaced so that it may be the value of a label; different texts may become equal."""
    return _UNSAFE_IN_LABEL.sub("_", text)[:63].strip("._-")


def _argv(command: tuple[str, ...], args: tuple[str, ...]) -> dict[str, list[str]]:
    return {key: list(words) for key, words in (("command", command), ("args", args)) if words}


def _resources(request: PodRequest) -> dict[str, object]:
    if not request.node:
        return {"limits": dict(request.resources)} if request.resources else {}
    slurm = request.slurm or SlurmOptions()
    # A virtual node reports what is free, so a full cluster would make Kubernetes refuse the pod; with no
    # request it is accepted and waits in SLURM's queue. The plugin reads limits only.
    given = {**DEFAULT_LIMITS, **template_limits(request.template), **slurm.limits(), **request.resources}
    return {"limits": given, "requests": {"cpu": "0", "memory": "0"}}


def _annotations(request: PodRequest) -> dict[str, str]:
    if not request.node:
        return dict(request.annotations)
    made = (request.slurm or SlurmOptions()).to_annotations()
    twice = sorted(made.keys() & request.annotations.keys())
    if twice:
        raise DefinitionError(
            f"pod {request.name!r}: {', '.join(twice)} is given as an annotation and follows from SlurmOptions too; "
            "use SlurmOptions alone"
        )
    return {**made, **request.annotations}


def _check(request: PodRequest) -> None:
    named = [("name", request.name, _LABEL), ("namespace", request.namespace, _LABEL)]
    named += [("node", request.node, _SUBDOMAIN)] if request.node else []
    named += [("secret_name", request.secret_name, _SUBDOMAIN)] if request.secret_name else []
    named += [("init_containers", init.name, _LABEL) for init in request.init_containers]
    named += [("empty_dirs", volume, _LABEL) for volume in request.empty_dirs]
    for what, name, pattern in named:
        if not pattern.fullmatch(name):
            raise DefinitionError(
                f"{what} of the pod is {quoted(name)}; expected a DNS-1123 name: a-z, 0-9 and '-', not at either end"
            )
    if len({CONTAINER_NAME, *(init.name for init in request.init_containers)}) <= len(request.init_containers):
        raise DefinitionError(f"pod {request.name!r}: two containers have the same name, or one is called 'job'")
    if SECRET_VOLUME in request.empty_dirs:
        raise DefinitionError(f"pod {request.name!r}: empty_dirs may not be called {SECRET_VOLUME!r}")
    for image in (request.image, *(init.image for init in request.init_containers)):
        if not image or any(character.isspace() for character in image):
            raise DefinitionError(
                f"pod {request.name!r}: image is {quoted(image)}; expected an image name without blanks"
            )
    if request.slurm and not request.node:
        raise DefinitionError(f"pod {request.name!r} has SLURM options and no node; name the interLink virtual node")
    _check_mounts(request)
    _check_maps(request)


def _check_mounts(request: PodRequest) -> None:
    paths = [*request.empty_dirs.values(), request.secret_mount_path]
    for path in paths:
        if not path.startswith("/") or ":" in path or ".." in path.split("/") or path.strip("/") == "":
            raise DefinitionError(
                f"pod {request.name!r}: mount path {quoted(path)} is not an absolute path without ':'"
            )
    if len({path.rstrip("/") for path in paths}) < len(paths):
        raise DefinitionError(f"pod {request.name!r}: two volumes are mounted at the same path")


def _check_maps(request: PodRequest) -> None:
    for name, value in request.env.items():
        if not _IDENTIFIER.fullmatch(name):
            raise DefinitionError(
                f"pod {request.name!r}: environment variable {quoted(name)} is not a shell identifier, and one such "
                "name breaks the whole environment on the HPC side; rename it"
            )
        if not isinstance(value, str) or "\0" in value:
            raise DefinitionError(f"pod {request.name!r}: environment variable {name} must be a text without NUL")
    check_resources(request.resources, f"pod {request.name!r}")
    check_annotations(request.annotations)
    for key in (*request.labels, *request.annotations):
        if not _META_KEY.fullmatch(key):
            raise DefinitionError(f"pod {request.name!r}: {quoted(key)} is not a key for a label or annotation")
    for key, value in request.labels.items():
        if not _LABEL_VALUE.fullmatch(value):
            raise DefinitionError(
                f"pod {request.name!r}: label {key} is {quoted(value)}; expected at most 63 characters "
                "A-Z a-z 0-9 . _ -, and a letter or digit at both ends"
            )
