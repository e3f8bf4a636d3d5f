# SPDX-License-Identifier: Apache-2.0
"""What the API server and the scheduler do with a pod: defaults, validation, and the choice of a node."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_oscar.local.kubernetes.store import Object, now

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[munkMGTPE]|[eE][+-]?\d+)?")


def valid_name(name: Any) -> bool:
    """Whether it can name an object (DNS-1123 subdomain)."""
    return isinstance(name, str) and len(name) <= 253 and _SUBDOMAIN.fullmatch(name) is not None


def with_defaults(pod: Object) -> Object:
    """The pod with what the API server fills in."""
    spec = pod.setdefault("spec", {})
    for key, value in {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "serviceAccountName": "default",
        "securityContext": {},
        "enableServiceLinks": True,
    }.items():
        spec.setdefault(key, value)
    for container in containers(pod):
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("resources", {})
    pod["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    return pod


def containers(pod: Mapping[str, Any]) -> list[Any]:
    """Init containers, then containers."""
    spec = pod.get("spec") or {}
    return [c for key in ("initContainers", "containers") for c in spec.get(key) or [] if isinstance(c, dict)]


def problems(pod: Mapping[str, Any]) -> list[str]:
    """Why the API server would answer 422; empty when the pod is valid."""
    return list(_problems(pod))


def _problems(pod: Mapping[str, Any]) -> Iterator[str]:
    meta, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    if not valid_name(meta.get("name")):
        yield (
            f"metadata.name: Invalid value: {meta.get('name')!r}: a lowercase RFC 1123 subdomain must consist of lower "
            "case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
        )
    yield from _metadata_problems(meta)
    if spec.get("restartPolicy") not in {"Always", "OnFailure", "Never"}:
        yield f"spec.restartPolicy: Unsupported value: {spec.get('restartPolicy')!r}"
    if not spec.get("containers"):
        yield "spec.containers: Required value"
    volumes = [volume.get("name") for volume in spec.get("volumes") or []]
    if len(volumes) != len(set(volumes)):
        yield "spec.volumes: Duplicate value"
    names: set[Any] = set()
    for container in containers(pod):
        if container.get("name") in names:
            yield f"spec.containers: Duplicate value: {container.get('name')!r}"
        names.add(container.get("name"))
        yield from _container_problems(container, volumes)


def _metadata_problems(meta: Mapping[str, Any]) -> Iterator[str]:
    for key, value in (meta.get("labels") or {}).items():
        if not isinstance(value, str) or _LABEL_VALUE.fullmatch(value) is None:
            yield f"metadata.labels: Invalid value: {value!r}: a valid label must be 63 characters or less ({key})"
    for key, value in (meta.get("annotations") or {}).items():
        if not isinstance(value, str):
            yield f"metadata.annotations: Invalid value: {value!r}: must be a string ({key})"


def _container_problems(container: Mapping[str, Any], volumes: Sequence[Any]) -> Iterator[str]:
    name = container.get("name")
    where = f"spec.containers[{name}]"
    if not isinstance(name, str) or _LABEL.fullmatch(name) is None:
        yield f"{where}.name: Invalid value: {name!r}: a lowercase RFC 1123 label is required"
    if not container.get("image"):
        yield f"{where}.image: Required value"
    for variable in container.get("env") or []:
        if not variable.get("name") or "=" in variable["name"]:
            yield f"{where}.env.name: Invalid value: {variable.get('name')!r}"
        if not isinstance(variable.get("value", ""), str | None):
            yield f"{where}.env.value: Invalid value: {variable.get('value')!r}: must be a string"
    paths = [mount.get("mountPath") for mount in container.get("volumeMounts") or []]
    if len(paths) != len(set(paths)):
        yield f"{where}.volumeMounts.mountPath: must be unique"
    for mount in container.get("volumeMounts") or []:
        if mount.get("name") not in volumes:
            yield f"{where}.volumeMounts.name: Not found: {mount.get('name')!r}"
    yield from _resource_problems(container.get("resources") or {}, where)


def _resource_problems(resources: Mapping[str, Any], where: str) -> Iterator[str]:
    for group in ("limits", "requests"):
        for key, value in (resources.get(group) or {}).items():
            if _QUANTITY.fullmatch(str(value)) is None:
                yield f"{where}.resources.{group}[{key}]: Invalid value: {value!r}: quantities must match the pattern"


def choose_node(pod: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> tuple[str | None, str]:
    """Name of a node that takes the pod, or None and the scheduler's sentence why there is none."""
    reasons: dict[str, int] = {}
    for node in nodes:
        reason = _unfit(pod["spec"], node)
        if not reason:
            return node["metadata"]["name"], ""
        reasons[reason] = reasons.get(reason, 0) + 1
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "no nodes"
    return None, f"0/{len(nodes)} nodes are available: {why}."


def _unfit(spec: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return "node(s) didn't match Pod's node affinity/selector"
    tolerations = spec.get("tolerations") or []
    for taint in (node.get("spec") or {}).get("taints") or []:
        if not any(_tolerates(toleration, taint) for toleration in tolerations):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    conditions = (node.get("status") or {}).get("conditions") or []
    if any(c.get("type") == "Ready" and c.get("status") != "True" for c in conditions):
        return "node(s) had untolerated taint {node.kubernetes.io/unreachable: }"
    return ""


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    key = toleration.get("key")
    if toleration.get("operator") == "Exists":
        return not key or key == taint.get("key")
    return key == taint.get("key") and toleration.get("value", "") == taint.get("value", "")


def scheduled(pod: Object, node: str | None, why: str) -> Object:
    """The pod bound to ``node``, or marked unschedulable for the reason ``why``."""
    status = pod.setdefault("status", {})
    others = [c for c in status.get("conditions") or [] if c.get("type") != "PodScheduled"]
    condition: Object = {"type": "PodScheduled", "status": "True" if node else "False", "lastTransitionTime": now()}
    if node is None:
        old: Object = next((c for c in status.get("conditions") or [] if c.get("type") == "PodScheduled"), {})
        if old.get("message") == why:
            return pod
        condition |= {"reason": "Unschedulable", "message": why}
    else:
        pod["spec"]["nodeName"] = node
    status["conditions"] = [*others, condition]
    return pod
