# SPDX-License-Identifier: Apache-2.0
"""A virtual node: registers itself, hands the pods bound to it to a plugin, and reports what becomes of them.

Like interLink's virtual kubelet it keeps the job id in the annotation ``JobID``, never retries a refused
pod, never looks at a finished pod again, and emits no events.
"""

from __future__ import annotations

import html
import json
import logging
import random
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from oscar_testbed.errors import PlatformError, RejectedError
from oscar_testbed.fakes.interlink import environment, volumes
from oscar_testbed.fakes.interlink.plugin import ContainerReply, Creation, SlurmPlugin, StatusReply
from oscar_testbed.fakes.kubernetes import LocalKubernetes, LogFiles
from oscar_testbed.fakes.kubernetes.store import ConflictError, NotFoundError, Object, now
from oscar_testbed.fakes.slurm import BatchJob, BatchSystem
from oscar_testbed.faults import InterLinkFaults

log = logging.getLogger(__name__)

TAINT = "virtual-node.interlink/no-schedule"
_TERMINAL = frozenset({"Succeeded", "Failed"})
_NODE_INFO = (
    *("bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "machineID", "operatingSystem"),
    *("osImage", "systemUUID"),
)
_VOLUME_PATIENCE = 300.0


class VirtualNode:
    """One node and the thread that looks after its pods.

    :param name: node name, as pods select it by ``kubernetes.io/hostname``.
    :param poll_interval: seconds between two polls at the batch system; 5 and more in reality.
    """

    def __init__(  # noqa: PLR0917 - used here only
        self,
        name: str,
        kubernetes: LocalKubernetes,
        plugin: SlurmPlugin,
        batch: BatchSystem,
        faults: InterLinkFaults,
        *,
        labels: Mapping[str, str] | None = None,
        gpus: int = 0,
        poll_interval: float = 0.5,
    ) -> None:
        self.name = name
        self._kubernetes = kubernetes
        self._store = kubernetes.store
        self._plugin = plugin
        self._batch = batch
        self._faults = faults
        self._labels = dict(labels or {})
        self._gpus = gpus
        self._poll_interval = poll_interval
        self._known: dict[str, tuple[str, str]] = {}
        self._waiting_since: dict[str, float] = {}
        self._ready = True
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Register the node and start looking after pods."""
        if self._thread is not None:
            return
        self._plugin.load()
        self._register()
        self._kubernetes.log_sources[self.name] = self
        self._stopping = False
        self._end_listening = self._store.listen(self._wake.set)
        self._thread = threading.Thread(target=self._loop, name=f"virtual-node-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking after pods; their jobs go on."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._end_listening()
        self._stopping = True
        self._wake.set()
        thread.join()

    def healthy(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def log_files(self, uid: str, container: str) -> LogFiles | None:
        """See :class:`~oscar_testbed.fakes.kubernetes.logs.LogSource`."""
        return self._plugin.log_files(uid, container)

    def _register(self) -> None:
        labels = {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "virtual-kubelet",
            "kubernetes.io/role": "agent",
            "virtual-node.interlink/type": "virtual-kubelet",
            "alpha.service-controller.kubernetes.io/exclude-balancer": "true",
            "node.kubernetes.io/exclude-from-external-load-balancers": "true",
        }
        capacity = {"cpu": "100", "memory": "3000G", "pods": "10000"}
        if self._gpus:
            capacity["nvidia.com/gpu"] = str(self._gpus)
        node: Object = {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {"name": self.name, "labels": labels | self._labels},
            "spec": {"taints": [{"key": TAINT, "value": "true", "effect": "NoSchedule"}]},
            "status": {
                "capacity": capacity,
                "allocatable": dict(capacity),
                "conditions": _conditions(ready=True),
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "nodeInfo": {
                    # The Kubernetes client insists on all of them.
                    **dict.fromkeys(_NODE_INFO, ""),
                    "architecture": "virtual-kubelet",
                    "kubeletVersion": "v1.33.0-interlink-embedded",
                },
            },
        }
        lease = {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1"}
        meta = {"name": self.name, "namespace": "kube-node-lease"}
        with suppress(ConflictError):
            self._store.create("leases", {**lease, "metadata": meta, "spec": {"holderIdentity": self.name}})
        with suppress(ConflictError):
            self._store.create("nodes", node)
        self._kubernetes.api.schedule()

    def _loop(self) -> None:
        looked = 0.0
        while not self._stopping:
            self._wake.clear()
            due = time.monotonic() - looked >= self._poll_interval
            if due:
                looked = time.monotonic()
            try:
                self._step(look=due)
            except Exception:  # noqa: BLE001 - one pod's trouble must not end the node
                log.exception("virtual node %s", self.name)
            self._wake.wait(self._poll_interval)

    def _step(self, *, look: bool) -> None:
        if not self._ping():
            return
        pods = [pod for pod in self._store.objects("pods") if pod["spec"].get("nodeName") == self.name]
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid in [uid for uid in self._known if uid not in present]:
            self._forget(uid)
        jobs: Mapping[str, BatchJob] | None = None
        random.shuffle(pods)
        for pod in pods:
            uid, phase = pod["metadata"]["uid"], pod["status"].get("phase")
            if pod["metadata"].get("deletionTimestamp"):
                self._remove(pod)
            elif uid not in self._known and phase not in _TERMINAL:
                self._admit(pod, look=look)
            elif look and phase not in _TERMINAL:
                if jobs is None:
                    jobs = self._jobs()
                if jobs is not None:
                    self._refresh(pod, jobs)
        if look:
            self._plugin.remove_leftovers()

    def _ping(self) -> bool:
        """Whether the plugin answers; the node's Ready condition follows."""
        ready = not self._faults.down
        if ready is not self._ready:
            self._ready = ready

            def change(node: Object) -> Object:
                node["status"]["conditions"] = _conditions(ready=ready)
                return node

            self._store.update("nodes", "", self.name, change)
            self._kubernetes.api.schedule()
        return ready

    def _jobs(self) -> Mapping[str, BatchJob] | None:
        try:
            return self._batch.jobs()
        except PlatformError as error:
            log.warning("virtual node %s: %s", self.name, error)
            return None

    def _forget(self, uid: str) -> None:
        """The pod is gone from Kubernetes: end its job. The node tries once and does not look back."""
        del self._known[uid]
        self._waiting_since.pop(uid, None)
        if not self._faults.take("orphan_jobs"):
            self._plugin.delete(uid)

    def _remove(self, pod: Object) -> None:
        meta = pod["metadata"]
        if meta["uid"] in self._known:
            self._forget(meta["uid"])
        with suppress(NotFoundError):
            self._store.remove("pods", meta["namespace"], meta["name"], uid=meta["uid"])

    def _admit(self, pod: Object, *, look: bool) -> None:
        meta = pod["metadata"]
        if (meta.get("annotations") or {}).get("JobID"):  # ours, from before a restart
            self._known[meta["uid"]] = (meta["namespace"], meta["name"])
            return
        if not look and meta["uid"] in self._waiting_since:
            return  # what it waits for is looked for at the ordinary pace

        def lookup(plural: str, name: str) -> Mapping[str, Any]:
            return self._store.get(plural, meta["namespace"], name)

        spec = pod["spec"]
        try:
            files = volumes.fetch(pod, lookup)
            environments = {
                container["name"]: environment.resolve(pod, container, lookup)
                for container in [*(spec.get("initContainers") or []), *spec["containers"]]
            }
        except environment.UnresolvedError as error:
            # No event and no reason on the pod, as upstream.
            self._waiting_since.setdefault(meta["uid"], time.monotonic())
            log.info("virtual node %s: pod %s stays Pending: %s", self.name, meta["name"], error)
            return
        except volumes.MissingError:
            since = self._waiting_since.setdefault(meta["uid"], time.monotonic())
            late = time.monotonic() - since > _VOLUME_PATIENCE
            changes = {"phase": "Failed", "reason": "CFGMaps/Secrets not found"} if late else {"phase": "Initializing"}
            self._set_status(pod, changes)
            return
        self._waiting_since.pop(meta["uid"], None)
        self._create(pod, Creation(pod, environments, files))

    def _create(self, pod: Object, creation: Creation) -> None:
        meta = pod["metadata"]
        self._known[meta["uid"]] = (meta["namespace"], meta["name"])
        try:
            job_id = self._plugin.create(creation)
        except (RejectedError, OSError) as error:
            self._set_status(pod, _refused(pod, str(error)))
            return
        waiting = [ContainerReply(c["name"], "waiting") for c in pod["spec"]["containers"]]
        status = {
            "phase": "Pending",
            "hostIP": "127.0.0.1",
            "podIP": "127.0.0.1",
            "startTime": now(),
            "containerStatuses": _container_statuses(pod, waiting),
        }
        self._set_status(pod, status, annotations={"JobID": job_id})

    def _refresh(self, pod: Object, jobs: Mapping[str, BatchJob]) -> None:
        reply = self._plugin.status(pod["metadata"]["uid"], jobs)
        if reply is None or reply.uid != pod["metadata"]["uid"]:
            return
        changes = pod_status(pod, reply)
        if changes:
            self._set_status(pod, changes)

    def _set_status(
        self, pod: Object, changes: Mapping[str, Any], *, annotations: Mapping[str, str] | None = None
    ) -> None:
        meta = pod["metadata"]

        def change(old: Object) -> Object | None:
            if old["metadata"]["uid"] != meta["uid"]:
                return None
            old["status"] |= changes
            if annotations:
                old["metadata"]["annotations"] = {**(old["metadata"].get("annotations") or {}), **annotations}
            return old

        with suppress(NotFoundError):
            self._store.update("pods", meta["namespace"], meta["name"], change)


def pod_status(pod: Mapping[str, Any], reply: StatusReply) -> dict[str, Any]:
    """What a status reply makes of the pod's status; empty when it says nothing.

    A reply without containers means success: none of no containers has failed.
    """
    states = [one.state for one in reply.containers]
    if reply.containers and all(state == "" for state in states):
        return {}
    if "running" in states:
        changes: dict[str, Any] = {"phase": "Running", "reason": "Running"}
    elif all(state == "terminated" for state in states):
        failed = next((one.exit_code for one in reply.containers if one.exit_code != 0), 0)
        changes = (
            {"phase": "Failed", "reason": f"Error: {failed}"}
            if failed
            else {"phase": "Succeeded", "reason": "Completed"}
        )
    else:
        changes = {"phase": "Pending"}
    changes["containerStatuses"] = _container_statuses(pod, reply.containers, str(changes.get("reason", "")))
    ready = "True" if changes["phase"] == "Running" else "False"
    kept = [c for c in pod["status"].get("conditions") or [] if c.get("type") not in {"Ready", "ContainersReady"}]
    changes["conditions"] = [*kept, {"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": ready}]
    return changes


def _container_statuses(
    pod: Mapping[str, Any], replies: tuple[ContainerReply, ...] | list[ContainerReply], reason: str = ""
) -> list[dict[str, Any]]:
    images = {container["name"]: container["image"] for container in pod["spec"]["containers"]}
    return [
        {
            "name": one.name,
            "image": images.get(one.name, ""),
            "imageID": "",
            "restartCount": 0,
            "ready": one.state == "running",
            "started": one.state == "running",
            "lastState": {},
            "state": _state(one, reason),
        }
        for one in replies
    ]


def _state(reply: ContainerReply, reason: str) -> dict[str, Any]:
    if reply.state == "running":
        return {"running": {"startedAt": reply.started}}
    if reply.state == "terminated":
        # The pod's reason overwrites the container's; only the message tells a timeout.
        state = {"exitCode": reply.exit_code, "reason": reason or reply.reason}
        state |= {"message": reply.message} if reply.message else {}
        return {"terminated": {**state, "startedAt": reply.started, "finishedAt": reply.finished}}
    return {"waiting": {"reason": "Remote pod submitted"}}


def _refused(pod: Mapping[str, Any], text: str) -> dict[str, Any]:
    answer = f"HTTP InterLink session CreatePod#0:  call exit status: 500. Body: {html.escape(text)}\n"
    error = f"error creating pod (HTTP 504): {answer}"
    # Go's form of an error, and the error once more.
    detail = f"&errors.errorString{{s:{json.dumps(error, ensure_ascii=False)}}}"
    message = f"error doing createRequest() in RemoteExecution() return value  error detail {detail} error: {error}"
    state = {"terminated": {"exitCode": 1, "reason": "ProviderFailed", "message": message}}
    statuses = _container_statuses(pod, [ContainerReply(c["name"], "waiting") for c in pod["spec"]["containers"]])
    return {
        "phase": "Failed",
        "reason": "ProviderFailed",
        "message": message,
        "containerStatuses": [{**one, "state": state} for one in statuses],
    }


def _conditions(*, ready: bool) -> list[dict[str, Any]]:
    """As interLink's virtual kubelet sets them at each ping: Ready has the same reason and message at any time."""
    word = "True" if ready else "False"
    told = ("InterlinkPingSuccessful", "Ping successful with code 200")
    if not ready:
        told = ("InterlinkPingFailed", 'Ping failed: Post "http://127.0.0.1:3000/pinglink": connection refused')
    return [
        {"type": "Ready", "status": word, "reason": "KubeletPending", "message": "kubelet is pending."},
        {"type": "InterlinkConnectivity", "status": word, "reason": told[0], "message": told[1]},
    ]
