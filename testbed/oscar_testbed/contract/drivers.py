# SPDX-License-Identifier: Apache-2.0
"""The embedded SLURM plugin and the real one behind the same few calls."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from oscar_testbed.contract.plugin import IMAGE, Answer, secret
from oscar_testbed.errors import RejectedError
from oscar_testbed.fakes.interlink import environment, volumes
from oscar_testbed.fakes.interlink.containers import install_runtime
from oscar_testbed.fakes.interlink.plugin import ContainerReply, Creation, SlurmPlugin
from oscar_testbed.fakes.kubernetes import NotFoundError, logs
from oscar_testbed.fakes.slurm import BatchSystem
from oscar_testbed.fakes.slurm.real import RealSlurm
from oscar_testbed.faults import InterLinkFaults
from oscar_testbed.images import LocalImage
from oscar_testbed.real.upstream.plugin import SlurmPluginProgram

IMAGES = {IMAGE: LocalImage(IMAGE, [], {"FROM_IMAGE": "yes"})}


class RealPlugin:
    """Upstream's program, asked as the interLink API server asks it."""

    def __init__(self, directory: Path, batch: RealSlurm) -> None:
        self.batch: BatchSystem = batch
        self.program = SlurmPluginProgram(directory, batch, install_runtime(directory / "bin", IMAGES))

    def create(self, pod: dict[str, Any], secrets: Mapping[str, Mapping[str, str]]) -> Answer:
        known = {name: secret(name, data) for name, data in secrets.items()}
        spec = pod["spec"]
        by_volume = {v["name"]: v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
        containers = [*spec.get("initContainers", []), *spec["containers"]]
        data = [
            {
                "name": one["name"],
                "configMaps": None,
                "projectedvolumemaps": None,
                "secrets": [known[by_volume[m["name"]]] for m in one.get("volumeMounts", []) if m["name"] in by_volume],
                "emptyDirs": None,
            }
            for one in containers
        ]
        answer = self._ask("/create", {"pod": _sent(pod), "container": data, "jobConfig": {}}, "POST")
        return Answer(answer.status, json.loads(answer.body)["PodJID"]) if answer.status == 200 else answer

    def status(self, pod: dict[str, Any]) -> Answer:
        # The plugin repeats its last reply for ten seconds, whichever pod is asked for; the embedded one need not.
        import time

        time.sleep(10.2)
        answer = self._ask("/status", [_sent(pod)])
        if answer.status != 200:
            return answer
        (one,) = json.loads(answer.body)
        return Answer(200, [_container(each) for each in one["containers"] or []])

    def logs(self, pod: dict[str, Any], container: str, options: Mapping[str, Any]) -> Answer:
        meta = pod["metadata"]
        opts = {"Tail": 0, "Bytes": 0, "Timestamps": False, "Follow": False, "Previous": False, "SinceSeconds": 0}
        body = {
            "Namespace": meta["namespace"],
            "PodUID": meta["uid"],
            "PodName": meta["name"],
            "ContainerName": container,
            "Opts": {**opts, "SinceTime": "0001-01-01T00:00:00Z", **options},
        }
        return self._ask("/getLogs", body)

    def delete(self, pod: dict[str, Any]) -> Answer:
        return self._ask("/delete", _sent(pod), "POST")

    def directory(self, pod: dict[str, Any]) -> Path:
        return self.program.jobs / f"{pod['metadata']['namespace']}-{pod['metadata']['uid']}"

    def words(self) -> dict[str, str]:
        return _words(self.program.jobs)

    def _ask(self, path: str, body: Any, method: str = "GET") -> Answer:
        try:
            answer = self.program.request(path, body, method)
        except httpx.RemoteProtocolError:
            return Answer(0, "")
        return Answer(answer.status_code, answer.text)


class EmbeddedPlugin:
    """Our own plugin, which is called and not asked over HTTP: what it raises stands for a status."""

    def __init__(self, directory: Path, batch: BatchSystem) -> None:
        self.batch = batch
        self._directory = directory
        runtime = install_runtime(directory / "bin", IMAGES)
        self.plugin = SlurmPlugin(directory / "jobs", batch, runtime, faults=InterLinkFaults())

    def create(self, pod: dict[str, Any], secrets: Mapping[str, Mapping[str, str]]) -> Answer:
        def lookup(plural: str, name: str) -> Mapping[str, Any]:
            if plural != "secrets" or name not in secrets:
                raise NotFoundError(name)
            return secret(name, secrets[name])

        spec = pod["spec"]
        variables = {
            one["name"]: environment.resolve(pod, one, lookup)
            for one in [*spec.get("initContainers", []), *spec["containers"]]
        }
        try:
            return Answer(200, self.plugin.create(Creation(pod, variables, volumes.fetch(pod, lookup))))
        except RejectedError as error:
            # "EOF" is how the API server sees a plugin that broke down.
            return Answer(0, "") if str(error) == "EOF" else Answer(504, str(error))

    def status(self, pod: dict[str, Any]) -> Answer:
        reply = self.plugin.status(pod["metadata"]["uid"], self.batch.jobs())
        return Answer(500, "") if reply is None else Answer(200, [_embedded(one) for one in reply.containers])

    def logs(self, pod: dict[str, Any], container: str, options: Mapping[str, Any]) -> Answer:
        files = self.plugin.log_files(pod["metadata"]["uid"], container)
        if files is None:
            return Answer(500, "")
        names = {"Tail": "tailLines", "Bytes": "limitBytes", "Timestamps": "timestamps", "SinceSeconds": "sinceSeconds"}
        query = {names[name]: str(value).lower() for name, value in options.items()}
        return Answer(200, logs._select(logs._whole(files), query).decode())

    def delete(self, pod: dict[str, Any]) -> Answer:
        known = self.plugin.log_files(pod["metadata"]["uid"], "job") is not None
        self.plugin.delete(pod["metadata"]["uid"])
        self.plugin.remove_leftovers()
        return Answer(200 if known else 0, "")

    def directory(self, pod: dict[str, Any]) -> Path:
        return self._directory / "jobs" / f"{pod['metadata']['namespace']}-{pod['metadata']['uid']}"

    def words(self) -> dict[str, str]:
        return _words(self._directory / "jobs")


def _words(jobs: Path) -> dict[str, str]:
    return {str(jobs): "<jobs>", socket.gethostname().split(".")[0]: "<host>"}


def _sent(pod: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "Pod", "apiVersion": "v1", **pod}


def _container(one: dict[str, Any]) -> dict[str, Any]:
    """The part of a container status that reaches the pod."""
    state = {kind: detail for kind, detail in (one.get("state") or {}).items() if detail is not None}
    return {"name": one["name"], "state": {kind: _detail(kind, detail) for kind, detail in state.items()}}


def _detail(kind: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    if kind != "terminated":
        return {}
    return {
        "exitCode": detail.get("exitCode", 0),
        "reason": detail.get("reason") or "",
        "message": detail.get("message") or "",
        "started": bool(detail.get("startedAt")),
        "finished": bool(detail.get("finishedAt")),
    }


def _embedded(one: ContainerReply) -> dict[str, Any]:
    detail = {
        "exitCode": one.exit_code,
        "reason": one.reason,
        "message": one.message,
        "startedAt": one.started,
        "finishedAt": one.finished,
    }
    return {"name": one.name, "state": {one.state: _detail(one.state, detail)} if one.state else {}}
