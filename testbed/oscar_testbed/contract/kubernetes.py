# SPDX-License-Identifier: Apache-2.0
"""Cases for the Kubernetes API: what this provider and interLink's nodes ask of it, and what it refuses.

Of an error its status, reason and message are compared, of an object what a client reads of it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from oscar_testbed.contract import normal

_PODS = "/api/v1/namespaces/default/pods"
_SECRETS = "/api/v1/namespaces/default/secrets"
_MERGE = {"Content-Type": "application/merge-patch+json"}
_WORDS = (
    (re.compile(r'(Invalid value: (?:"[^"]*"|\d+)): .*'), r"\1: <why>"),
    (re.compile(r"(cannot be handled as a Pod): .*", re.DOTALL), r"\1: <why>"),
)


@dataclass
class Cluster:
    """An API server that can be asked, and a note of all that was asked.

    :param client: with the administrator's token.
    """

    client: httpx.Client
    notes: list[dict[str, Any]] = field(default_factory=list)

    def ask(
        self,
        method: str,
        path: str,
        *,
        note: str = "",
        show: Callable[[Any], Any] = lambda body: None,
        **request: Any,
    ) -> Any:
        """Send a request, note the answer, and return its body.

        :param show: what of an object the transcript holds.
        """
        answer = self.client.request(method, path, **request)
        try:
            body = answer.json()
        except ValueError:
            body = {}
        found: dict[str, Any] = {"asked": f"{method} {path}" + (f" ({note})" if note else "")}
        found["status"] = answer.status_code
        if answer.is_error:
            message = str(body.get("message", ""))
            for pattern, word in _WORDS:
                message = pattern.sub(word, message)
            found |= {"reason": body.get("reason"), "message": message, "kind": body.get("kind")}
        elif (shown := show(body)) is not None:
            found["shown"] = shown
        self.notes.append(found)
        return body

    def note(self, what: str, found: Any) -> None:
        """Note something that was not one request."""
        self.notes.append({"asked": what, "shown": found})


@dataclass(frozen=True)
class ClusterCase:
    """A conversation."""

    name: str
    talk: Callable[[Cluster], None]


def cluster_transcript(cluster: Cluster, case: ClusterCase) -> dict[str, Any]:
    """Have one conversation and return what was answered, by number and request."""
    cluster.notes.clear()
    case.talk(cluster)
    notes = {
        f"{number:02} {note['asked']}": {key: value for key, value in note.items() if key != "asked"}
        for number, note in enumerate(cluster.notes, 1)
    }
    return dict(normal.tree(notes, {}))


def pod(name: str, **spec: Any) -> dict[str, Any]:
    """A pod that no node takes."""
    container = {"name": "main", "image": "tools:1", "command": ["true"]}
    base = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "nodeSelector": {"nobody": "has"},
        "containers": [container],
    }
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": {**base, **spec}}


def _phase(body: Any) -> Any:
    return {"kind": body["kind"], "phase": body["status"]["phase"], "restartPolicy": body["spec"]["restartPolicy"]}


def _names(body: Any) -> Any:
    return {"kind": body["kind"], "names": sorted(each["metadata"]["name"] for each in body["items"])}


def _labels(body: Any) -> Any:
    return body["metadata"]["labels"]


def _life(cluster: Cluster) -> None:
    first = pod("life")
    cluster.ask("POST", _PODS, json=first, show=_phase)
    cluster.ask("POST", _PODS, note="again", json=first)
    cluster.ask("POST", _PODS, json=pod("other"), show=_phase)
    before = cluster.ask("GET", f"{_PODS}/life", show=_phase)
    labels = ("app=life", "app!=life", "app in (life,other)", "nobody")
    fields = ("metadata.name=life", "status.phase=Running")
    for query in (*(f"labelSelector={one}" for one in labels), *(f"fieldSelector={one}" for one in fields)):
        cluster.ask("GET", f"{_PODS}?{query}", show=_names)
    cluster.ask("GET", f"{_PODS}?labelSelector=((", note="bad selector")
    cluster.ask("GET", f"{_PODS}?fieldSelector=spec.color=red", note="bad field")
    change = {"metadata": {"labels": {"more": "yes", "app": None}}}
    cluster.ask("PATCH", f"{_PODS}/life", json=change, headers=_MERGE, show=_labels)
    cluster.ask("PATCH", f"{_PODS}/life", note="as text", content=b"{}", headers={"Content-Type": "text/plain"})
    cluster.ask("PUT", f"{_PODS}/life", note="old version", json=before)
    cluster.ask("PATCH", f"{_PODS}/nobody", json=change, headers=_MERGE)
    cluster.ask("DELETE", f"{_PODS}/life", show=lambda body: body["kind"])
    cluster.ask("GET", f"{_PODS}/life", note="deleted")
    cluster.ask("DELETE", f"{_PODS}/life", note="again")
    cluster.ask("DELETE", f"{_PODS}/other", note="another UID", json={"preconditions": {"uid": "no"}})
    cluster.ask("DELETE", f"{_PODS}/other", show=lambda body: body["kind"])


def _refused(cluster: Cluster) -> None:
    def post(note: str, body: Any) -> None:
        cluster.ask("POST", _PODS, note=note, json=body)

    def container(**change: Any) -> dict[str, Any]:
        made = pod("bad")
        made["spec"]["containers"][0] |= change
        return made

    cluster.ask("POST", _PODS, note="no JSON", content=b"{", headers={"Content-Type": "application/json"})
    post("name in capitals", pod("Bad"))
    post("no name", {**pod("bad"), "metadata": {}})
    post("another namespace", {**pod("bad"), "metadata": {"name": "bad", "namespace": "kube-system"}})
    post("label with a blank", {**pod("bad"), "metadata": {"name": "bad", "labels": {"a": "b c"}}})
    post("annotation as a number", {**pod("bad"), "metadata": {"name": "bad", "annotations": {"a": 1}}})
    post("no containers", pod("bad", containers=[]))
    post("unknown policy", pod("bad", restartPolicy="Sometimes"))
    post("two containers of one name", pod("bad", containers=[*pod("bad")["spec"]["containers"]] * 2))
    post("container in capitals", container(name="Main"))
    post("no image", container(image=""))
    post("quantity in words", container(resources={"limits": {"cpu": "lots"}}))
    post("variable without a name", container(env=[{"name": "", "value": "1"}]))
    post("variable as a number", container(env=[{"name": "A", "value": 1}]))
    post("mount without a volume", container(volumeMounts=[{"name": "none", "mountPath": "/a"}]))
    cluster.ask("POST", "/api/v1/namespaces/nobody/pods", json=pod("bad"))
    cluster.ask("POST", "/api/v1/pods", note="no namespace", json=pod("bad"))
    cluster.ask("GET", "/api/v1/namespaces/nobody/pods", show=_names)
    cluster.ask("GET", "/api/v1/namespaces/default/nonsense")
    cluster.ask("GET", "/apis/nonsense/v1/things")


def _secrets(cluster: Cluster) -> None:
    def shown(body: Any) -> Any:
        return {key: body.get(key) for key in ("kind", "type", "data", "stringData")}

    secret = {"metadata": {"name": "hush"}, "stringData": {"a": "ü\n"}, "data": {"b": "Yg=="}}
    cluster.ask("POST", _SECRETS, json=secret, show=shown)
    cluster.ask("POST", _SECRETS, note="again", json=secret)
    cluster.ask("PATCH", f"{_SECRETS}/hush", json={"stringData": {"b": "c"}}, headers=_MERGE, show=shown)
    cluster.ask("POST", _SECRETS, note="bad name", json={"metadata": {"name": "Bad"}})
    cluster.ask("DELETE", f"{_SECRETS}/hush", show=lambda body: body["kind"])
    cluster.ask("GET", f"{_SECRETS}/hush", note="deleted")


def _who_asks(cluster: Cluster) -> None:
    cluster.ask("GET", _PODS, note="wrong token", headers={"Authorization": "Bearer wrong"})
    cluster.ask("GET", "/version", show=lambda body: sorted(body))
    cluster.ask("GET", "/readyz")


def _node(cluster: Cluster) -> None:
    taint = {"key": "virtual-node.interlink/no-schedule", "effect": "NoSchedule"}
    ready = {"type": "Ready", "status": "True", "reason": "x", "message": "x"}
    size = {"cpu": "4", "memory": "4Gi", "pods": "10"}
    node = {
        "metadata": {"name": "far", "labels": {"kubernetes.io/hostname": "far"}},
        "spec": {"taints": [taint]},
        "status": {"conditions": [ready], "capacity": size, "allocatable": size},
    }
    cluster.ask("POST", "/api/v1/nodes", json=node, show=lambda body: body["kind"])
    # Every new node is tainted until a controller says it is ready, and none runs here.
    only = {"spec": {"taints": [taint]}}
    cluster.ask("PATCH", "/api/v1/nodes/far", json=only, headers=_MERGE, show=lambda body: body["kind"])
    there = {"kubernetes.io/hostname": "far"}
    cluster.ask("POST", _PODS, json=pod("shy", nodeSelector=there))
    tolerating = [{"key": taint["key"], "operator": "Exists"}]
    cluster.ask("POST", _PODS, json=pod("bold", nodeSelector=there, tolerations=tolerating))
    cluster.ask("POST", _PODS, json=pod("lost"))
    for name in ("bold", "shy", "lost"):
        cluster.note(f"placed {name}", _placed(cluster, name))
    bold = f"{_PODS}/bold"
    status = {"status": {"phase": "Running", "reason": "so"}, "metadata": {"annotations": {"JobID": "1"}}}
    cluster.ask("PATCH", f"{bold}/status", json=status, headers=_MERGE, show=_reported)
    cluster.ask(
        "PATCH", f"{bold}/status", note="more", json={"spec": {"nodeName": "x"}}, headers=_MERGE, show=_reported
    )
    cluster.ask("DELETE", bold, note="gracefully", show=_ending)
    cluster.ask("GET", bold, note="being deleted", show=_ending)
    cluster.ask("DELETE", f"{bold}?gracePeriodSeconds=0", note="at once", show=lambda body: body["kind"])
    cluster.ask("GET", bold, note="gone")
    for name in ("shy", "lost"):
        cluster.ask("DELETE", f"{_PODS}/{name}")
    cluster.ask("DELETE", "/api/v1/nodes/far", show=lambda body: body["kind"])
    cluster.ask("GET", "/api/v1/nodes/far")


def _placed(cluster: Cluster, name: str) -> Any:
    """The node of a pod, or why it has none."""
    end = time.monotonic() + 60
    while True:
        found = cluster.client.get(f"{_PODS}/{name}").json()
        reasons = {one["type"]: one.get("reason") for one in found["status"].get("conditions") or []}
        if found["spec"].get("nodeName") or "PodScheduled" in reasons:
            return {"node": found["spec"].get("nodeName"), "why": reasons.get("PodScheduled")}
        assert time.monotonic() < end, f"the scheduler never looked at {name}"
        time.sleep(0.2)


def _reported(body: Any) -> Any:
    status = {key: body["status"].get(key) for key in ("phase", "reason")}
    return {**status, "annotations": body["metadata"].get("annotations"), "node": body["spec"].get("nodeName")}


def _ending(body: Any) -> Any:
    meta = body["metadata"]
    return {"ends": "deletionTimestamp" in meta, "grace": meta.get("deletionGracePeriodSeconds")}


def _watching(cluster: Cluster) -> None:
    version = cluster.client.get(_PODS).json()["metadata"]["resourceVersion"]
    cluster.client.post(_PODS, json=pod("seen")).raise_for_status()
    cluster.client.patch(f"{_PODS}/seen", json={"metadata": {"labels": {"b": "c"}}}, headers=_MERGE).raise_for_status()
    cluster.client.delete(f"{_PODS}/seen").raise_for_status()
    query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "2", "labelSelector": "app=seen"}
    cluster.note("watched from then", _events(cluster.client, query))
    cluster.client.post(_PODS, json=pod("there")).raise_for_status()
    query = {"watch": "true", "timeoutSeconds": "2", "labelSelector": "app=there"}
    cluster.note("watched from now", _events(cluster.client, query, touch="there"))
    cluster.client.delete(f"{_PODS}/there").raise_for_status()
    cluster.ask("GET", f"{_PODS}?watch=true&resourceVersion=nonsense&timeoutSeconds=2", note="nonsense")


#: Watches that are begun, at most, until one is not told to come again, and the code of that.
_WATCHES, _AGAIN = 5, 504


def _events(client: httpx.Client, query: Mapping[str, str], touch: str = "") -> list[str]:
    """Types of events but of changes; a scheduler makes some, when it likes.

    :param touch: a pod that is changed first: over an old etcd a newer Kubernetes learns by that alone how far the
        store is, and tells whoever watches from now on to come again.
    """
    for number in range(_WATCHES):
        if touch:
            label = {"metadata": {"labels": {"touched": str(number)}}}
            client.patch(f"{_PODS}/{touch}", json=label, headers=_MERGE).raise_for_status()
        with client.stream("GET", _PODS, params=dict(query)) as answer:
            found = [json.loads(line) for line in answer.iter_lines() if line]
        if not any(each["type"] == "ERROR" and each["object"].get("code") == _AGAIN for each in found):
            break
    return [each["type"] for each in found if each["type"] != "MODIFIED"]


CLUSTER_CASES = (
    ClusterCase("a pod's life", _life),
    ClusterCase("refused pods", _refused),
    ClusterCase("secrets", _secrets),
    ClusterCase("who may ask", _who_asks),
    ClusterCase("node and scheduler", _node),
    ClusterCase("watching", _watching),
)
