# SPDX-License-Identifier: Apache-2.0
"""Conversations with OSCAR about itself, services and buckets."""

from __future__ import annotations

import base64
from typing import Any

import httpx

from oscar_testbed.contract import normal
from oscar_testbed.contract.oscar import ApiCase, OscarRecorder
from oscar_testbed.contract.oscar_job_cases import one_job, pages_of_jobs, pod_of_a_job, submitting
from oscar_testbed.contract.oscar_route_cases import ROUTES, VOLUME_ROUTES


def _about_itself(recorder: OscarRecorder) -> None:
    for path in ("/health", "/system/info", "/system/config", "/nowhere"):
        recorder.ask("GET", path)
    recorder.ask("PATCH", "/system/services")


def _who_asks(recorder: OscarRecorder) -> None:
    recorder.ask("GET", "/system/services", note="nobody", auth=None)
    recorder.ask("GET", "/system/services", note="wrong password", auth=("oscar", "wrong"))
    recorder.ask("GET", "/system/services", note="wrong user", auth=("root", "wrong"))
    for note, token in (("short token", "abc"), ("token of a service's length", "a" * 64), ("broken JWT", "a.b.c")):
        recorder.ask("GET", "/system/services", note=note, auth=None, headers={"Authorization": f"Bearer {token}"})
    recorder.ask("GET", "/health", note="nobody", auth=None)


def _life(recorder: OscarRecorder) -> None:
    first = recorder.service("life")
    recorder.ask("GET", "/system/services", note="none")
    recorder.ask("POST", "/system/services", json=first)
    recorder.ask("POST", "/system/services", note="again", json=first)
    recorder.ask("GET", "/system/services/life")
    recorder.ask("GET", "/system/services")
    token = recorder.client.get("/system/services/life").json()["token"]
    changed = {**first, "memory": "128Mi", "environment": {"variables": {"MODE": "b"}}}
    recorder.ask("PUT", "/system/services", json=changed)
    found = recorder.ask("GET", "/system/services/life", note="changed").json()
    recorder.notes.append({"asked": "token kept", "status": int(found["token"] == token), "type": "", "body": ""})
    recorder.ask("PUT", "/system/services", note="absent", json={**first, "name": "nobody"})
    recorder.ask("DELETE", "/system/services/life")
    recorder.ask("GET", "/system/services/life", note="deleted")
    recorder.ask("DELETE", "/system/services/life", note="again")
    recorder.ask("GET", "/system/logs/life", note="deleted")


