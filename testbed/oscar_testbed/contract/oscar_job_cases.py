# SPDX-License-Identifier: Apache-2.0
"""Conversations with OSCAR about jobs: how they are submitted, listed, read, and what pods they become."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from oscar_testbed.contract import normal
from oscar_testbed.contract.job_pods import slurm_annotations
from oscar_testbed.contract.oscar import PAGE, Door

_PATIENCE = 300.0


#: What a job list says of a job only if somebody looks at the right moment.
_CHANCE = ("Suspended", "Pending")


def submitting(door: Door) -> None:
    token = door.made("door")
    door.ask("POST", "/job/door", note="nobody", auth=None, content=b"e30=")
    door.ask("POST", "/job/door", note="the administrator", content=b"e30=")
    door.submit("door", "b" * 64, note="another token")
    door.submit("door", "short", note="short token")
    door.submit("nobody", token, note="unknown service")
    door.submit("door", token, "door-one", note="named")
    door.submit("door", token, "door-one", note="named again")
    for note, name in (("capitals", "Door"), ("64 letters", "a" * 64), ("underscore", "a_b"), ("dot", "door.one")):
        door.submit("door", token, name, note=f"name with {note}")
    door.ask("DELETE", "/system/logs/door/door-one")
    door.ask("DELETE", "/system/logs/door/nobody")
    door.ask("DELETE", "/system/logs/nobody/door-one")
    door.remove("door")


def _jobs(door: Door) -> list[str]:
    """Names on the first page."""
    return sorted(door.client.get("/system/logs/queue").json()["jobs"])


def pages_of_jobs(door: Door) -> None:
    later = slurm_annotations("--time=5 --begin=now+1hour")
    token = door.made("queue", annotations=later)
    door.ask("GET", "/system/logs/queue", note="no jobs")
    for number in range(PAGE + 2):
        door.submit("queue", token, f"queue-{number}", keep=False)
    _until(
        lambda: all(
            job["status"] == "Pending"
            for job in door.ask("GET", "/system/logs/queue", keep=False).json()["jobs"].values()
        )
    )  # noqa: E501
    _until(lambda: "Suspended" not in door.ask("GET", "/system/logs/queue", keep=False).text)
    first = door.client.get("/system/logs/queue").json()
    second = door.client.get("/system/logs/queue", params={"page": first["next_page"]}).json()
    for name, page in (("first page", first), ("second page", second)):
        shown = {**page, "jobs": {job: sorted(entry) for job, entry in sorted(page["jobs"].items())}}
        shown["next_page"] = bool(page.get("next_page"))
        statuses = sorted({entry["status"] for entry in page["jobs"].values()})
        body = {**shown, "statuses": statuses}
        door.notes.append({"asked": name, "status": 200, "type": "", "body": body})
    door.ask("GET", "/system/logs/queue?page=nonsense")
    door.ask("GET", "/system/logs/queue/queue-0", note="waiting")
    door.ask("GET", "/system/logs/queue/nobody")
    door.ask("GET", "/system/logs/nobody/queue-0")
    door.ask("DELETE", "/system/logs/queue/queue-0")
    _until(lambda: "queue-0" not in _jobs(door))
    door.ask("DELETE", "/system/logs/queue/queue-0", note="again")
    door.ask("DELETE", "/system/logs/queue", note="only successful ones")
    left = _jobs(door)
    door.notes.append({"asked": "left", "status": len(left), "type": "", "body": left})
    door.ask("DELETE", "/system/logs/queue?all=true")
    _until(lambda: not _jobs(door))
    door.ask("GET", "/system/logs/queue", note="emptied")
    door.ask("DELETE", "/system/logs/nobody?all=true")
    door.remove("queue")


def pod_of_a_job(door: Door) -> None:
    """The pod that a job becomes."""
    later = slurm_annotations("--time=5 --begin=now+1hour")
    environment = {"variables": {"A": "1", "B": "$(A) $$ $HOME"}, "secrets": {"KEY": "hush"}}
    token = door.made("podded", annotations=later, labels={"mine": "yes"}, environment=environment)
    door.submit("podded", token, "podded-job", base64.b64encode(b"a b\n"), note="podded")

    def pods() -> list[dict[str, Any]]:
        answer = door.kubernetes.list_namespaced_pod(
            "oscar-svc", label_selector="oscar_service=podded", _preload_content=False
        )
        found: list[dict[str, Any]] = json.loads(answer.data)["items"]
        return found

    _until(pods)
    (pod,) = pods()
    body = normal.tree({"metadata": _metadata(pod), **_spec(pod["spec"])}, door.words)
    door.notes.append({"asked": "the pod", "status": len(pods()), "type": "", "body": body})
    door.remove("podded")


def _metadata(pod: Mapping[str, Any]) -> dict[str, Any]:
    """What OSCAR gives to the pod itself; a job's controller has labels of its own."""
    meta = pod["metadata"]
    annotations = {key: value for key, value in meta["annotations"].items() if key.startswith("slurm-job.vk.io/")}
    labels = {key: value for key, value in meta["labels"].items() if key not in ("controller-uid", "job-name")}
    return {"annotations": annotations, "labels": labels}


