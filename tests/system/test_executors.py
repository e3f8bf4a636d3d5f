# SPDX-License-Identifier: Apache-2.0
"""The use case's DAGs under the two executors users turn to when one machine is not enough.

Airflow runs in parts over PostgreSQL, its tasks where the executor puts them; the outside systems are the embedded
platform. A file is dropped, and its run has to be proven by a manifest in the store.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from oscar_testbed import LocalPlatform
from oscar_testbed.demo import scenario
from oscar_testbed.demo.results import Row, make_row
from oscar_testbed.demo.runner import example_dags
from oscar_testbed.files import write_private
from oscar_testbed.process import wait_until
from oscar_testbed.real import environments, worker_pods
from oscar_testbed.real.airflow import CELERY_WORKER, PARTS, AirflowInParts
from oscar_testbed.real.kubelet import NODE, Containerd
from oscar_testbed.real.postgres import PostgreSQL
from oscar_testbed.real.redis import Redis
from oscar_testbed.real.stack import default_directory
from oscar_testbed.real.undo_log import UndoLog

from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.storage import storage_hook
from tests.system.conftest import Site

SMALL_IN_S3 = scenario.Drop("s3", "run 7/photons (theta=90).h5", 2)
SMALL_IN_DCACHE = scenario.Drop("dcache", "beam-0001.h5", 2)
_SECONDS = 600.0
_STORES = {"s3": "oscar_s3_default", "dcache": "dcache_default"}


class CommandLines:
    """Looks at the command lines of all processes, over and over, for words nobody may read there."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self.seen: set[str] = set()
        self._secrets = [secret.encode() for secret in secrets if len(secret) >= 8]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, name="command-lines", daemon=True)

    def __enter__(self) -> CommandLines:
        assert self._secrets
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopping.wait(0.2):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    words = path.read_bytes()
                    if any(secret in words for secret in self._secrets):
                        self.seen.add(words.replace(b"\0", b" ")[:80].decode(errors="replace"))


def secrets_of(platform: LocalPlatform, settings: Mapping[str, str]) -> list[str]:
    """Everything that must not be seen: what is secret in the connections, and whole addresses with a login."""
    passwords = [
        str(connection["password"]) for connection in platform.connections.values() if "password" in connection
    ]
    return [*passwords, platform.kubernetes.token, *settings.values()]


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPlatform]:
    """The embedded platform with the payload's image, behind the default connections of this process too."""
    images = {scenario.IMAGE: scenario.image(tmp_path / "image-cache")}
    with LocalPlatform(tmp_path / "platform", images=images) as platform:
        for name, value in platform.environment().items():
            monkeypatch.setenv(name, value)
        scenario.prepare_stores(platform.s3)
        yield platform


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    """A folder that gets the use case once Airflow is up."""
    folder = tmp_path / "dags"
    folder.mkdir()
    return folder


@pytest.fixture
def database(start: Any, tmp_path: Path) -> Iterator[PostgreSQL]:
    database = PostgreSQL(tmp_path / "postgres.log")
    start(database)
    yield database
    database.stop()


@pytest.fixture(scope="module")
def python() -> Path:
    return environments.executors()


def play(airflow: AirflowInParts, platform: LocalPlatform, drops: Sequence[scenario.Drop], directory: Path) -> None:
    """Start Airflow, drop the files, wait for their runs, and compare what was processed with what was dropped."""
    files = scenario.write_input(directory / "input", drops)
    airflow.launch()
    airflow.await_healthy()
    for path in sorted(example_dags().glob("threedgan_*")):
        (airflow.dags / path.name).symlink_to(path)
    deadline = time.monotonic() + _SECONDS
    dag_ids = (scenario.INFERENCE_DAG, scenario.SERVICE_DAG)
    scenario.wait_for_dags(airflow, dag_ids, deadline=deadline)
    scenario.wait_for_service(airflow, deadline=deadline)
    uris = scenario.upload(platform.s3, files)
    runs = scenario.wait_for_runs(airflow, len(uris), patience=_SECONDS, say=lambda _: None)
    rows = [proven(airflow, run) for run in runs]
    assert {(row.object, row.result) for row in rows} == {(uri, "success") for uri in uris}
    assert len(rows) == len(uris)


def proven(airflow: AirflowInParts, run: dict[str, object]) -> Row:
    """A run as its manifest and its outputs in the store show it."""

    def read(uri: str, limit: int) -> bytes | None:
        hook = storage_hook(uri, conn_id=_STORES[uri.partition(":")[0]])
        try:
            return hook.read_bytes(uri, limit)
        finally:
            hook.close()

    return make_row(scenario.get_run_facts(airflow, run, ""), read)


