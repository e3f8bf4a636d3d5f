# SPDX-License-Identifier: Apache-2.0
"""Puts a user's pod options and ours together, and refuses what a virtual node of interLink would lose without a word.

What interLink carries is read in its sources (virtual kubelet and SLURM plugin 0.6.2): of volumes emptyDir, configMap,
secret, projected and hostPath; of the rest of a pod the containers with their variables, and metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.pod_options import PodOptions, plain

#: Names of the container of a template that becomes the job's.
_MAIN = ("job", "base")
_VOLUME_KINDS = ("emptyDir", "configMap", "secret", "projected", "downwardAPI", "hostPath")
_HOST_PATH_TYPES = ("Directory", "DirectoryOrCreate")
_FIELDS = re.compile(
    r"spec\.(?:nodeName|serviceAccountName)|metadata\.(?:name|namespace|uid|labels\['[^']+'\]|annotations\['[^']+'\])"
)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_PROBES, _HOOKS = ("startupProbe", "readinessProbe", "livenessProbe"), ("postStart", "preStop")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")

#: A part of a pod while it is put together.
Part = dict[str, Any]


def merge_pod(ours: Mapping[str, object], options: PodOptions, *, template: Mapping[str, object], node: str) -> Part:
    """Return our pod with a user's additions.

    :param ours: from :func:`~airflow_provider_oscar.core.pods.build_pod`.
    :param options: the additions.
    :param template: a pod to begin with; may be empty.
    :param node: virtual node; empty for an ordinary one.
    :raises DefinitionError: for what would collide, or be lost on the virtual node.
    """
    base: Any = plain(template)
    own: Any = plain(ours)
    display_name = f"pod {own['metadata']['name']!r}"
    metadata, spec = dict(base.get("metadata") or {}), dict(base.get("spec") or {})
    annotations = {**(metadata.get("annotations") or {}), **options.annotations}
    _no_collision(display_name, "annotations", annotations, own["metadata"]["annotations"])
    labels = {**(metadata.get("labels") or {}), **options.labels}
    ours_spec: Part = own["spec"]
    (job,) = ours_spec["containers"]
    theirs, others = _main_container(display_name, spec.get("containers") or [])
    more: list[Part] = [dict(each) for each in options.containers]
    first: list[Part] = [dict(each) for each in options.init_containers]
    added: list[Part] = [dict(each) for each in options.volumes]
    merged: Part = {
        **spec,
        **ours_spec,
        "containers": [_job_container(display_name, theirs, job, options), *others, *more],
        "volumes": _named(display_name, "volumes", [*(spec.get("volumes") or []), *added, *ours_spec["volumes"]]),
        "nodeSelector": {
            **(spec.get("nodeSelector") or {}),
            **options.node_selector,
            **(ours_spec.get("nodeSelector") or {}),
        },
        "tolerations": [
            *(spec.get("tolerations") or []),
            *options.tolerations,
            *(ours_spec.get("tolerations") or []),
        ],
        "initContainers": [
            *(ours_spec.get("initContainers") or []),
            *(spec.get("initContainers") or []),
            *first,
        ],
        "imagePullSecrets": [
            *(spec.get("imagePullSecrets") or []),
            *({"name": name} for name in options.image_pull_secrets),
        ],
    }
    named = {"serviceAccountName": options.service_account, "priorityClassName": options.priority_class}
    merged |= {name: value for name, value in named.items() if value}
    _named(display_name, "containers", [*merged["containers"], *merged["initContainers"]])
    merged = {name: value for name, value in merged.items() if value not in ([], {}, None)}
    if node:
        _check_virtual(display_name, merged)
    return {
        **own,
        "metadata": {
            **metadata,
            **own["metadata"],
            "labels": {**labels, **own["metadata"]["labels"]},
            "annotations": {**annotations, **own["metadata"]["annotations"]},
        },
        "spec": merged,
    }


def check_virtual_pod(pod: Mapping[str, object]) -> None:
    """Refuse what a virtual node would lose of a whole pod.

    :param pod: as it would be created.
    :raises DefinitionError: with what works instead.
    """
    found: Any = plain(pod)
    _check_virtual(f"pod {found['metadata']['name']!r}", found["spec"])


def template_command(template: Mapping[str, object]) -> list[str]:
    """Return command and arguments of the job's container of a template; empty if it leaves them to its image.

    :param template: a pod.
    """
    base: Any = plain(template)
    main, _ = _main_container("the template", (base.get("spec") or {}).get("containers") or [])
    return [str(word) for word in (*(main.get("command") or ()), *(main.get("args") or ()))]


def template_image(template: Mapping[str, object]) -> str:
    """Return the image of the job's container of a template; empty if it has none."""
    base: Any = plain(template)
    main, _ = _main_container("the template", (base.get("spec") or {}).get("containers") or [])
    return str(main.get("image") or "")


