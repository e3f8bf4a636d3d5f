# SPDX-License-Identifier: Apache-2.0
"""What the API server and the scheduler do with a pod: defaults, validation, and the choice of a node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from oscar_testbed.fakes.kubernetes.store import Object, now

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


def decode_errors(pod: Mapping[str, Any]) -> list[str]:
    """Why the API server could not even decode the pod and would answer 400; empty when it could."""
    return list(_misfits(pod))


def _misfits(pod: Mapping[str, Any]) -> Iterator[str]:
    meta = pod.get("metadata") or {}
    for field in ("labels", "annotations"):
        if any(not isinstance(value, str) for value in (meta.get(field) or {}).values()):
            yield f"metadata.{field}: expects a string"
    for container in containers(pod):
        if any(not isinstance(variable.get("value", ""), str | None) for variable in container.get("env") or []):
            yield "Env: value: expects a string"
        for group in ("limits", "requests"):
            quantities = ((container.get("resources") or {}).get(group) or {}).values()
            if any(_QUANTITY.fullmatch(str(value)) is None for value in quantities):
                yield f"Resources: {group}: quantities must match the regular expression {_QUANTITY.pattern}"


def validation_errors(pod: Mapping[str, Any]) -> list[str]:
    """Why the API server would answer 422; empty when the pod is valid."""
    return list(_problems(pod))


def name_error(meta: Mapping[str, Any]) -> str:
    """What is wrong with an object's name; empty if nothing."""
    if not meta.get("name"):
        return "metadata.name: Required value: name or generateName is required"
    if valid_name(meta["name"]):
        return ""
    return (
        f"metadata.name: Invalid value: {_quoted(meta['name'])}: a lowercase RFC 1123 subdomain must consist of lower "
        "case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
    )


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _problems(pod: Mapping[str, Any]) -> Iterator[str]:
    meta, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    if wrong := name_error(meta):
        yield wrong
    for key, value in (meta.get("labels") or {}).items():
        if _LABEL_VALUE.fullmatch(value) is None:
            yield f"metadata.labels: Invalid value: {_quoted(value)}: a valid label has 63 characters or less ({key})"
    policies = ("Always", "OnFailure", "Never")
    if spec.get("restartPolicy") not in policies:
        known = ", ".join(map(_quoted, policies))
        found = _quoted(spec.get("restartPolicy"))
        yield f"spec.restartPolicy: Unsupported value: {found}: supported values: {known}"
    if not spec.get("containers"):
        yield "spec.containers: Required value"
    yield from _parts_problems(spec)


def _parts_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    volumes = [volume.get("name") for volume in spec.get("volumes") or []]
    for number, name in enumerate(volumes):
        if name in volumes[:number]:
            yield f"spec.volumes[{number}].name: Duplicate value: {_quoted(name)}"
    names: set[Any] = set()
    for group in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(group) or []):
            where = f"spec.{group}[{number}]"
            if container.get("name") in names:
                yield f"{where}.name: Duplicate value: {_quoted(container.get('name'))}"
            names.add(container.get("name"))
            yield from _container_problems(container, volumes, where)


def _container_problems(container: Mapping[str, Any], volumes: Sequence[Any], where: str) -> Iterator[str]:
    name = container.get("name")
    if not isinstance(name, str) or _LABEL.fullmatch(name) is None:
        yield f"{where}.name: Invalid value: {_quoted(name)}: a lowercase RFC 1123 label is required"
    if not container.get("image"):
        yield f"{where}.image: Required value"
    for number, variable in enumerate(container.get("env") or []):
        if not variable.get("name"):
            yield f"{where}.env[{number}].name: Required value"
        elif "=" in variable["name"]:
            yield f"{where}.env[{number}].name: Invalid value: {_quoted(variable['name'])}: no name of a variable"
    paths = [mount.get("mountPath") for mount in container.get("volumeMounts") or []]
    for number, mount in enumerate(container.get("volumeMounts") or []):
        place = f"{where}.volumeMounts[{number}]"
        if mount.get("name") not in volumes:
            yield f"{place}.name: Not found: {_quoted(mount.get('name'))}"
        if mount.get("mountPath") in paths[:number]:
            yield f"{place}.mountPath: Invalid value: {_quoted(mount.get('mountPath'))}: must be unique"


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
