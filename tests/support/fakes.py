# SPDX-License-Identifier: Apache-2.0
"""An OSCAR and a Kubernetes that live in memory, a supervisor that prepares nothing, and a task's context."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest

from airflow_provider_oscar.core.logs import MARKER
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.podstatus import OWNER_LABEL, PodStatus
from airflow_provider_oscar.core.staging import StageOutS3Post
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.jobs.manifest import Failure, InputObject, Manifest, Phase
from airflow_provider_oscar.jobs.prepared import PreparedJob
from airflow_provider_oscar.jobs.sealing import service_keys
from airflow_provider_oscar.jobs.signing import configured_signer
from airflow_provider_oscar.jobs.spec import JOB_VERSION, JobSpec
from airflow_provider_oscar.supervisor import manifest as supervisor_manifest
from airflow_provider_oscar.supervisor.sealing import opened

EVENT = {
    "source": "s3",
    "conn_id": "oscar_s3_default",
    "container": "in",
    "key": "a b.h5",
    "size": 10,
    "etag": "e",
    "version_id": "",
    "modified": "2026-11-22T10:00:00+00:00",
    "reason": "listed",
}
OUTPUT = "s3://out/results"


class FakeOscar:
    """One service with jobs; ``refuse`` maps (method, path prefix) to a status."""

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        self.logs: dict[str, str] = {}
        self.bodies: dict[str, bytes] = {}
        self.calls: list[tuple[str, str]] = []
        self.refuse: dict[tuple[str, str], int] = {}
        self.after_list: list[Any] = []
        self.started = 0
        #: Whether the service was applied with the key for its jobs' specifications.
        self.has_key = True
        #: Further fields of the service.
        self.fields: dict[str, Any] = {}

    def specifications(self, service: str) -> dict[str, dict[str, Any]]:
        """What the jobs of a service were given, opened as the supervisor opens it, by job."""
        keys = {name: key.hex() for name, key in service_keys(configured_signer(), service).items()}
        return {name: json.loads(opened(base64.b64decode(body), keys)) for name, body in self.bodies.items()}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls.append((request.method, path))
        for (method, prefix), status in self.refuse.items():
            if request.method == method and path.startswith(prefix):
                return httpx.Response(status)
        parts = path.strip("/").split("/")
        if request.method == "POST":
            return self.submit(request)
        if request.method == "PUT":
            sent = json.loads(request.content)
            self.fields = {**self.fields, **{key: sent[key] for key in sent if key not in ("name", "environment")}}
            return httpx.Response(204)
        if parts[1] in ("info", "config"):
            return httpx.Response(200, json={"version": "v4.1.2", "config": {}})
        if parts[1] == "services":
            secrets = {name: "" for name in service_keys(configured_signer(), parts[2]) if self.has_key}
            found = {"name": parts[2], "token": "t" * 64, "script": "OSCAR_SUPERVISOR=1", **self.fields}
            return httpx.Response(200, json={**found, "environment": {"variables": {}, "secrets": secrets}})
        if len(parts) == 3:
            listed = httpx.Response(200, json={"jobs": {name: {"status": word} for name, word in self.jobs.items()}})
            if self.after_list:
                self.after_list.pop(0)()
            return listed
        job = parts[3]
        if request.method == "DELETE":
            return httpx.Response(204 if self.jobs.pop(job, None) else 404)
        return httpx.Response(200, text=self.logs.get(job, "")) if job in self.jobs else httpx.Response(500)

    def submit(self, request: httpx.Request) -> httpx.Response:
        """Start a job, unless there is one of its name."""
        name = request.headers["X-Delegated-Job-ID"]
        if name in self.jobs:
            return httpx.Response(500, text=f'jobs.batch "{name}" already exists')
        self.jobs[name] = "Pending"
        self.bodies[name] = request.content
        self.started += 1
        return httpx.Response(201)

    def posts(self) -> int:
        """Jobs that were started."""
        return self.started

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeOscar:
        transport = httpx.MockTransport(self)
        monkeypatch.setenv(
            "AIRFLOW_CONN_OSCAR_DEFAULT",
            json.dumps({"conn_type": "oscar", "host": "https://oscar.test", "login": "u", "password": "p"}),
        )
        monkeypatch.setattr(OscarHook, "client", lambda self: httpx.Client(auth=self.auth, transport=transport))
        monkeypatch.setattr(
            OscarHook, "async_client", lambda self: httpx.AsyncClient(auth=self.auth, transport=transport)
        )
        return self


class FakeCluster:
    """The methods of ``InterLinkHook`` the operator and its trigger use, over a dictionary of pods."""

    def __init__(self) -> None:
        self.pods: dict[str, PodStatus] = {}
        self.created: list[dict[str, Any]] = []
        self.secrets: dict[str, Any] = {}
        self.deleted: list[str] = []
        self.log: str | None = ""

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
        monkeypatch.setenv(
            "AIRFLOW_CONN_INTERLINK_DEFAULT",
            json.dumps(
                {
                    "conn_type": "interlink",
                    "extra": {"namespace": "hpc-jobs", "slurm_job_url": "https://slurm.test/job/{job_id}"},
                }
            ),
        )
        calls = ("create_or_adopt_pod", "read_pod", "delete_pod", "delete_secret", "await_deleted", "read_log")
        for name in (*calls, "log_chunks", "list_pods", "complete_pod"):
            monkeypatch.setattr(InterLinkHook, name, getattr(self, name))
        return self

    def put(self, name: str, phase: JobPhase, **fields: Any) -> None:
        """Let a pod be in a phase; it stays whose it was."""
        before = self.pods.get(name, PodStatus(name, phase))
        fields = {"owner": before.owner, "secret": before.secret} | fields
        self.pods[name] = PodStatus(name=name, phase=phase, raw=phase.value, **fields)

    def create_or_adopt_pod(self, pod: dict[str, Any], secret: Any = None) -> bool:
        name = pod["metadata"]["name"]
        if name in self.pods:
            return False
        self.created.append(pod)
        self.secrets[name] = secret
        self.put(name, JobPhase.PENDING, secret=name, owner=pod["metadata"].get("labels", {}).get(OWNER_LABEL, ""))
        return True

    def read_pod(self, name: str) -> PodStatus | None:
        return self.pods.get(name)

    def delete_pod(self, name: str) -> bool:
        self.deleted.append(name)
        return self.pods.pop(name, None) is not None

    def delete_secret(self, name: str) -> bool:
        return self.secrets.pop(name, None) is not None

    def complete_pod(self, name: str, uid: str, secret: Any, *, owner: str = "") -> bool:
        if self.secrets.get(name) is not None:
            return False
        self.secrets[name] = secret()
        return True

    def log_chunks(self, name: str) -> Iterator[bytes]:
        yield (self.log or "").encode()

    def await_deleted(self, name: str) -> None:
        assert name not in self.pods

    def read_log(self, name: str) -> str | None:
        return self.log

    def list_pods(self, **_: Any) -> list[PodStatus]:
        return list(self.pods.values())


class FakeSupervisor:
    """Prepares a job without asking a store; ``manifests`` is the store."""

    def __init__(self) -> None:
        self.manifests: dict[str, Manifest] = {}
        self.built: list[dict[str, Any]] = []
        self.finished: list[tuple[str, int | None]] = []
        self.logs: dict[str, bytes] = {}
        self.fault: Exception | None = None
        self.gone: list[str] = []

    def build(self, **wanted: Any) -> PreparedJob:
        self.built.append(wanted)
        name = wanted["submission_id"]
        spec = JobSpec(
            version=JOB_VERSION,
            submission_id=name,
            placement=wanted["placement"],
            submitted_at=datetime.now(UTC),
            input=None,
            output=StageOutS3Post(uri=f"{OUTPUT}/{name}/", url="https://s3", fields={}, prefix=f"results/{name}/"),
            command=tuple(wanted["command"]),
            environment=wanted["environment"],
        )
        return PreparedJob(spec=spec, secret={"job.json": spec.to_json()}, command=("/bin/sh", "-c"), args=("run",))

    def save_log(self, output_conn_id: str, output_uri: str, submission_id: str, chunks: Iterable[bytes]) -> str:
        if self.fault is not None:
            raise self.fault
        self.logs[submission_id] = b"".join(chunks)
        return f"{output_uri}/{submission_id}/job.log" if self.logs[submission_id] else ""

    def read_manifest(
        self,
        output_conn_id: str,
        output_uri: str,
        submission_id: str,
        *,
        is_genuine: Callable[[Manifest], bool] = lambda claim: True,
    ) -> Manifest | None:
        if self.fault is not None:
            raise self.fault
        found = self.manifests.get(submission_id)
        return None if found is None else self.signed(found)

    def finish_outputs(
        self,
        output_conn_id: str,
        output_uri: str,
        submission_id: str,
        manifest: Manifest | None,
        *,
        elsewhere: bool = False,
    ) -> None:
        self.finished.append((submission_id, None if manifest is None else manifest.exit_code))

    def differing_outputs(self, output_conn_id: str, output_uri: str, manifest: Manifest) -> list[str]:
        return [f"{name!r} is not there" for name in self.gone]

    def signed(self, found: Manifest) -> Manifest:
        """The manifest as the supervisor of the newest submission of its job signs it."""
        built = [each for each in self.built if each["submission_id"] == found.submission_id]
        if found.signature or not built:
            return found
        event = built[-1].get("event")
        if found.input is None and event is not None:
            found = about(found, event)
        return signed(found, built[-1]["binding"].signing_key)

    def marker(self, found: Manifest) -> str:
        """The log line in which that supervisor writes it."""
        return marker(self.signed(found))

    def service_script(self) -> str:
        return "#!/bin/sh\n"


def manifest(name: str, code: int = 0, *, error: Failure | None = None, submitted: datetime | None = None) -> Manifest:
    """A finished job's manifest."""
    at = submitted or datetime.now(UTC)
    return Manifest(
        submission_id=name,
        placement="",
        input=None,
        output_uri=f"{OUTPUT}/{name}/",
        outputs=(),
        exit_code=code,
        error=error,
        phases={"queued": Phase(at, at)},
        slurm_job_id="17",
    )