def template_limits(template: Mapping[str, object]) -> dict[str, str]:
    """Return the resource limits of the job's container of a template."""
    base: Any = plain(template)
    main, _ = _main_container("the template", (base.get("spec") or {}).get("containers") or [])
    return {name: str(value) for name, value in ((main.get("resources") or {}).get("limits") or {}).items()}


def _main_container(display_name: str, containers: list[Part]) -> tuple[Part, list[Part]]:
    for name in _MAIN:
        for container in containers:
            if container.get("name") == name:
                return container, [each for each in containers if each is not container]
    if len(containers) > 1:
        names = ", ".join(str(each.get("name")) for each in containers)
        raise DefinitionError(
            f"{display_name}: the template has containers {names}; call the one that is the job's 'job' or 'base'"
        )
    return (containers[0], []) if containers else ({}, [])


def _job_container(display_name: str, theirs: Part, ours: Part, options: PodOptions) -> Part:
    """The job's container: what the template says beside what we set; command and arguments are the supervisor's."""
    rest = {name: value for name, value in theirs.items() if name not in ("name", "command", "args")}
    env = [*(theirs.get("env") or []), *options.env]
    own_names = {each["name"] for each in ours["env"]}
    mounts = [*(theirs.get("volumeMounts") or []), *options.volume_mounts, *ours["volumeMounts"]]
    paths = [str(mount.get("mountPath")).rstrip("/") for mount in mounts]
    if len(set(paths)) < len(paths):
        raise DefinitionError(f"{display_name}: two volumes are mounted at the same path in the job's container")
    env_from = [*(theirs.get("envFrom") or []), *options.env_from]
    resources: Part = dict(theirs.get("resources") or {})
    limits = {**(resources.get("limits") or {}), **(ours["resources"].get("limits") or {})}
    resources |= {**ours["resources"], **({"limits": limits} if limits else {})}
    return {
        **rest,
        **ours,
        **({"envFrom": env_from} if env_from else {}),
        "resources": resources,
        "env": [*(each for each in env if each.get("name") not in own_names), *ours["env"]],
        "volumeMounts": mounts,
    }


def _named(display_name: str, what: str, parts: Iterable[Part]) -> list[Part]:
    found = list(parts)
    names = [str(part.get("name") or "") for part in found]
    twice = sorted({name for name in names if names.count(name) > 1 or not name})
    if twice:
        raise DefinitionError(
            f"{display_name}: {what} need names of their own; {', '.join(map(quoted, twice))} is there twice"
        )
    return found


