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

from oscar_testbed.contract import normal
from oscar_testbed.contract.job_pods import JobPod
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
    flags: str = "--time=5"
    cancel: bool = False
    change: Callable[[dict[str, Any]], None] | None = None
    #: Runs long enough to be seen running.
    long: bool = False


def _side(pod: dict[str, Any]) -> None:
    first = pod["spec"]["containers"][0]
    second = {"name": "side", "image": first["image"], "command": ["/bin/sh", "-c", "exit 4"]}
    pod["spec"]["containers"].append({**second, "resources": first["resources"]})


POD_CASES = (
    PodCase("succeeds", "echo out; echo err >&2; sleep 15", long=True),
    PodCase("exits with 7", "exit 7"),
    PodCase("second container fails", "echo first", change=_side),
    PodCase("refused by sbatch", flags="--time=5 --partition=nope"),
    PodCase("cancelled while pending", flags="--time=5 --begin=now+1hour", cancel=True),
)


@dataclass(frozen=True)
class Site:
    """A cluster with a virtual node.

    :param core: a ``kubernetes.client.CoreV1Api``.
    :param slurm: the scheduler behind the node.
    :param node: the virtual node.
    :param image: an image the node can run.
    :param patience: seconds a pod may take.
    :param clean: takes a log as the plugin answers it, and returns the container's own lines.
    """

    core: Any
    slurm: BatchSystem
    node: str
    image: str
    patience: float
    clean: Callable[[str], str]
    namespace: str = "default"


def pod_transcript(site: Site, case: PodCase) -> dict[str, Any]:
    """Take one pod through its life and write down what Kubernetes said."""
    name = f"conformance-{os.getpid()}-{next(_numbers)}"
    pod = JobPod(args=(case.script,), flags=case.flags).build(
        name, image=site.image, node=site.node, namespace=site.namespace
    )
    if case.change:
        case.change(pod)
    site.core.create_namespaced_pod(site.namespace, pod)
    phases, last = _follow(site, name, cancel=case.cancel)
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
        "job": site.slurm.jobs()[job_id].state if job_id else None,
        "log": _log(site, name) if job_id else None,
    }
    _delete(site, name)
    return dict(normal.tree(result, words))


def steady(found: dict[str, Any]) -> dict[str, Any]:
    """The transcript without what is chance: whether a refused pod is still seen Pending."""
    if found["reason"] != "ProviderFailed":
        return found
    return {**found, "phases": [phase for phase in found["phases"] if phase != "Pending"]}


def _read(site: Site, name: str) -> dict[str, Any]:
    answer = site.core.read_namespaced_pod(name, site.namespace, _preload_content=False)
    found: dict[str, Any] = json.loads(answer.data)
    return found


def _log(site: Site, name: str) -> str:
    answer = site.core.read_namespaced_pod_log(name, site.namespace, container="job", _preload_content=False)
    return site.clean(answer.data.decode(errors="replace"))


def _delete(site: Site, name: str) -> None:
    """Delete a pod and return once it is gone."""
    from kubernetes.client import ApiException

    site.core.delete_namespaced_pod(name, site.namespace)
    end = time.monotonic() + site.patience
    while True:
        try:
            _read(site, name)
        except ApiException as error:
            if error.status == 404:
                return
            raise
        assert time.monotonic() < end, f"pod {name} was never deleted"
        time.sleep(0.3)


def _follow(site: Site, name: str, *, cancel: bool) -> tuple[list[str], dict[str, Any]]:
    seen: list[str] = []
    end = time.monotonic() + site.patience
    while True:
        pod = _read(site, name)
        seen.append(f"{pod['status']['phase']} {pod['status'].get('reason') or ''}".strip())
        if pod["status"]["phase"] in _ENDED:
            return normal.distinct(seen), pod
        job_id = (pod["metadata"].get("annotations") or {}).get("JobID")
        if cancel and job_id:
            site.slurm.cancel(job_id)
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
