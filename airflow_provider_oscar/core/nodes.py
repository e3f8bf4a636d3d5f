# SPDX-License-Identifier: Apache-2.0
"""What a virtual node of interLink offers, as Kubernetes shows it; tolerant of everything a node may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_oscar.core.podstatus import node_unready_reason
from airflow_provider_oscar.core.shapes import as_list, as_mapping, parse_json

#: Label of virtual nodes: since interLink 0.4.0, and before.
_LABELS = {"virtual-node.interlink/type": "virtual-kubelet", "type": "virtual-kubelet"}
_TAINT_PREFIX = "virtual-node.interlink/"
#: Annotation that holds the plugin's last answer to a ping.
_PING = "interlink.virtual-kubelet.io/ping-response"
_ORDINARY = ("cpu", "memory", "pods", "ephemeral-storage")


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualNode:
    """One virtual node.

    :param name: of the node, as a placement target names it.
    :param unready_reason: why it takes no work; empty if it is ready.
    :param cpu: CPUs it says it has, as a Kubernetes quantity; may be what is free, since the plugin decides.
    :param memory: memory it says it has, as a Kubernetes quantity.
    :param pods: pods it takes at most.
    :param accelerators: number of each kind of accelerator, by resource name such as ``nvidia.com/gpu``.
    :param labels: of the node.
    :param taints: keys of its taints.
    :param partitions: names of SLURM partitions, if the plugin says them in its answer to a ping.
    :param virtual: whether it is a virtual node of interLink.
    """

    name: str
    unready_reason: str = ""
    cpu: str = ""
    memory: str = ""
    pods: str = ""
    accelerators: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    virtual: bool = True

    @property
    def ready(self) -> bool:
        """Whether it takes work."""
        return not self.unready_reason

    @classmethod
    def from_api(cls, node: Mapping[str, object]) -> VirtualNode:
        """Read a node as the API gives it."""
        metadata, spec, status = (as_mapping(node.get(part)) for part in ("metadata", "spec", "status"))
        labels = {str(key): str(value) for key, value in as_mapping(metadata.get("labels")).items()}
        taints = tuple(str(as_mapping(each).get("key") or "") for each in as_list(spec.get("taints")))
        offered = as_mapping(status.get("allocatable")) or as_mapping(status.get("capacity"))
        return cls(
            name=str(metadata.get("name") or ""),
            unready_reason=node_unready_reason(node),
            cpu=str(offered.get("cpu") or ""),
            memory=str(offered.get("memory") or ""),
            pods=str(offered.get("pods") or ""),
            accelerators={
                str(name): int(str(amount))
                for name, amount in offered.items()
                if str(name) not in _ORDINARY and not str(name).startswith("hugepages-") and str(amount).isdecimal()
            },
            labels=labels,
            taints=taints,
            partitions=_partitions(as_mapping(metadata.get("annotations")).get(_PING)),
            virtual=any(labels.get(key) == value for key, value in _LABELS.items())
            or any(taint.startswith(_TAINT_PREFIX) for taint in taints),
        )

    def to_dict(self) -> dict[str, object]:
        """Return JSON-able fields, for XCom and the command line."""
        return {
            "name": self.name,
            "ready": self.ready,
            "unready_reason": self.unready_reason,
            "cpu": self.cpu,
            "memory": self.memory,
            "pods": self.pods,
            "accelerators": dict(self.accelerators),
            "partitions": list(self.partitions),
            "labels": dict(self.labels),
            "taints": list(self.taints),
        }


def _partitions(answer: object) -> tuple[str, ...]:
    try:
        found = parse_json(answer) if isinstance(answer, str) else None
    except ValueError:
        return ()
    listed = as_list(as_mapping(found).get("partitions"))
    names = (each if isinstance(each, str) else str(as_mapping(each).get("name") or "") for each in listed)
    return tuple(name for name in names if name)


def unmet_need(
    nodes: Sequence[VirtualNode], *, node: str = "", accelerators: Mapping[str, int]
) -> tuple[VirtualNode | None, str]:
    """Return the first node that is ready and offers enough, and an empty text; or None and the reason for people.

    :param nodes: all there are.
    :param node: name of the only one that will do; empty for any.
    :param accelerators: least number of each kind, by resource name.
    """
    reasons: list[str] = []
    for each in nodes:
        if node and each.name != node:
            continue
        lacking = [name for name, least in accelerators.items() if each.accelerators.get(name, 0) < least]
        if each.ready and not lacking:
            return each, ""
        reasons.append(f"{each.name}: {each.unready_reason or 'offers too few of ' + ', '.join(sorted(lacking))}")
    named = f"there is no virtual node {node!r}" if node else "there is no virtual node"
    return None, "; ".join(reasons) or named