#: Tasks that ended well, and their runs; each had an executor run it.
_ENDED = (
    "SELECT dag_id, run_id, task_id, external_executor_id FROM task_instance "
    "WHERE state = 'success' AND dag_id = 'threedgan_inference'"
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_files_are_processed_under_celery(platform, dags, database, python, start, tmp_path):
    redis = Redis(tmp_path / "redis")
    start(redis)
    settings = {
        "AIRFLOW__CELERY__BROKER_URL": redis.url,
        "AIRFLOW__CELERY__RESULT_BACKEND": database.url("db+postgresql"),
    }
    airflow = AirflowInParts(
        tmp_path / "airflow",
        dags=dags,
        python=python,
        database=database,
        parts={**PARTS, **CELERY_WORKER},
        environment={
            **platform.environment(),
            **scenario.environment(),
            **settings,
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        },
    )
    secrets = [redis.password, database.password, *secrets_of(platform, settings)]
    try:
        with CommandLines(secrets) as command_lines:
            play(airflow, platform, [SMALL_IN_S3, SMALL_IN_DCACHE], tmp_path)
        ended = airflow.query(_ENDED)
        tasks = {task[3] for task in ended}

        def told() -> bool:
            finished = airflow.query("SELECT task_id FROM celery_taskmeta WHERE status = 'SUCCESS'")
            return tasks <= {task for (task,) in finished}

        # A worker writes its result down after the task has told Airflow its own.
        wait_until(told, what="Celery has the results of all tasks", timeout=120)
    finally:
        airflow.stop()
        redis.stop()
    assert len(ended) == 2 * len(["choose", "a target", "result"])
    assert command_lines.seen == set()


@pytest.fixture
def cluster(site: Site, hook: InterLinkHook, tmp_path: Path) -> Iterator[InterLinkHook]:
    """A hook on a cluster whose node can run worker pods; they are gone afterwards."""
    nodes = [node.metadata.name for node in hook.core.list_node().items]
    if site.slurm is None or NODE not in nodes:
        pytest.skip(f"worker pods need the stack's own node {NODE!r}, which is not there (nodes: {', '.join(nodes)})")
    directory = default_directory()
    worker_pods.load_image(Containerd(directory / "containerd", UndoLog(directory)), tmp_path)
    yield hook
    worker_pods.remove_pods(hook.core, hook.namespace)
    worker_pods.remove_environment(hook.core, hook.namespace)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_file_is_processed_under_kubernetes(cluster, site, platform, dags, database, python, tmp_path):
    kubeconfig, template = tmp_path / "kubeconfig.json", tmp_path / "worker.json"
    write_private(kubeconfig, json.dumps(site.kubeconfig))
    worker_pods.write_template(template)
    airflow = AirflowInParts(
        tmp_path / "airflow",
        dags=dags,
        python=python,
        database=database,
        parts=PARTS,
        environment={
            **platform.environment(),
            **scenario.environment(),
            **worker_pods.settings(template, kubeconfig, cluster.namespace),
        },
    )
    worker_pods.put_environment(cluster.core, cluster.namespace, airflow.environment())
    secrets = [database.password, *secrets_of(platform, {})]
    try:
        with CommandLines(secrets) as command_lines:
            play(airflow, platform, [SMALL_IN_S3], tmp_path)
        ended = airflow.query(_ENDED)
    finally:
        airflow.stop()
    pods = worker_pods.pods(cluster.core, cluster.namespace)
    assert sorted(task[2] for task in ended) == ["infer.choose", "infer.cloud_cpu", "infer.result"]
    ran = {(pod.metadata.annotations["run_id"], pod.metadata.annotations["task_id"]) for pod in pods}
    assert {(run_id, task_id) for _, run_id, task_id, _ in ended} <= ran
    assert {pod.spec.node_name for pod in pods} == {NODE}
    text = json.dumps([pod.to_dict() for pod in pods], default=str)
    assert [secret for secret in secrets if secret in text] == []
    assert command_lines.seen == set()


def test_the_look_out_for_secrets_sees_arguments_and_no_variables():
    word = "visible-to-everybody"
    with CommandLines([word]) as command_lines:
        subprocess.run(["sleep", "1"], check=True, env={"WORD": word, "PATH": os.environ["PATH"]})
        subprocess.run(["sh", "-c", "sleep 1; :", word], check=True)
    assert command_lines.seen == {f"sh -c sleep 1; : {word} "}
