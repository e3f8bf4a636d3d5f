# SPDX-License-Identifier: Apache-2.0
"""The operator end to end: an object through a pod, a SLURM job and Apptainer to a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from oscar_testbed.fakes.s3 import LocalS3

from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import context
from tests.system.conftest import Site

HOSTILE_KEY = "a b/ü'$(touch x);\n..%2e.txt"
COPY = ["python3", "-c", "import os,shutil; shutil.copy(os.environ['INPUT_FILE_PATH'], os.environ['TMP_OUTPUT_DIR'])"]


@pytest.fixture(scope="module")
def store(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """A real S3 server that jobs on this machine reach."""
    if site.slurm is None:
        pytest.skip("jobs of a live cluster cannot reach a store on this machine")
    store = LocalS3(tmp_path_factory.mktemp("s3"), mode="seaweedfs")
    store.start()
    try:
        for bucket in ("incoming", "outgoing"):
            store.create_bucket(bucket)
        yield store
    finally:
        store.stop()


@pytest.fixture
def s3(store: LocalS3, hook: InterLinkHook, monkeypatch: pytest.MonkeyPatch) -> OscarS3Hook:
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_S3_DEFAULT", json.dumps(store.connection()))
    return OscarS3Hook()


def operator(site: Site, **arguments):
    slurm = SlurmOptions(time="10", memory_mib=256)
    target = PlacementTarget(name="hpc-cpu", task_id="x", kind="interlink", node=site.cpu_node, slurm=slurm)
    defaults: dict[str, Any] = {
        "task_id": "run",
        "image": site.image,
        "output_uri": "s3://outgoing/results",
        "target": target,
    }
    return InterLinkPodOperator(**defaults | {"timeout": 120, "poll_interval": 0.5, "deferrable": False} | arguments)


def test_object_is_processed_once_and_the_manifest_returned(request, site, s3, hook):
    s3.put_bytes("incoming", HOSTILE_KEY, b"hello")
    event = s3.head("incoming", HOSTILE_KEY)
    state = context(partition_key=request.node.name, task_id="run")
    found = operator(site, object_event=event, command=COPY).execute(state)
    assert (found["exit_code"], found["input"]["uri"], found["placement"]) == (0, event.uri, "hpc-cpu")
    (output,) = found["outputs"]
    assert s3.read_bytes(found["output_uri"] + output["key"], 100) == b"hello"
    assert found["slurm_job_id"] == state["ti"].xcoms["slurm_job_id"]
    # What is proven is not done again: the second result is the first one's, down to its SLURM job.
    assert operator(site, object_event=event, command=COPY).execute(state) == found
    with pytest.raises(AirflowFailException, match="exit code 1"):
        operator(site, object_event=event, command=["false"]).execute(state)
    assert hook.list_pods(node=site.cpu_node, label_selector="airflow/task_id=run") == []


def test_failing_command_fails_the_task_with_its_last_words(request, site, s3):
    command = ["python3", "-c", "import sys; print('no theta in file'); sys.exit(3)"]
    state = context(partition_key=request.node.name, task_id="run")
    with pytest.raises(AirflowFailException, match=r"(?s)exit code 3.*no theta in file"):
        operator(site, command=command).execute(state)
