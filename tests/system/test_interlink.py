# SPDX-License-Identifier: Apache-2.0
"""Tasks offloaded through interLink to SLURM: the same scenarios on the embedded platform and on interLink itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_oscar.core.errors import JobFailedError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.pods import PodRequest, build_pod
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import Store
from tests.system.backends import IMAGE, Backend, embedded, real_with_store
from tests.system.scenarios import (
    COPY,
    HOSTILE_KEY,
    NASTY,
    SLEEP,
    deferred,
    make_context,
    raised_failure,
    says,
    until,
)

OPENERS = {"embedded": embedded, "real": real_with_store}


@pytest.fixture(scope="module", params=OPENERS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """One back end for the module."""
    with OPENERS[request.param](tmp_path_factory.mktemp("il")) as backend:
        yield backend


@pytest.fixture
def backend(running: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The back end behind the default connections."""
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    return running


@pytest.fixture
def hook(backend: Backend) -> InterLinkHook:
    """The provider's hook on the cluster."""
    return InterLinkHook()


@pytest.fixture
def s3(backend: Backend) -> OscarS3Hook:
    """The object store, with its buckets."""
    hook = OscarS3Hook()
    present = {each["Name"] for each in hook.client.list_buckets()["Buckets"]}
    for name in {"incoming", "outgoing"} - present:
        hook.client.create_bucket(Bucket=name)
    return hook


@pytest.fixture
def task(backend: Backend, s3: OscarS3Hook) -> Callable[..., Any]:
    """Makes operators."""

    def make(slurm: SlurmOptions | None = None, **arguments: Any) -> InterLinkPodOperator:
        options = slurm or SlurmOptions(time="10", memory_mib=256)
        target = PlacementTarget(name="hpc", task_id="x", kind="interlink", node=backend.node, slurm=options)
        defaults = {"task_id": "run", "image": IMAGE, "output_uri": "s3://outgoing/results", "target": target}
        defaults |= {"timeout": 300, "poll_interval": 1, "deferrable": False}
        return InterLinkPodOperator(**defaults | arguments)

    return make


def _job_ended(backend: Backend, job_id: str) -> None:
    until(lambda: backend.slurm.jobs()[job_id].state == "CA", backend.patience, f"SLURM job {job_id} is cancelled")


def _slurm_id(hook: InterLinkHook, backend: Backend, name: str) -> str:
    def found() -> str:
        status = hook.read_pod(name)
        return status.slurm_job_id if status else ""

    return until(found, backend.patience, "the pod names its SLURM job")


def test_object_with_a_hostile_name_is_processed_and_proven(request, backend, task, s3):
    s3.put_bytes("incoming", HOSTILE_KEY, b"hello")
    letter = s3.head("incoming", HOSTILE_KEY)
    state = make_context(request)
    found = task(object_event=letter, command=COPY).execute(state)
    assert (found["exit_code"], found["input"]["uri"]) == (0, letter.uri)
    assert s3.read_bytes(found["output_uri"] + found["outputs"][0]["key"], 100) == b"hello"
    assert found["slurm_job_id"] == state["ti"].xcoms["slurm_job_id"]
    assert found["slurm_job_id"] in backend.slurm.jobs()


def test_exit_code_and_last_words_reach_the_task(request, task):
    command = ["python3", "-c", "import sys; print('no theta in file'); sys.exit(3)"]
    error = raised_failure(task(command=command), make_context(request))
    assert isinstance(error.__context__, JobFailedError)
    says(error, "exit code 3", "no theta in file")


def test_nasty_environment_and_arguments_arrive_byte_for_byte(request, task, s3):
    script = (
        "import os,sys; f=open(os.path.join(os.environ['TMP_OUTPUT_DIR'],'got'),'w',newline='');"
        "f.write(os.environ['VALUE']+'|'+'|'.join(sys.argv[1:]))"
    )
    words = ["", " two  words ", "$(id)", "-n", "a'b\"c"]
    found = task(command=["python3", "-c", script, *words], environment={"VALUE": NASTY}).execute(make_context(request))
    got = s3.read_bytes(found["output_uri"] + "got", 10_000)
    assert got.decode() == NASTY + "|" + "|".join(words)


def test_second_try_adopts_the_running_job_and_a_kill_cancels_it(request, backend, task, hook):
    state = make_context(request, Store())
    first = deferred(task(command=SLEEP, deferrable=True), state)
    name = first.kwargs["job"]["job_id"]
    job_id = _slurm_id(hook, backend, name)
    second = deferred(task(command=SLEEP, deferrable=True), state)
    assert second.kwargs["job"]["job_id"] == name
    assert _slurm_id(hook, backend, name) == job_id
    until(lambda: hook.read_pod(name).phase is JobPhase.RUNNING, backend.patience, "the pod runs")
    asyncio.run(second.trigger.on_kill())
    _job_ended(backend, job_id)
    until(lambda: hook.read_pod(name) is None, backend.patience, "the pod is gone")


