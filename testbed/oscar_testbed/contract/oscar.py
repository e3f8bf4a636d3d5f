# SPDX-License-Identifier: Apache-2.0
"""An OSCAR that is asked, and a transcript of what it answered, made comparable.

Services are for interLink, so that their jobs run in both platforms on the same kind of node; ``cloud`` jobs need
a node of their own.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import boto3
import httpx
from kubernetes import config
from kubernetes.client import CoreV1Api

from oscar_testbed.contract import normal
from oscar_testbed.contract.job_pods import slurm_annotations

#: Jobs of one page, which both platforms are told to use.
PAGE = 5
_SCRIPT = "#!/bin/sh\necho started\n"
#: What differs from version to version or from run to run, in texts that are Kubernetes' or the store's.
_WORDS = (
    (re.compile(r"v\d+\.\d+\.\d+[-+.\w]*"), "<version>"),
    (re.compile(r'(Invalid value: "[^"]*"): .*'), r"\1: <why>"),
    (re.compile(r"(continue key is not valid): .*"), r"\1: <why>"),
    (re.compile(r"\n\tstatus code: \d+, request id: .*"), " <request>"),
    (re.compile(r'(Post|Get) "http://prometheus-[^"]*": [^;"]*'), "<no Prometheus>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? \+0000 UTC"), "<time>"),
)


class Platform(Protocol):
    """A platform with an OSCAR, a store and a virtual node."""

    connections: Mapping[str, Mapping[str, Any]]
    node: str
    image: str


@dataclass
class OscarRecorder:
    """An OSCAR that can be asked, and a note of all that was asked.

    :param client: with the administrator's password.
    :param s3: a boto3 client of its store.
    :param kubernetes: a client of the core API of its Kubernetes.
    :param image: an image the virtual node can run.
    :param node: the virtual node.
    :param words: texts of this run only, and what to write for them.
    :param clean: takes a log as interLink answers it, and returns the container's own lines.
    """

    client: httpx.Client
    s3: Any
    kubernetes: Any
    image: str
    node: str
    words: Mapping[str, str]
    clean: Callable[[str], str]
    notes: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, method: str, path: str, *, note: str = "", keep: bool = True, **request: Any) -> httpx.Response:
        """Send a request and note the answer.

        :param note: says in the transcript what is special about it.
        :param keep: whether the answer belongs into the transcript.
        """
        answer = self.client.request(method, path, **request)
        for _ in range(20):
            if answer.status_code != 500 or "connection refused" not in answer.text:
                break
            # OSCAR restarts MinIO for every service, and waits six seconds, which are not always enough.
            time.sleep(3)
            answer = self.client.request(method, path, **request)
        if keep:
            self.notes.append(self._note(f"{method} {path}" + (f" ({note})" if note else ""), answer))
        return answer

    def service(self, name: str, script: str = _SCRIPT, **more: Any) -> dict[str, Any]:
        """The definition of an interLink service."""
        return {
            "name": name,
            "image": self.image,
            "script": script,
            "cpu": "1",
            "memory": "64Mi",
            "interlink_node_name": self.node,
            "annotations": slurm_annotations(),
        } | more

    def made(self, name: str, script: str = _SCRIPT, **more: Any) -> str:
        """Create a service, and return its token; the transcript has other places for that."""
        self.client.post("/system/services", json=self.service(name, script, **more)).raise_for_status()
        return str(self.client.get(f"/system/services/{name}").json()["token"])

    def submit(self, service: str, token: str, name: str = "", body: bytes = b"e30=", **more: Any) -> httpx.Response:
        """Ask for a job."""
        headers = {"Authorization": f"Bearer {token}", **({"X-Delegated-Job-ID": name} if name else {})}
        return self.ask("POST", f"/job/{service}", headers=headers, content=body, auth=None, **more)

    def remove(self, service: str) -> None:
        """Delete a service and wait until its jobs are gone; the transcript has other places for that."""
        self.client.delete(f"/system/logs/{service}", params={"all": "true"})
        self.client.delete(f"/system/services/{service}")

    def _note(self, what: str, answer: httpx.Response) -> dict[str, Any]:
        kind = answer.headers.get("content-type", "")
        body: Any = answer.text
        if kind.startswith("application/json") or (body[:1] in ("{", "[") and kind == ""):
            body = json.loads(body)
        if isinstance(body, dict) and "minio_provider" in body:
            body["minio_provider"]["access_key"] = "<access key>"
        note = {"asked": what, "status": answer.status_code, "type": kind if answer.content else "", "body": body}
        if "www-authenticate" in answer.headers:
            note["challenge"] = answer.headers["www-authenticate"]
        return dict(normal.tree(note, self.words))


@contextlib.contextmanager
def recorder(platform: Platform, clean: Callable[[str], str]) -> Iterator[OscarRecorder]:
    """Open an OSCAR by the connections that lead to it.

    :param clean: takes a log as interLink answers it, and returns the container's own lines.
    """
    oscar, store = platform.connections["oscar_default"], platform.connections["oscar_s3_default"]
    endpoint = store.get("host") or store["extra"]["endpoint_url"]
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=store["login"],
        aws_secret_access_key=store["password"],
    )
    words = {
        endpoint: "<store>",
        oscar["host"]: "<oscar>",
        store["password"]: "<secret key>",
        platform.image: "<image>",
    }
    client = httpx.Client(base_url=oscar["host"], auth=(oscar["login"], oscar["password"]), timeout=180)
    extra = platform.connections["interlink_default"]["extra"]
    found = extra.get("kube_config_secret") or extra["kube_config"]
    kubernetes = config.new_client_from_config_dict(json.loads(found) if isinstance(found, str) else found)
    with client:
        yield OscarRecorder(client, s3, CoreV1Api(kubernetes), platform.image, platform.node, words, clean)
    kubernetes.rest_client.pool_manager.clear()


def api_transcript(recorder: OscarRecorder, case: ApiCase) -> dict[str, Any]:
    """Have one conversation and return what was answered, by number and request."""
    recorder.notes.clear()
    case.talk(recorder)
    return numbered(_plain(list(recorder.notes)))


def numbered(notes: list[dict[str, Any]]) -> dict[str, Any]:
    """Notes in an order that survives sorting."""
    return {
        f"{number:02} {note['asked']}": {key: value for key, value in note.items() if key != "asked"}
        for number, note in enumerate(notes, 1)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        for pattern, word in _WORDS:
            value = pattern.sub(word, value)
        return value
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class ApiCase:
    """A conversation."""

    name: str
    talk: Callable[[OscarRecorder], None]