def _fields(recorder: OscarRecorder) -> None:
    full = recorder.service(
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
    recorder.ask("POST", "/system/services", json=full)
    recorder.ask("GET", "/system/services/fields")
    recorder.ask("DELETE", "/system/services/fields")
    least = {"NAME": "least", "Image": recorder.image, "script": "x"}
    recorder.ask("POST", "/system/services", note="least", json=least)
    recorder.ask("GET", "/system/services/least")
    recorder.ask("DELETE", "/system/services/least")


def _secrets(recorder: OscarRecorder) -> None:
    hidden = {"variables": {"A": "1"}, "secrets": {"KEY": "hush", "OTHER": "word"}}
    recorder.ask("POST", "/system/services", json=recorder.service("hiding", environment=hidden))
    recorder.ask("GET", "/system/services/hiding")
    changed = {"variables": {"A": "1"}, "secrets": {"KEY": "hushed"}}
    recorder.ask("PUT", "/system/services", json=recorder.service("hiding", environment=changed))
    recorder.ask("GET", "/system/services/hiding", note="changed")
    recorder.ask("DELETE", "/system/services/hiding")


def _refused(recorder: OscarRecorder) -> None:
    good = recorder.service("bad")

    def post(note: str, **change: Any) -> None:
        body = {key: value for key, value in (good | change).items() if value is not None}
        answer = recorder.ask("POST", "/system/services", note=note, json=body)
        if answer.status_code == 201:
            recorder.ask("DELETE", f"/system/services/{body['name']}", keep=False)

    recorder.ask("POST", "/system/services", note="no JSON", content=b"{")
    recorder.ask("POST", "/system/services", note="nothing", content=b"")
    recorder.ask("POST", "/system/services", note="a list", json=[good])
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


def _buckets_of_services(recorder: OscarRecorder) -> None:
    recorder.ask("GET", "/system/buckets", note="none")
    entry = {"storage_provider": "minio.default", "path": "shelf/in"}
    results = {"storage_provider": "minio.default", "path": "shelf/out"}
    elsewhere = {"storage_provider": "minio.default", "path": "attic/out"}
    first = recorder.service("shelves", input=[entry], output=[results, elsewhere])
    recorder.ask("POST", "/system/services", json=first)
    _list_buckets(recorder)
    recorder.ask("POST", "/system/services", note="bucket taken", json=recorder.service("thief", input=[entry]))
    recorder.ask("GET", "/system/services/thief")
    taken = recorder.service("thief", output=[elsewhere])
    recorder.ask("POST", "/system/services", note="output bucket taken", json=taken)
    recorder.ask("GET", "/system/services/thief", note="output bucket taken")
    recorder.ask("DELETE", "/system/services/thief", keep=False)
    _list_buckets(recorder)
    more = {"storage_provider": "minio.default", "path": "cellar/out"}
    recorder.s3.put_object(Bucket="attic", Key="out/kept", Body=b"1")
    changed = {**first, "output": [results, more]}
    for note, body in (("with its owner", {**changed, "owner": "cluster_admin"}), ("without its owner", changed)):
        recorder.ask("PUT", "/system/services", note=f"another bucket, {note}", json=body)
        found = recorder.client.get("/system/services/shelves").json()
        shown = {"owner": found["owner"], "output": [each["path"] for each in found["output"]]}
        recorder.notes.append({"asked": f"after that, {note}", "status": 200, "type": "", "body": shown})
        _list_buckets(recorder)
        recorder.ask("PUT", "/system/services", note=f"one bucket less, {note}", json={**body, "output": [results]})
    recorder.ask("PUT", "/system/services", note="memory", json={**first, "output": [results], "memory": "65Mi"})
    recorder.ask("DELETE", "/system/services/shelves", note="owner lost")
    recorder.ask("GET", "/system/services/shelves", note="deleted")
    _list_buckets(recorder)
    for bucket in ("attic", "cellar", "shelf"):
        recorder.ask("DELETE", f"/system/buckets/{bucket}", keep=False)
    _list_buckets(recorder)
    recorder.ask("POST", "/system/services", json={**first, "output": [results]})
    recorder.ask("DELETE", "/system/services/shelves", note="with its owner")
    _list_buckets(recorder)


def _list_buckets(recorder: OscarRecorder) -> None:
    names = sorted(each["Name"] for each in recorder.s3.list_buckets()["Buckets"])
    keys = {
        name: [each["Key"] for each in recorder.s3.list_objects_v2(Bucket=name).get("Contents", [])] for name in names
    }
    recorder.notes.append({"asked": "the store itself", "status": len(names), "type": "", "body": keys})


def _buckets(recorder: OscarRecorder) -> None:
    recorder.ask("POST", "/system/buckets", json={"bucket_name": "box"})
    recorder.ask("POST", "/system/buckets", note="again", json={"bucket_name": "box"})
    recorder.ask("POST", "/system/buckets", note="no name", json={})
    recorder.ask("POST", "/system/buckets", note="bad name", json={"bucket_name": "B!"})
    recorder.ask("POST", "/system/buckets", note="no JSON", content=b"{")
    recorder.ask("GET", "/system/buckets/box", note="empty")
    recorder.s3.put_object(Bucket="box", Key="a b/ü.txt", Body=b"hello")
    recorder.ask("GET", "/system/buckets/box")
    recorder.ask("GET", "/system/buckets")
    recorder.ask("GET", "/system/buckets/nobody")
    for operation in ("upload", "download", "burn"):
        order = {"operation": operation, "object_key": "a b/ü.txt", "expires_in": 60}
        answer = recorder.client.post("/system/buckets/box/presign", json=order)
        body = answer.json() if answer.status_code == 200 else answer.text
        if isinstance(body, dict):
            body = {**body, "url": httpx.URL(body["url"]).path}
        note = {"asked": f"presign {operation}", "status": answer.status_code, "type": "", "body": body}
        recorder.notes.append(dict(normal.tree(note, recorder.words)))
    recorder.ask("POST", "/system/buckets/nobody/presign", json={"operation": "upload", "object_key": "a"})
    recorder.ask("DELETE", "/system/buckets/box")
    recorder.ask("DELETE", "/system/buckets/box", note="again")


API_CASES = (
    ApiCase("about itself", _about_itself),
    ApiCase("who may ask", _who_asks),
    ApiCase("a service's life", _life),
    ApiCase("fields of a definition", _fields),
    ApiCase("secrets of a definition", _secrets),
    ApiCase("refused definitions", _refused),
    ApiCase("buckets of services", _buckets_of_services),
    ApiCase("buckets", _buckets),
    ApiCase("submitting", submitting),
    ApiCase("pages of jobs", pages_of_jobs),
    ApiCase("pod of a job", pod_of_a_job),
    ApiCase("job that succeeds", one_job("well", "#!/bin/sh\necho out\necho err >&2\nsleep 25\n")),
    ApiCase("job whose script fails", one_job("ill", "#!/bin/sh\necho before\nsleep 25\nexit 3\n")),
    ApiCase(
        "job with a body",
        one_job("reader", '#!/bin/sh\ncat "$INPUT_FILE_PATH"; sleep 25\n', base64.b64encode(b"a b\n'$HOME'\n")),
    ),
    *(ApiCase(name, talk) for name, talk in ROUTES),
)
#: For an OSCAR that is installed with volumes.
VOLUME_CASES = tuple(ApiCase(name, talk) for name, talk in VOLUME_ROUTES)
