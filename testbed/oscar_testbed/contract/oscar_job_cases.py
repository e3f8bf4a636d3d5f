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
from oscar_testbed.contract.oscar import PAGE, OscarRecorder

_PATIENCE = 300.0


#: What a job list says of a job only if somebody looks at the right moment.
_CHANCE = ("Suspended", "Pending")


def submitting(recorder: OscarRecorder) -> None:
    token = recorder.made("door")
    recorder.ask("POST", "/job/door", note="nobody", auth=None, content=b"e30=")
    recorder.ask("POST", "/job/door", note="the administrator", content=b"e30=")
    recorder.submit("door", "b" * 64, note="another token")
    recorder.submit("door", "short", note="short token")
    recorder.submit("nobody", token, note="unknown service")
    recorder.submit("door", token, "door-one", note="named")
    recorder.submit("door", token, "door-one", note="named again")
    for note, name in (("capitals", "Door"), ("64 letters", "a" * 64), ("underscore", "a_b"), ("dot", "door.one")):
        recorder.submit("door", token, name, note=f"name with {note}")
    recorder.ask("DELETE", "/system/logs/door/door-one")
    recorder.ask("DELETE", "/system/logs/door/nobody")
    recorder.ask("DELETE", "/system/logs/nobody/door-one")
    recorder.remove("door")


def _jobs(recorder: OscarRecorder) -> list[str]:
    """Names on the first page."""
    return sorted(recorder.client.get("/system/logs/queue").json()["jobs"])


def pages_of_jobs(recorder: OscarRecorder) -> None:
    later = slurm_annotations("--time=5 --begin=now+1hour")
    token = recorder.made("queue", annotations=later)
    recorder.ask("GET", "/system/logs/queue", note="no jobs")
    for number in range(PAGE + 2):
        recorder.submit("queue", token, f"queue-{number}", keep=False)

    def pages() -> tuple[Any, Any]:
        first = recorder.client.get("/system/logs/queue").json()
        return first, recorder.client.get("/system/logs/queue", params={"page": first["next_page"]}).json()

    def is_waiting(job: Mapping[str, Any]) -> bool:
        return job["status"] == "Pending" and "creation_time" in job

    _until(lambda: all(is_waiting(job) for page in pages() for job in page["jobs"].values()))
    first, second = pages()
    for name, page in (("first page", first), ("second page", second)):
        shown = {**page, "jobs": {job: sorted(entry) for job, entry in sorted(page["jobs"].items())}}
        shown["next_page"] = bool(page.get("next_page"))
        statuses = sorted({entry["status"] for entry in page["jobs"].values()})
        body = {**shown, "statuses": statuses}
        recorder.notes.append({"asked": name, "status": 200, "type": "", "body": body})
    recorder.ask("GET", "/system/logs/queue?page=nonsense")
    recorder.ask("GET", "/system/logs/queue/queue-0", note="waiting")
    recorder.ask("GET", "/system/logs/queue/nobody")
    recorder.ask("GET", "/system/logs/nobody/queue-0")
    recorder.ask("DELETE", "/system/logs/queue/queue-0")
    _until(lambda: "queue-0" not in _jobs(recorder))
    recorder.ask("DELETE", "/system/logs/queue/queue-0", note="again")
    recorder.ask("DELETE", "/system/logs/queue", note="only successful ones")
    left = _jobs(recorder)
    recorder.notes.append({"asked": "left", "status": len(left), "type": "", "body": left})
    recorder.ask("DELETE", "/system/logs/queue?all=true")
    _until(lambda: not _jobs(recorder))
    recorder.ask("GET", "/system/logs/queue", note="emptied")
    recorder.ask("DELETE", "/system/logs/nobody?all=true")
    recorder.remove("queue")


def pod_of_a_job(recorder: OscarRecorder) -> None:
    """The pod that a job becomes."""
    later = slurm_annotations("--time=5 --begin=now+1hour")
    environment = {"variables": {"A": "1", "B": "$(A) $$ $HOME"}, "secrets": {"KEY": "hush"}}
    token = recorder.made("podded", annotations=later, labels={"mine": "yes"}, environment=environment)
    recorder.submit("podded", token, "podded-job", base64.b64encode(b"a b\n"), note="podded")

    def pods() -> list[dict[str, Any]]:
        answer = recorder.kubernetes.list_namespaced_pod(
            "oscar-svc", label_selector="oscar_service=podded", _preload_content=False
        )
        found: list[dict[str, Any]] = json.loads(answer.data)["items"]
        return found

    _until(pods)
    (pod,) = pods()
    body = normal.tree({"metadata": _metadata(pod), **_spec(pod["spec"])}, recorder.words)
    recorder.notes.append({"asked": "the pod", "status": len(pods()), "type": "", "body": body})
    recorder.remove("podded")


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


def one_job(name: str, script: str, body: bytes = b"e30=") -> Callable[[OscarRecorder], None]:
    def talk(recorder: OscarRecorder) -> None:
        token = recorder.made(name, script)
        recorder.submit(name, token, f"{name}-job", body, note=name)
        seen: list[str] = []

        def over() -> bool:
            entry = recorder.client.get(f"/system/logs/{name}").json()["jobs"][f"{name}-job"]
            seen.append(entry["status"])
            return entry["status"] in ("Succeeded", "Failed")

        _until(over)
        statuses = [status for status in normal.distinct(seen) if status not in _CHANCE]
        recorder.notes.append({"asked": "statuses", "status": 0, "type": "", "body": statuses})
        recorder.ask("GET", f"/system/logs/{name}", note="over")
        log = recorder.ask("GET", f"/system/logs/{name}/{name}-job", keep=False)
        kind = log.headers.get("content-type", "")
        note = {
            "asked": "the log",
            "status": log.status_code,
            "type": kind,
            "body": _own_lines(recorder.clean(log.text)),
        }
        recorder.notes.append(dict(normal.tree(note, recorder.words)))
        recorder.ask("DELETE", f"/system/logs/{name}", note="only successful ones")
        _until(lambda: not recorder.client.get(f"/system/logs/{name}").json()["jobs"])
        recorder.ask("GET", f"/system/logs/{name}/{name}-job", note="deleted")
        recorder.remove(name)

    return talk