def _spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What OSCAR asks for, without what Kubernetes fills in."""
    claims = [each["name"] for each in spec["volumes"] if "token" in each["name"] or "kube-api-access" in each["name"]]
    kept = ("nodeSelector", "restartPolicy", "dnsPolicy")
    volumes = {each["name"]: {k: v for k, v in each.items() if k != "name"} for each in spec["volumes"]}
    for source in [source for volume in volumes.values() for source in volume.values()]:
        source.pop("defaultMode", None)
    wanted = [each for each in spec["tolerations"] if not each["key"].startswith("node.kubernetes.io/")]
    return {
        **{key: spec.get(key) for key in kept},
        "tolerations": wanted,
        "volumes": {name: volume for name, volume in volumes.items() if name not in claims},
        "init": {each["name"]: _container(each, claims) for each in spec["initContainers"]},
        "containers": {each["name"]: _container(each, claims) for each in spec["containers"]},
    }


def _container(container: Mapping[str, Any], claims: list[str]) -> dict[str, Any]:
    kept = ("image", "command", "args", "resources", "envFrom")
    mounts = [each for each in container.get("volumeMounts", []) if each["name"] not in claims]
    return {
        **{key: container[key] for key in kept if container.get(key)},
        "env": {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", [])},
        "mounts": {each["mountPath"]: each["name"] for each in mounts},
    }


def _own_lines(log: str) -> list[str]:
    """What the supervisor and the script printed: not what interLink put before it, nor when it was."""
    timeless = re.sub(r"(?m)^[-\d]+ [:,\d]+ - ", "<time> - ", log)
    return re.sub(r"'/\S*/(event-file)", r"'<temporary>/\1", timeless).splitlines()


def _until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + _PATIENCE
    while not done():
        assert time.monotonic() < end, "OSCAR never got there"
        time.sleep(0.5)


def one_job(name: str, script: str, body: bytes = b"e30=") -> Callable[[Door], None]:
    def talk(door: Door) -> None:
        token = door.made(name, script)
        door.submit(name, token, f"{name}-job", body, note=name)
        seen: list[str] = []

        def over() -> bool:
            entry = door.client.get(f"/system/logs/{name}").json()["jobs"][f"{name}-job"]
            seen.append(entry["status"])
            return entry["status"] in ("Succeeded", "Failed")

        _until(over)
        statuses = [status for status in normal.distinct(seen) if status not in _CHANCE]
        door.notes.append({"asked": "statuses", "status": 0, "type": "", "body": statuses})
        door.ask("GET", f"/system/logs/{name}", note="over")
        log = door.ask("GET", f"/system/logs/{name}/{name}-job", keep=False)
        kind = log.headers.get("content-type", "")
        note = {"asked": "the log", "status": log.status_code, "type": kind, "body": _own_lines(door.clean(log.text))}
        door.notes.append(dict(normal.tree(note, door.words)))
        door.ask("DELETE", f"/system/logs/{name}", note="only successful ones")
        _until(lambda: not door.client.get(f"/system/logs/{name}").json()["jobs"])
        door.ask("GET", f"/system/logs/{name}/{name}-job", note="deleted")
        door.remove(name)

    return talk
