# SPDX-License-Identifier: Apache-2.0
"""What a job leaves behind on a virtual node: its log always, its pod if that is wanted, a secret never."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.pods import PodRequest, build_pod
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.integration.jobs.conftest import IMAGE
from tests.integration.jobs.test_jobs import deferred, run_id, until
from tests.support.fakes import Store


@pytest.fixture
def hpc(node):
    slurm = SlurmOptions(time="10", memory_mib=256)
    return PlacementTarget(name="hpc-cpu", task_id="x", kind="interlink", node=node, slurm=slurm)


def operator(hpc, script, **arguments):
    common = {"task_id": "run", "output_uri": "s3://outgoing/kept", "timeout": 60, "poll_interval": 0.3}
    given = {"image": IMAGE, "target": hpc, "command": ["sh", "-c", script], "deferrable": False}
    return InterLinkPodOperator(**common | given | arguments)


def names(hook):
    return {pod.name for pod in hook.list_pods()}, {secret.name for secret in hook.list_secrets()}


def test_the_log_of_a_job_that_slurm_killed_is_beside_where_its_manifest_would_be(request, hpc, platform, s3):
    task = operator(hpc, "echo step 1; sleep 120", deferrable=True)
    pause = deferred(task, run_id(request))
    name = pause.kwargs["job"]["job_id"]
    until(lambda: "step 1" in (task.backend.log(name) or ""))
    # Without a word to the supervisor, as a node that is lost does it.
    for process in platform.slurm.jobs().values():
        if not process.finished:
            platform.slurm.cancel(process.job_id)
    until(lambda: task.backend.status(name).phase.ended)
    event = {**task.backend.status(name).to_event().to_dict(), "waited": True}
    with pytest.raises((TransientError, AirflowFailException)):
        task.execute_complete(run_id(request), event=event, **json.loads(json.dumps(pause.kwargs)))
    assert b"step 1" in s3.read_bytes(f"s3://outgoing/kept/{name}/job.log", 1_000_000)
    until(lambda: name not in names(InterLinkHook())[0])


def test_the_log_of_a_job_that_is_cancelled_while_it_is_deferred_is_kept(request, hpc, s3):
    task = operator(hpc, "echo step 1; sleep 120", deferrable=True)
    pause = deferred(task, run_id(request))
    name = pause.trigger.job_id
    until(lambda: "step 1" in (task.backend.log(name) or ""))
    asyncio.run(pause.trigger.on_kill())
    assert b"step 1" in s3.read_bytes(f"s3://outgoing/kept/{name}/job.log", 1_000_000)
    assert task.backend.status(name).phase is JobPhase.ABSENT


@pytest.mark.parametrize(("keep", "script", "kept"), [("always", "true", True), ("on_failure", "exit 3", True)])
def test_a_pod_that_is_kept_has_no_secret_any_more(request, hpc, keep, script, kept):
    task, hook = operator(hpc, script, keep_pod=keep), InterLinkHook()
    if "exit" in script:
        with pytest.raises(AirflowFailException):
            task.execute(run_id(request))
    else:
        task.execute(run_id(request))
    name = task._job.job_id
    pods, secrets = names(hook)
    assert (name in pods, name in secrets) == (kept, False)
    hook.delete_pod(name)


def _killed_between_pod_and_secret(pod):
    hook = InterLinkHook()
    hook.core.create_namespaced_secret = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    hook.create_or_adopt_pod(pod, {"job.json": "{}"})


def test_a_worker_killed_between_pod_and_secret_leaves_nothing_that_is_good_for_anything(platform, node):
    hook = InterLinkHook()
    request = PodRequest(
        name="killed-between",
        namespace=hook.namespace,
        node=node,
        image=IMAGE,
        command=("true",),
        secret_name="killed-between",
    )
    worker = multiprocessing.get_context("spawn").Process(
        target=_killed_between_pod_and_secret, args=(build_pod(request),)
    )
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    pods, secrets = names(hook)
    assert ("killed-between" in pods, "killed-between" in secrets) == (True, False)
    # interLink's node waits for the secret, and the next try brings it.
    assert hook.read_pod("killed-between").phase is JobPhase.PENDING
    assert hook.complete_pod("killed-between", hook.read_pod("killed-between").uid, lambda: {"job.json": "{}"})
    until(lambda: hook.read_pod("killed-between").phase.ended)
    hook.core.delete_namespaced_pod("killed-between", hook.namespace)
    until(lambda: "killed-between" not in names(hook)[1])


def test_a_secret_goes_with_its_pod_whoever_deletes_it(request, hpc):
    pause = deferred(operator(hpc, "sleep 120", deferrable=True), {**run_id(request), "task_state_store": Store()})
    hook, name = InterLinkHook(), pause.trigger.job_id
    assert name in names(hook)[1]
    hook.core.delete_namespaced_pod(name, hook.namespace)
    until(lambda: name not in names(hook)[1])
