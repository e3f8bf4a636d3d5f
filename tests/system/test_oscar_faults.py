# SPDX-License-Identifier: Apache-2.0
"""``OscarJobOperator`` with ``retries=0`` before a real OSCAR that fails all the time, over a MinIO that restarts: each
task has one job, and none gives up. ``OSCAR_SUBMISSIONS=200`` is the long form."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from airflow.sdk import Connection

from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.sealing import with_key
from airflow_provider_oscar.jobs.start_script import service_script
from tests.support.fault_proxy import NAMED, FaultProxy, failing
from tests.support.submitting import Task, restarting, run_all
from tests.system.backends import PREFIX, Backend, Ground, ground_for_oscar, oscar_on

COUNT = int(os.environ.get("OSCAR_SUBMISSIONS", "6"))
SEED = int(os.environ.get("OSCAR_SEED", "1"))
SERVICE, OUTGOING = f"{PREFIX}once", f"{PREFIX}once-out"


@pytest.fixture
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """MinIO over interLink."""
    with ground_for_oscar(tmp_path_factory.mktemp("f")) as ground:
        yield ground


@pytest.fixture
def backend(
    ground: Ground, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Backend]:
    """OSCAR behind the default connections, with a service of the supervisor."""
    with oscar_on(ground, tmp_path_factory.mktemp("o")) as backend:
        for name, value in backend.environment().items():
            monkeypatch.setenv(name, value)
        OscarS3Hook().client.create_bucket(Bucket=OUTGOING)
        definition = ServiceDefinition(
            name=SERVICE,
            image=f"docker://{backend.image}",
            script=service_script(),
            cpu="1",
            memory="256Mi",
            interlink_node_name=backend.node,
            annotations=SlurmOptions(time="10", memory_mib=256).to_annotations(),
        )
        OscarHook().run(OscarHook().apply_service(with_key(definition)))
        yield backend


@pytest.mark.timeout(3600)
def test_each_task_without_retries_has_one_job_and_none_gives_up(backend, ground, monkeypatch):
    fields = dict(backend.connections["oscar_default"])
    direct = OscarHook(connection=Connection(conn_id="direct", **fields))
    proxy = FaultProxy(0.1, seed=SEED)
    tasks = [Task(SERVICE, number, f"s3://{OUTGOING}/once") for number in range(COUNT)]
    with failing(str(fields["host"]), proxy) as url:
        monkeypatch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps(fields | {"host": url}))
        with restarting(ground.minio) as restarts, ThreadPoolExecutor(4) as pool:
            run_all(tasks, pool)
        assert [task.error for task in tasks if task.error] == []
    names = [str(task.manifest["submission_id"]) for task in tasks]
    listed = dict(direct.run(direct.list_jobs(SERVICE)))
    print(f"{COUNT} tasks, {len(listed)} jobs, restarts: {restarts.count}, faults: {dict(proxy.faults)}")
    assert len(set(names)) == COUNT
    assert sorted(listed) == sorted(names), "a job that no task has is an orphan"
    assert JobPhase.FAILED not in {job.phase for job in listed.values()}
    assert {task.manifest["exit_code"] for task in tasks} == {0}
    assert set(NAMED) <= set(proxy.faults)
    assert restarts.count > 0