def _no_collision(display_name: str, what: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    if twice := sorted(theirs.keys() & ours.keys()):
        raise DefinitionError(f"{display_name}: {what} {', '.join(twice)} follow from SlurmOptions; use these alone")


def _check_virtual(display_name: str, spec: Part) -> None:
    """Refuse what interLink loses or breaks on, with what works instead."""
    if spec.get("imagePullSecrets"):
        raise DefinitionError(
            f"{display_name}: interLink's plugin does not read imagePullSecrets; log in where the image is pulled: "
            'SlurmOptions(pre_exec="export SINGULARITY_DOCKER_USERNAME=…"), or give the path of a .sif file'
        )
    if "runAsUser" in (spec.get("securityContext") or {}):
        raise DefinitionError(
            f"{display_name}: securityContext.runAsUser becomes sbatch --uid, which only root may use; leave it out"
        )
    for volume in spec.get("volumes") or []:
        _check_volume(display_name, volume)
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        _check_container(f"{display_name}, container {container.get('name')!r}", container)
    for init in spec.get("initContainers", []):
        if init.get("restartPolicy") == "Always":
            raise DefinitionError(
                f"{display_name}: init container {init.get('name')!r} has restartPolicy Always; interLink would wait "
                "for its end forever: put it among the containers"
            )


def _check_volume(display_name: str, volume: Part) -> None:
    name, kinds = quoted(volume.get("name")), [kind for kind in volume if kind != "name"]
    if len(kinds) != 1 or kinds[0] not in _VOLUME_KINDS:
        raise DefinitionError(
            f"{display_name}: volume {name} is of kind {', '.join(kinds) or 'none'}; with it interLink drops every "
            f"mount of the container: use {', '.join(_VOLUME_KINDS)}, or bind a directory of the site with "
            "SlurmOptions.mounts"
        )
    source = volume[kinds[0]] or {}
    if kinds[0] == "hostPath" and source.get("type") not in _HOST_PATH_TYPES:
        raise DefinitionError(
            f"{display_name}: hostPath volume {name} needs type {' or '.join(_HOST_PATH_TYPES)}; interLink's plugin "
            "breaks down on others"
        )
    if kinds[0] in ("configMap", "secret") and source.get("items"):
        raise DefinitionError(
            f"{display_name}: volume {name} has items, which interLink ignores: every key becomes a file"
        )
    for part in source.get("sources") or () if kinds[0] == "projected" else ():
        if "secret" in part:
            raise DefinitionError(f"{display_name}: projected volume {name} has a secret, which interLink leaves out")


def _check_handlers(display_name: str, container: Part) -> None:
    """Refuse probes and hooks that interLink's plugin leaves out; it carries ``exec`` and ``httpGet`` of a number."""
    hooks = container.get("lifecycle") or {}
    found = {name: container.get(name) or {} for name in _PROBES}
    found |= {f"lifecycle.{name}": hooks.get(name) or {} for name in _HOOKS}
    for name, handler in found.items():
        kinds = [kind for kind in _HANDLERS if handler.get(kind) is not None]
        if kinds in ([], ["exec"]):
            continue
        if kinds != ["httpGet"]:
            raise DefinitionError(
                f"{display_name}: {name} is of {', '.join(kinds)}, which interLink leaves out; use exec"
            )
        if not isinstance(handler["httpGet"].get("port"), int):
            raise DefinitionError(
                f"{display_name}: {name} names its port, which interLink cannot look up; give its number"
            )


def _check_container(display_name: str, container: Part) -> None:
    _check_handlers(display_name, container)
    for mount in container.get("volumeMounts") or []:
        if mount.get("subPath") or mount.get("subPathExpr"):
            raise DefinitionError(
                f"{display_name}: a subPath binds some other file on a virtual node; mount the whole volume"
            )
    for variable in container.get("env") or []:
        name, source = str(variable.get("name") or ""), variable.get("valueFrom") or {}
        if not _IDENTIFIER.fullmatch(name):
            raise DefinitionError(
                f"{display_name}: variable {quoted(name)} is not a shell identifier, which breaks all others"
            )
        if "resourceFieldRef" in source:
            raise DefinitionError(f"{display_name}: variable {name} is of a resourceFieldRef, which interLink drops")
        path = str((source.get("fieldRef") or {}).get("fieldPath") or "")
        if path and not _FIELDS.fullmatch(path):
            raise DefinitionError(
                f"{display_name}: variable {name} is of field {path}, with which the pod would stay Pending"
            )