def about(found: Manifest, event: ObjectEvent) -> Manifest:
    """The manifest of a job that was given an object."""
    return msgspec.structs.replace(found, input=InputObject(event.uri, event.etag, event.size))


def signed(found: Manifest, key: str) -> Manifest:
    """The manifest with a signature, by the supervisor's own code."""
    return Manifest.from_dict(supervisor_manifest.signed(found.to_dict(), bytes.fromhex(key)))


def marker(found: Manifest) -> str:
    """The log line that carries a manifest."""
    return f"{MARKER}{json.dumps(found.to_dict())}\n"


class Store(dict):  # type: ignore[type-arg]
    """Airflow's task state store; ``retentions`` keeps what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.retentions: list[Any] = []

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self[key] = json.loads(json.dumps(value))
        self.retentions.append(retention)


def context(store: Store | None = None, *, partition_key: str | None = "p-1", task_id: str = "infer") -> Any:
    """What a task sees of its run."""
    xcoms: dict[str, Any] = {}
    ti = SimpleNamespace(
        dag_id="dag",
        task_id=task_id,
        map_index=-1,
        xcoms=xcoms,
        xcom_push=lambda key, value: xcoms.__setitem__(key, value),
    )
    return {
        "ti": ti,
        "run_id": "run-1",
        "partition_key": partition_key,
        "task_state_store": Store() if store is None else store,
    }
