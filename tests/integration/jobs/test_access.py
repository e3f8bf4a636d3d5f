# SPDX-License-Identifier: Apache-2.0
"""A job that waits longer than its URLs live gets fresh ones, and so does one that computes longer."""

from __future__ import annotations

import asyncio
import time

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.integration.jobs.conftest import IMAGE
from tests.integration.jobs.test_jobs import run_id
from tests.support.fakes import Store

#: Seconds that URLs live; the job waits twice as long, and computes as long again.
LIFETIME = 8
COMMAND = [
    "python3",
    "-c",
    "import os,shutil,time; time.sleep(16); shutil.copy(os.environ['INPUT_FILE_PATH'], os.environ['TMP_OUTPUT_DIR'])",
]


@pytest.mark.parametrize("deferrable", [False, True])
def test_urls_of_seconds_outlive_a_held_job(request, monkeypatch, node, s3, deferrable):
    monkeypatch.setenv("AIRFLOW__OSCAR__ACCESS_LIFETIME", str(LIFETIME))
    s3.put_bytes("incoming", "letter", b"hello")
    held = SlurmOptions(time="10", extra_flags=("--begin=now+16seconds",))
    task = InterLinkPodOperator(
        task_id="run",
        image=IMAGE,
        command=COMMAND,
        target=PlacementTarget(name="hpc", task_id="x", kind="interlink", node=node, slurm=held),
        object_event=s3.head("incoming", "letter"),
        output_uri="s3://outgoing/late",
        timeout=240,
        poll_interval=0.5,
        deferrable=deferrable,
    )
    state = {**run_id(request), "task_state_store": Store()}
    begun = time.monotonic()
    if deferrable:
        with pytest.raises(TaskDeferred) as deferred:
            task.execute(state)
        place = f"outgoing/late/.airflow-oscar-access/{task._job.job_id}"
        sealed = s3.read_bytes(f"s3://{place}", 100_000)
        assert sealed is not None
        assert b"Signature" not in sealed
        pod = InterLinkHook().core.read_namespaced_pod(task._job.job_id, InterLinkHook().namespace)
        assert "Signature" not in str(pod)
        assert "Signature" not in str(deferred.value.trigger.serialize())
        found = task.execute_complete(state, asyncio.run(deferred.value.trigger.event()))
    else:
        found = task.execute(state)
    assert time.monotonic() - begun > 3 * LIFETIME, "it did not outlive its access, and shows nothing"
    assert s3.read_bytes(found["output_uri"] + "letter", 100) == b"hello"
    assert s3.read_bytes(f"s3://outgoing/late/.airflow-oscar-access/{task._job.job_id}", 100_000) is None
