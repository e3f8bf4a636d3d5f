# SPDX-License-Identifier: Apache-2.0
"""Functions as tasks whose pods run at once, for real, beside a small HTTP store."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime

import pytest
from airflow.sdk import DAG

from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.staging import StageIn, StageOutS3Post
from airflow_provider_oscar.decorators.interlink import interlink_task
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.jobs.builder import JobBuilder
from airflow_provider_oscar.jobs.result_store import ResultStore
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import OUTPUT, context
from tests.support.http_store import running_store

HPC = PlacementTarget(name="hpc", task_id="f", kind="interlink", node="vk")


class HttpStore:
    """The hook's side of the small HTTP store: presigned ways in and out, and reading what is there."""

    def __init__(self, server):
        self.server = server
        self.puts: list[str] = []

    def stage_in(self, event, *, lifetime):
        return StageIn(
            uri=event.uri, name="x", size=event.size, etag="", checksum=None, url=f"{self.server.url}/out/{event.key}"
        )

    def stage_out(self, uri, *, submission_id, lifetime, max_bytes=None):
        prefix = f"results/{submission_id}/"
        return StageOutS3Post(uri=f"{OUTPUT}/{submission_id}/", url=f"{self.server.url}/out", fields={}, prefix=prefix)

    def reading(self, container, key, *, lifetime):
        return f"{self.server.url}/{container}/{key}", {}

    def read_bytes(self, uri, limit):
        return self.server.objects.get("/" + uri.removeprefix("s3://"))

    def put_bytes(self, container, key, data):
        self.puts.append(key)
        self.server.objects[f"/{container}/{key}"] = data

    def put_file(self, container, key, path):
        self.put_bytes(container, key, path.read_bytes())

    def head(self, container, key):
        data = self.server.objects.get(f"/{container}/{key}")
        if data is None:
            return None
        return ObjectEvent(StoreType.S3, "out", container, key, len(data), "", "", datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def store(monkeypatch):
    with running_store() as server:
        made = HttpStore(server)
        for kind in (JobBuilder, ResultStore):
            monkeypatch.setattr(
                kind, "__init__", lambda self: self.__dict__.update(faas_supervisor_image="", _stores=lambda *_: made)
            )
        yield made


@pytest.fixture
def runs(cluster, tmp_path, monkeypatch):
    """A cluster whose pods run at once, for real, when they are created."""

    def create(pod, secret=None):
        made = type(cluster).create_or_adopt_pod(cluster, pod, secret)
        name = pod["metadata"]["name"]
        container = pod["spec"]["containers"][0]
        mount = tmp_path / name
        mount.mkdir()
        for file, content in secret.items():
            (mount / file).write_text(content)
        env = {each["name"]: each["value"] for each in container["env"]}
        argv = [*container["command"], *container["args"]]
        argv = [word.replace("/var/run/secrets/airflow-oscar", str(mount)) for word in argv]
        env |= {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "OSCAR_SUPERVISOR_BACKOFF": "0.01"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        cluster.log = done.stdout + done.stderr
        cluster.put(name, JobPhase.SUCCEEDED if done.returncode == 0 else JobPhase.FAILED, exit_code=done.returncode)
        return made

    monkeypatch.setattr(InterLinkHook, "create_or_adopt_pod", lambda self, pod, secret=None: create(pod, secret))
    return cluster


def task_of(function, *args, decorator=interlink_task, **arguments):
    wanted = {"image": "docker://python:3", "output_uri": OUTPUT, "target": HPC, "deferrable": False}
    wanted |= {"poll_interval": 0.01}
    with DAG("dag", schedule=None) as dag:
        decorator(function, **wanted | arguments)(*args)
    return dag.get_task(function.__name__)


def value_of(function, *args, **arguments):
    found = context(task_id=function.__name__)
    return task_of(function, *args, **arguments).execute(found), found
