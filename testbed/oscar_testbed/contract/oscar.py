# SPDX-License-Identifier: Apache-2.0
"""Cases for OSCAR's REST API: what is asked in which order, and what was answered, made comparable.

Services are for interLink, so that their jobs run in both platforms on the same kind of node; ``cloud`` jobs need
a node of their own.
"""

from __future__ import annotations

import base64
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
_PATIENCE = 300.0
_SCRIPT = "#!/bin/sh\necho started\n"
#: What differs from version to version or from run to run, in texts that are Kubernetes' or the store's.
_WORDS = (
    (re.compile(r"v\d+\.\d+\.\d+[-+.\w]*"), "<version>"),
    (re.compile(r'(Invalid value: "[^"]*"): .*'), r"\1: <why>"),
    (re.compile(r"(continue key is not valid): .*"), r"\1: <why>"),
    (re.compile(r"\n\tstatus code: \d+, request id: .*"), " <request>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? \+0000 UTC"), "<time>"),
)
#: What a job list says of a job only if somebody looks at the right moment.
_CHANCE = ("Suspended", "Pending")


class Platform(Protocol):
    """A platform with an OSCAR, a store and a virtual node."""

    connections: Mapping[str, Mapping[str, Any]]
    node: str
    image: str


@dataclass
class Door:
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
def door(platform: Platform, clean: Callable[[str], str]) -> Iterator[Door]:
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
        yield Door(client, s3, CoreV1Api(kubernetes), platform.image, platform.node, words, clean)
    kubernetes.rest_client.pool_manager.clear()


@dataclass(frozen=True)
class ApiCase:
    """A conversation."""

    name: str
    talk: Callable[[Door], None]


def api_transcript(door: Door, case: ApiCase) -> dict[str, Any]:
    """Have one conversation and return what was answered, by number and request."""
    door.notes.clear()
    case.talk(door)
    return numbered(_plain(list(door.notes)))


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


def _about_itself(door: Door) -> None:
    for path in ("/health", "/system/info", "/system/config", "/nowhere"):
        door.ask("GET", path)
    door.ask("PATCH", "/system/services")


def _who_asks(door: Door) -> None:
    door.ask("GET", "/system/services", note="nobody", auth=None)
    door.ask("GET", "/system/services", note="wrong password", auth=("oscar", "wrong"))
    door.ask("GET", "/system/services", note="wrong user", auth=("root", "wrong"))
    for note, token in (("short token", "abc"), ("token of a service's length", "a" * 64), ("broken JWT", "a.b.c")):
        door.ask("GET", "/system/services", note=note, auth=None, headers={"Authorization": f"Bearer {token}"})
    door.ask("GET", "/health", note="nobody", auth=None)


def _life(door: Door) -> None:
    first = door.service("life")
    door.ask("GET", "/system/services", note="none")
    door.ask("POST", "/system/services", json=first)
    door.ask("POST", "/system/services", note="again", json=first)
    door.ask("GET", "/system/services/life")
    door.ask("GET", "/system/services")
    token = door.client.get("/system/services/life").json()["token"]
    changed = {**first, "memory": "128Mi", "environment": {"variables": {"MODE": "b"}}}
    door.ask("PUT", "/system/services", json=changed)
    found = door.ask("GET", "/system/services/life", note="changed").json()
    door.notes.append({"asked": "token kept", "status": int(found["token"] == token), "type": "", "body": ""})
    door.ask("PUT", "/system/services", note="absent", json={**first, "name": "nobody"})
    door.ask("DELETE", "/system/services/life")
    door.ask("GET", "/system/services/life", note="deleted")
    door.ask("DELETE", "/system/services/life", note="again")
    door.ask("GET", "/system/logs/life", note="deleted")


