# SPDX-License-Identifier: Apache-2.0
"""Cases for a virtual node as Kubernetes shows it: what becomes of pods, whoever is behind the node."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_oscar.core.pods import PodRequest, build_pod
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from oscar_testbed.contract import normal
from oscar_testbed.fakes.slurm import BatchSystem

_numbers = itertools.count()
_ENDED = ("Succeeded", "Failed")
#: Annotations every apiserver or client may add of its own.
_OWN = ("slurm-job.vk.io/", "JobID")


@dataclass(frozen=True)
class PodCase:
    """One pod, its script and options, and whether its job is cancelled while it waits."""

    name: str
    script: str = "true"
    slurm: SlurmOptions = SlurmOptions(time="5", memory_mib=64)
    cancel: bool = False
    change: Callable[[dict[str, Any]], None] | None = None
    #: Runs long enough to be seen running.
    long: bool = False


def _side(pod: dict[str, Any]) -> None:
    first = pod["spec"]["containers"][0]
    second = {"name": "side", "image": first["image"], "command": ["/bin/sh", "-c", "exit 4"]}
    pod["spec"]["containers"].append({**second, "resources": first["resources"]})


_LATER = SlurmOptions(time="5", memory_mib=64, extra_flags=("--begin=now+1hour",))
POD_CASES = (
    PodCase("succeeds", "echo out; echo err >&2; sleep 15", long=True),
    PodCase("exits with 7", "exit 7"),
    PodCase("second container fails", "echo first", change=_side),
    PodCase("refused by sbatch", slurm=SlurmOptions(time="5", memory_mib=64, partition="nope")),
    PodCase("cancelled while pending", slurm=_LATER, cancel=True),
)


@dataclass(frozen=True)
class Place:
    """A cluster with a virtual node, through the provider's own hook."""

    hook: InterLinkHook
    slurm: BatchSystem
    node: str
    image: str
    patience: float


def pod_transcript(place: Place, case: PodCase) -> dict[str, Any]:
    """Take one pod through its life and write down what Kubernetes said."""
    name = f"conformance-{os.getpid()}-{next(_numbers)}"
    request = PodRequest(
        name=name, namespace=place.hook.namespace, node=place.node, image=place.image, slurm=case.slurm,
        command=("/bin/sh", "-c"), args=(case.script,),
    )  # fmt: skip
    pod = build_pod(request)
    if case.change:
        case.change(pod)
    place.hook.create_or_adopt_pod(pod)
    phases, last = _follow(place, name, cancel=case.cancel)
    if not case.long:
        # Whether somebody looks while a short job runs is chance.
        phases = [phase for phase in phases if not phase.startswith("Running")]
    words = {name: "<pod>", last["metadata"]["uid"]: "<uid>", "process-id": "<n>"}
    status = last["status"]
    job_id = (last["metadata"].get("annotations") or {}).get("JobID")
    result = {
        "phases": phases,
        "phase": status["phase"],
        "reason": status.get("reason"),
        "message": status.get("message"),
        "containers": sorted((_container(each) for each in status["containerStatuses"]), key=lambda one: one["name"]),
        "annotations": sorted(key for key in last["metadata"]["annotations"] if key.startswith(_OWN)),
        "job": place.slurm.jobs()[job_id].state if job_id else None,
        "log": place.hook.read_log(name) if job_id else None,
    }
    place.hook.delete_pod(name)
    place.hook.await_deleted(name)
    return dict(normal.tree(result, words))


def steady(found: dict[str, Any]) -> dict[str, Any]:
    """The transcript without what is chance: whether a refused pod is still seen Pending."""
    if found["reason"] != "ProviderFailed":
        return found
    return {**found, "phases": [phase for phase in found["phases"] if phase != "Pending"]}


def _read(place: Place, name: str) -> dict[str, Any]:
    answer = place.hook.core.read_namespaced_pod(name, place.hook.namespace, _preload_content=False)
    found: dict[str, Any] = json.loads(answer.data)
    return found


def _follow(place: Place, name: str, *, cancel: bool) -> tuple[list[str], dict[str, Any]]:
    seen: list[str] = []
    end = time.monotonic() + place.patience
    while True:
        pod = _read(place, name)
        seen.append(f"{pod['status']['phase']} {pod['status'].get('reason') or ''}".strip())
        if pod["status"]["phase"] in _ENDED:
            return normal.distinct(seen), pod
        job_id = (pod["metadata"].get("annotations") or {}).get("JobID")
        if cancel and job_id:
            place.slurm.cancel(job_id)
            cancel = False
        assert time.monotonic() < end, f"pod {name} never ended: {seen[-1]}"
        time.sleep(0.3)


def _container(status: dict[str, Any]) -> dict[str, Any]:
    state = {kind: detail for kind, detail in status["state"].items() if detail}
    kept = {
        kind: {key: detail[key] for key in ("exitCode", "reason", "message") if detail.get(key) is not None}
        for kind, detail in state.items()
    }
    return {"name": status["name"], "ready": status.get("ready"), "state": kept}