def test_job_in_the_queue_is_cancelled(request, backend, task, hook):
    later = SlurmOptions(time="10", memory_mib=64, extra_flags=("--begin=now+1hour",))
    waiting = deferred(task(later, command=SLEEP, deferrable=True), make_context(request, Store()))
    name = waiting.kwargs["job"]["job_id"]
    job_id = _slurm_id(hook, backend, name)
    assert backend.slurm.jobs()[job_id].state == "PD"
    asyncio.run(waiting.trigger.on_kill())
    _job_ended(backend, job_id)


def test_job_cancelled_behind_our_back_in_the_queue_is_no_success(request, backend, task, hook):
    later = SlurmOptions(time="10", memory_mib=64, extra_flags=("--begin=now+1hour",))
    operator = task(later, command=SLEEP, deferrable=True)
    waiting = deferred(operator, make_context(request, Store()))
    name = waiting.kwargs["job"]["job_id"]
    backend.slurm.cancel(_slurm_id(hook, backend, name))
    ended = (JobPhase.SUCCEEDED, JobPhase.FAILED)
    status = until(
        lambda: found if (found := hook.read_pod(name)) and found.phase in ended else None,
        backend.patience,
        "the pod ends",
    )
    # interLink calls it a success; only the missing manifest tells.
    assert status.phase is JobPhase.SUCCEEDED
    assert operator.results.read_manifest("oscar_s3_default", "s3://outgoing/results", name) is None
    hook.delete_pod(name)


def test_refusal_of_sbatch_reaches_the_task(request, task):
    options = SlurmOptions(time="10", memory_mib=64, partition="nope")
    error = raised_failure(task(options, command=COPY), make_context(request))
    says(error, "Invalid partition name")


def test_timeout_of_the_task_cancels_the_job(request, backend, task):
    before = set(backend.slurm.jobs())
    error = raised_failure(task(command=SLEEP, timeout=15), make_context(request))
    says(error, "did not end within 15 seconds and was cancelled")
    (job_id,) = set(backend.slurm.jobs()) - before
    _job_ended(backend, job_id)


def test_log_grows_while_the_job_runs(request, backend, task, hook):
    command = ["python3", "-c", "import time; print('first words', flush=True); time.sleep(600)"]
    running = deferred(task(command=command, deferrable=True), make_context(request, Store()))
    name = running.kwargs["job"]["job_id"]
    until(lambda: "first words" in (hook.read_log(name) or ""), backend.patience, "the log shows")
    log = hook.read_log(name)
    assert "SLURM node" not in log
    hook.delete_pod(name)


def test_pod_whose_secret_is_missing_waits_and_can_be_deleted(backend, hook):
    name = "no-secret"
    request = PodRequest(name=name, namespace=hook.namespace, node=backend.node, image=IMAGE, command=("true",))
    pod = build_pod(request)
    pod["spec"]["volumes"].append({"name": "s", "secret": {"secretName": "never-made", "defaultMode": 0o644}})
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "s", "mountPath": "/s"})
    before = set(backend.slurm.jobs())
    hook.create_or_adopt_pod(pod)
    until(lambda: hook.read_pod(name).raw in ("Pending", "Initializing"), backend.patience, "the pod waits")
    assert set(backend.slurm.jobs()) == before
    hook.delete_pod(name)
    until(lambda: hook.read_pod(name) is None, backend.patience, "the pod is gone")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_time_limit_of_slurm_is_told_apart(request, task):
    error = raised_failure(
        task(SlurmOptions(time="1", memory_mib=64), command=SLEEP, timeout=400), make_context(request)
    )
    says(error, "time limit")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_pods_at_once_all_end_proven(request, backend, task, hook):
    state = Store()
    names = []
    for _ in range(20):
        waiting = deferred(task(command=["true"], deferrable=True, timeout=800), make_context(request, state))
        names.append(waiting.kwargs["job"]["job_id"])
    results = task(command=["true"]).results

    def proven() -> bool:
        found = [results.read_manifest("oscar_s3_default", "s3://outgoing/results", name) for name in names]
        return all(each is not None and each.succeeded for each in found)

    until(proven, 300, "twenty manifests are there")
    ended = (JobPhase.SUCCEEDED, JobPhase.FAILED)
    until(lambda: all(hook.read_pod(name).phase in ended for name in names), 600, "twenty pods have ended")
    assert {hook.read_pod(name).phase for name in names} == {JobPhase.SUCCEEDED}
    for name in names:
        hook.delete_pod(name)