def _fields(door: Door) -> None:
    full = door.service(
        "fields",
        "#!/bin/sh\r\necho a\recho b\n",
        log_level="debug",
        enable_gpu=False,
        labels={"mine": "yes"},
        visibility="private",
        environment={"variables": {"A": "1", "B": "$(A) $$"}},
        input=[{"storage_provider": "minio.default", "path": " /fields-in/sub/dir/ ", "prefix": ["a"]}],
        output=[{"storage_provider": "minio.default", "path": "results", "suffix": [".txt"]}],
        file_stage_in=True,
    )
    door.ask("POST", "/system/services", json=full)
    door.ask("GET", "/system/services/fields")
    door.ask("DELETE", "/system/services/fields")
    least = {"NAME": "least", "Image": door.image, "script": "x"}
    door.ask("POST", "/system/services", note="least", json=least)
    door.ask("GET", "/system/services/least")
    door.ask("DELETE", "/system/services/least")


def _secrets(door: Door) -> None:
    hidden = {"variables": {"A": "1"}, "secrets": {"KEY": "hush", "OTHER": "word"}}
    door.ask("POST", "/system/services", json=door.service("hiding", environment=hidden))
    door.ask("GET", "/system/services/hiding")
    changed = {"variables": {"A": "1"}, "secrets": {"KEY": "hushed"}}
    door.ask("PUT", "/system/services", json=door.service("hiding", environment=changed))
    door.ask("GET", "/system/services/hiding", note="changed")
    door.ask("DELETE", "/system/services/hiding")


def _refused(door: Door) -> None:
    good = door.service("bad")

    def post(note: str, **change: Any) -> None:
        body = {key: value for key, value in (good | change).items() if value is not None}
        answer = door.ask("POST", "/system/services", note=note, json=body)
        if answer.status_code == 201:
            door.ask("DELETE", f"/system/services/{body['name']}", keep=False)

    door.ask("POST", "/system/services", note="no JSON", content=b"{")
    door.ask("POST", "/system/services", note="nothing", content=b"")
    door.ask("POST", "/system/services", note="a list", json=[good])
    for name in ("name", "image", "script"):
        post(f"no {name}", **{name: None})
        post(f"empty {name}", **{name: ""})
    post("name in capitals", name="Bad")
    post("name with a dot", name="a.b")
    post("name with an underscore", name="a_b")
    post("name of 40", name="a" * 40)
    post("memory as a number", memory=64)
    post("memory nobody understands", memory="lots")
    post("processors nobody understands", cpu="lots")
    post("script as a list", script=["a"])
    post("variables as a list", environment={"variables": ["A=1"]})
    post("variable as a number", environment={"variables": {"A": 1}})
    post("unknown field", nonsense=True)
    post("unknown log level", log_level="loud")
    post("input without a path", input=[{"storage_provider": "minio.default", "path": " / "}])
    post("output without a path", output=[{"storage_provider": "minio.default"}])
    post("input from S3", input=[{"storage_provider": "s3.mine", "path": "bad-in/a"}])
    post("unknown output", output=[{"storage_provider": "minio.other", "path": "bad-out/a"}])
    post("bad bucket", input=[{"storage_provider": "minio.default", "path": "B!/a"}])
    post("variable with a bad name", environment={"variables": {"A B": "1"}})


def _buckets_of_services(door: Door) -> None:
    door.ask("GET", "/system/buckets", note="none")
    entry = {"storage_provider": "minio.default", "path": "shelf/in"}
    results = {"storage_provider": "minio.default", "path": "shelf/out"}
    elsewhere = {"storage_provider": "minio.default", "path": "attic/out"}
    first = door.service("shelves", input=[entry], output=[results, elsewhere])
    door.ask("POST", "/system/services", json=first)
    _list_buckets(door)
    door.ask("POST", "/system/services", note="bucket taken", json=door.service("thief", input=[entry]))
    door.ask("GET", "/system/services/thief")
    taken = door.service("thief", output=[elsewhere])
    door.ask("POST", "/system/services", note="output bucket taken", json=taken)
    door.ask("GET", "/system/services/thief", note="output bucket taken")
    door.ask("DELETE", "/system/services/thief", keep=False)
    _list_buckets(door)
    more = {"storage_provider": "minio.default", "path": "cellar/out"}
    door.s3.put_object(Bucket="attic", Key="out/kept", Body=b"1")
    changed = {**first, "output": [results, more]}
    for note, body in (("with its owner", {**changed, "owner": "cluster_admin"}), ("without its owner", changed)):
        door.ask("PUT", "/system/services", note=f"another bucket, {note}", json=body)
        found = door.client.get("/system/services/shelves").json()
        shown = {"owner": found["owner"], "output": [each["path"] for each in found["output"]]}
        door.notes.append({"asked": f"after that, {note}", "status": 200, "type": "", "body": shown})
        _list_buckets(door)
        door.ask("PUT", "/system/services", note=f"one bucket less, {note}", json={**body, "output": [results]})
    door.ask("PUT", "/system/services", note="memory", json={**first, "output": [results], "memory": "65Mi"})
    door.ask("DELETE", "/system/services/shelves", note="owner lost")
    door.ask("GET", "/system/services/shelves", note="deleted")
    _list_buckets(door)
    for bucket in ("attic", "cellar", "shelf"):
        door.ask("DELETE", f"/system/buckets/{bucket}", keep=False)
    _list_buckets(door)
    door.ask("POST", "/system/services", json={**first, "output": [results]})
    door.ask("DELETE", "/system/services/shelves", note="with its owner")
    _list_buckets(door)


def _list_buckets(door: Door) -> None:
    names = sorted(each["Name"] for each in door.s3.list_buckets()["Buckets"])
    keys = {name: [each["Key"] for each in door.s3.list_objects_v2(Bucket=name).get("Contents", [])] for name in names}
    door.notes.append({"asked": "the store itself", "status": len(names), "type": "", "body": keys})


def _buckets(door: Door) -> None:
    door.ask("POST", "/system/buckets", json={"bucket_name": "box"})
    door.ask("POST", "/system/buckets", note="again", json={"bucket_name": "box"})
    door.ask("POST", "/system/buckets", note="no name", json={})
    door.ask("POST", "/system/buckets", note="bad name", json={"bucket_name": "B!"})
    door.ask("POST", "/system/buckets", note="no JSON", content=b"{")
    door.ask("GET", "/system/buckets/box", note="empty")
    door.s3.put_object(Bucket="box", Key="a b/ü.txt", Body=b"hello")
    door.ask("GET", "/system/buckets/box")
    door.ask("GET", "/system/buckets")
    door.ask("GET", "/system/buckets/nobody")
    for operation in ("upload", "download", "burn"):
        order = {"operation": operation, "object_key": "a b/ü.txt", "expires_in": 60}
        answer = door.client.post("/system/buckets/box/presign", json=order)
        body = answer.json() if answer.status_code == 200 else answer.text
        if isinstance(body, dict):
            body = {**body, "url": httpx.URL(body["url"]).path}
        note = {"asked": f"presign {operation}", "status": answer.status_code, "type": "", "body": body}
        door.notes.append(dict(normal.tree(note, door.words)))
    door.ask("POST", "/system/buckets/nobody/presign", json={"operation": "upload", "object_key": "a"})
    door.ask("DELETE", "/system/buckets/box")
    door.ask("DELETE", "/system/buckets/box", note="again")


def _submitting(door: Door) -> None:
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


def _pages(door: Door) -> None:
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


def _pod(door: Door) -> None:
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


def _job(name: str, script: str, body: bytes = b"e30=") -> Callable[[Door], None]:
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


API_CASES = (
    ApiCase("about itself", _about_itself),
    ApiCase("who may ask", _who_asks),
    ApiCase("a service's life", _life),
    ApiCase("fields of a definition", _fields),
    ApiCase("secrets of a definition", _secrets),
    ApiCase("refused definitions", _refused),
    ApiCase("buckets of services", _buckets_of_services),
    ApiCase("buckets", _buckets),
    ApiCase("submitting", _submitting),
    ApiCase("pages of jobs", _pages),
    ApiCase("pod of a job", _pod),
    ApiCase("job that succeeds", _job("well", "#!/bin/sh\necho out\necho err >&2\nsleep 25\n")),
    ApiCase("job whose script fails", _job("ill", "#!/bin/sh\necho before\nsleep 25\nexit 3\n")),
    ApiCase(
        "job with a body",
        _job("reader", '#!/bin/sh\ncat "$INPUT_FILE_PATH"; sleep 25\n', base64.b64encode(b"a b\n'$HOME'\n")),
    ),
)
