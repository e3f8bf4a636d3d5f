# SPDX-License-Identifier: Apache-2.0
"""The KubernetesPodOperator as it is and ours, on the same virtual node: what differs, and what does not.

docs/kubernetes-pod-operator.md has one line per test here.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.secret import Secret
from airflow.sdk.exceptions import AirflowException, TaskDeferred
from oscar_testbed.fakes.s3 import LocalS3
from oscar_testbed.real.stack import default_directory

from airflow_provider_oscar.core.errors import LostContactError
from airflow_provider_oscar.core.pods import VIRTUAL_NODE_TAINT
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.jobs.poller import PollTiming
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import Store
from tests.system.conftest import Site
from tests.system.scenarios import make_context, raised_failure, says, until

LATER = "--begin=now+1hour"
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed task is a process that is gone; here it is a thread that has to come to an end by itself."""
    monkeypatch.setattr(JobOperator, "manifest_grace", timedelta(seconds=3))
    monkeypatch.setattr(JobOperator, "pace", PollTiming(absence_grace=3.0))


@pytest.fixture
def slurm(site: Site) -> Any:
    if site.slurm is None:
        pytest.skip("this looks into SLURM, which a live cluster does not let us")
    return site.slurm


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    store = LocalS3(tmp_path_factory.mktemp("s3"), mode="seaweedfs")
    store.start()
    store.create_bucket("outgoing")
    yield store
    store.stop()


@pytest.fixture
def connections(site: Site, slurm: Any, hook: InterLinkHook, store: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cluster behind a connection for either operator."""
    extra = {"kube_config": json.dumps(site.kubeconfig), "namespace": hook.namespace}
    extra["xcom_sidecar_container_image"] = site.image
    connection = {"conn_type": "kubernetes", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_S3_DEFAULT", json.dumps(store.connection()))


@pytest.fixture
def theirs(site: Site, connections: None, hook: InterLinkHook) -> Iterator[Any]:
    """Makes a KubernetesPodOperator with what a virtual node needs and nothing else; its pods go with the test."""
    from kubernetes.client import models

    label = f"{os.getpid()}-{next(_numbers)}"

    def make(script: str, **given: Any) -> KubernetesPodOperator:
        arguments: dict[str, Any] = {
            "task_id": "theirs",
            "name": "theirs",
            "namespace": hook.namespace,
            "kubernetes_conn_id": "kubernetes_default",
            "image": site.image,
            "cmds": ["/bin/sh", "-c"],
            "arguments": [script],
            "labels": {"of-test": label},
            "node_selector": {"kubernetes.io/hostname": site.cpu_node},
            "tolerations": [models.V1Toleration(key=VIRTUAL_NODE_TAINT, operator="Exists")],
        }
        return KubernetesPodOperator(**arguments | given)

    yield make
    hook.core.delete_collection_namespaced_pod(hook.namespace, label_selector=f"of-test={label}")


@pytest.fixture
def ours(site: Site, connections: None, hook: InterLinkHook) -> Iterator[Any]:
    """Makes an operator of this provider for the same node and image; its pods go with the test."""

    def make(script: str, flags: tuple[str, ...] = (), **given: Any) -> InterLinkPodOperator:
        slurm = SlurmOptions(time="10", memory_mib=256, extra_flags=flags)
        target = PlacementTarget(name="hpc-cpu", task_id="x", kind="interlink", node=site.cpu_node, slurm=slurm)
        arguments: dict[str, Any] = {"task_id": "ours", "image": site.image, "output_uri": "s3://outgoing/results"}
        arguments |= {"target": target, "timeout": 120, "poll_interval": 0.5, "deferrable": False}
        return InterLinkPodOperator(command=["/bin/sh", "-c", script], **arguments | given)

    yield make
    hook.core.delete_collection_namespaced_pod(hook.namespace, label_selector="airflow/task_id=run")


def run_of(request: pytest.FixtureRequest, *, store: Store | None = None, try_number: int = 1) -> Any:
    """A task's run as either operator wants to see it."""
    state = make_context(request, store)
    state["dag"] = SimpleNamespace()
    state["run_id"] = state["partition_key"][:60]
    vars(state["ti"]).update(try_number=try_number, run_id=state["run_id"], start_date=datetime.now(UTC))
    return state


def started(task: Any, state: Any) -> Future[Any]:
    """Run a task in a thread, as a worker does in a process, so that the test can do something meanwhile.

    Nobody waits for a killed task: theirs goes on asking for the pod for minutes.
    """
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(task.execute(state))
        except BaseException as error:  # noqa: BLE001 - it is the test's to judge
            outcome.set_exception(error)

    threading.Thread(target=run, name=f"task-{task.task_id}", daemon=True).start()
    return outcome


def new_job(slurm: Any, before: set[str]) -> str:
    """Id of the only job since then."""
    (found,) = until(lambda: set(slurm.jobs()) - before, 60, "there is a job")
    return str(found)


def job_directories() -> list[Path]:
    """Where the virtual nodes keep what the HPC side is given."""
    return [path.parent for path in (default_directory() / "interlink").rglob("JobID.jid")]


def files_with(word: str) -> list[str]:
    """Names of files on the HPC side in which a word can be read."""
    found = []
    for directory in job_directories():
        for path in directory.rglob("*"):
            if path.is_file() and word.encode() in path.read_bytes():
                found.append(path.name)
    return found


# What is the same with both.


def test_success_and_log_are_told_by_both(request, theirs, ours, caplog, capsys):
    theirs("echo hello from the job").execute(run_of(request))
    assert "hello from the job" in capsys.readouterr().out + caplog.text
    ours("echo hello from the job").execute(run_of(request))
    assert "hello from the job" in capsys.readouterr().out + caplog.text


def test_failure_fails_the_task_with_both_and_only_ours_says_the_code_and_the_last_words(request, theirs, ours):
    with pytest.raises(AirflowException) as raised:
        theirs("echo no theta; exit 42", log_pod_spec_on_failure=False).execute(run_of(request))
    assert "42" not in str(raised.value)
    assert "no theta" not in str(raised.value)
    says(raised_failure(ours("echo no theta; exit 42"), run_of(request)), "exit code 42", "no theta")


@pytest.mark.parametrize("operator", ["theirs", "ours"])
def test_killing_the_task_cancels_the_job_with_both(request, operator, slurm):
    before = set(slurm.jobs())
    task = request.getfixturevalue(operator)("echo started; sleep 600")
    started(task, run_of(request))
    job_id = new_job(slurm, before)
    until(lambda: slurm.jobs()[job_id].state == "R", 60, "the job runs")
    task.on_kill()
    until(lambda: slurm.jobs()[job_id].state == "CA", 60, "the job is cancelled")


# What differs.


def test_time_in_slurms_queue_fails_theirs_and_ours_waits(request, theirs, ours, slurm):
    """Theirs counts the queue as start-up, 120 seconds by default; shortened here, and the job held as long."""
    flags = {"slurm-job.vk.io/flags": "--begin=now+20"}
    before = set(slurm.jobs())
    with pytest.raises(AirflowException) as raised:
        theirs("true", annotations=flags, startup_timeout_seconds=5).execute(run_of(request))
    assert "took too long to start" in str(raised.value.__context__)
    until(lambda: slurm.jobs()[new_job(slurm, before)].state == "CA", 60, "the queued job is cancelled")
    assert ours("true", ("--begin=now+20",)).execute(run_of(request))["exit_code"] == 0


def test_job_cancelled_in_the_queue_is_a_success_to_theirs_and_not_proven_to_ours(request, theirs, ours, slurm):
    before = set(slurm.jobs())
    # Without its log, which it waits for on interLink's own node: there will be none.
    task = theirs("echo never", annotations={"slurm-job.vk.io/flags": LATER}, get_logs=False)
    running = started(task, run_of(request))
    job_id = new_job(slurm, before)
    slurm.cancel(job_id)
    assert running.exception(timeout=120) is None
    before = set(slurm.jobs())
    running = started(ours("echo never", (LATER,)), run_of(request))
    slurm.cancel(new_job(slurm, before))
    error = running.exception(timeout=120)
    assert isinstance(error, LostContactError), error
    says(error, "no manifest came", "not proven")


def test_retry_after_a_success_that_was_not_recorded_runs_theirs_again_and_ours_not(request, theirs, ours, slurm):
    """The worker died between the end of the job and the report of it; Airflow tries again."""
    before = set(slurm.jobs())
    state = run_of(request, store=Store())
    with pytest.raises(TaskDeferred):
        theirs("echo once", deferrable=True).execute(state)
    first = new_job(slurm, before)
    until(lambda: slurm.jobs()[first].finished, 60, "the job ended")
    until(lambda: state_of_pod(request, state) in ("Succeeded", "Failed"), 60, "its pod ended")
    again = {**state}
    vars(again["ti"]).update(try_number=2)
    theirs("echo once").execute(again)
    assert len(set(slurm.jobs()) - before) == 2

    before = set(slurm.jobs())
    state = run_of(request, store=Store())
    task = ours("echo once", deferrable=True)
    with pytest.raises(TaskDeferred):
        task.execute(state)
    first = new_job(slurm, before)
    until(lambda: slurm.jobs()[first].finished, 60, "the job ended")
    assert ours("echo once").execute(state)["slurm_job_id"] == first
    assert set(slurm.jobs()) - before == {first}


def state_of_pod(request: pytest.FixtureRequest, state: Any) -> str:
    hook: InterLinkHook = request.getfixturevalue("hook")
    pod = hook.core.read_namespaced_pod(state["ti"].xcoms["pod_name"], hook.namespace)
    return str(pod.status.phase)


def test_result_of_the_job_arrives_with_ours_and_keeps_their_job_running(request, theirs, ours, slurm, hook):
    """Theirs adds a container that waits to be asked for the result, by means a virtual node does not have."""
    before = set(slurm.jobs())
    task = theirs("mkdir -p /airflow/xcom; echo 5 > /airflow/xcom/return.json; echo written", do_xcom_push=True)
    state = run_of(request)
    running = started(task, state)
    job_id = new_job(slurm, before)
    pod = until(lambda: state["ti"].xcoms.get("pod_name"), 60, "the task names its pod")

    def log() -> str:
        return str(hook.core.read_namespaced_pod_log(pod, hook.namespace, container="base"))

    until(lambda: slurm.jobs()[job_id].state == "R" and "written" in log(), 60, "the command ended")
    with pytest.raises(TimeoutError):
        running.result(timeout=20)
    assert slurm.jobs()[job_id].state == "R"
    task.on_kill()
    found = ours("echo 5 > $TMP_OUTPUT_DIR/result").execute(run_of(request))
    assert [output["key"] for output in found["outputs"]] == ["result"]


def test_key_of_the_store_is_on_the_hpc_side_with_theirs_and_not_with_ours(request, theirs, ours, slurm, hook, store):
    """Both read and write the same store; theirs needs its key for that, here from a Kubernetes secret."""
    name = f"store-{os.getpid()}-{next(_numbers)}"
    secret = {"metadata": {"name": name}, "stringData": {"key": store.secret_key}}
    hook.core.create_namespaced_secret(hook.namespace, secret)
    before = set(slurm.jobs())
    task = theirs("echo ready; sleep 600", secrets=[Secret("env", "SECRET_KEY", name, "key")])
    started(task, run_of(request))
    try:
        job_id = new_job(slurm, before)
        until(lambda: slurm.jobs()[job_id].state == "R", 60, "the job runs")
        assert files_with(store.secret_key)
    finally:
        task.on_kill()
        hook.core.delete_namespaced_secret(name, hook.namespace)
    until(lambda: not files_with(store.secret_key), 60, "the directory of the job is gone")

    before = set(slurm.jobs())
    task = ours("echo ready; sleep 600")
    started(task, run_of(request))
    try:
        job_id = new_job(slurm, before)
        until(lambda: slurm.jobs()[job_id].state == "R", 60, "the job runs")
        assert job_directories()
        assert files_with(store.secret_key) == []
        assert "job.json" in files_with("X-Amz-Signature".casefold()) + files_with("x-amz-signature")
    finally:
        task.on_kill()


def test_token_of_the_cluster_is_in_the_arguments_of_their_trigger_and_not_of_ours(request, site, theirs, ours, slurm):
    token = site.kubeconfig["users"][0]["user"]["token"]
    found = {}
    before = set(slurm.jobs())
    for name, task in {"theirs": theirs("true", deferrable=True), "ours": ours("true", deferrable=True)}.items():
        with pytest.raises(TaskDeferred) as deferred:
            task.execute(run_of(request, store=Store()))
        found[name] = token in json.dumps(deferred.value.trigger.serialize()[1], default=str)
    assert found == {"theirs": True, "ours": False}
    until(lambda: len(set(slurm.jobs()) - before) == 2, 60, "both jobs are there, and not another test's")


def test_memory_is_asked_for_by_ours_and_not_by_theirs(request, theirs, ours, slurm):
    asked = {}
    for name, task in {"theirs": theirs("sleep 600"), "ours": ours("sleep 600")}.items():
        before = set(slurm.jobs())
        started(task, run_of(request))
        job_id = new_job(slurm, before)
        until(lambda job_id=job_id: slurm.jobs()[job_id].state == "R", 60, "the job runs")
        (directory,) = [path for path in job_directories() if (path / "JobID.jid").read_text() == job_id]
        script = directory / "job.slurm"
        asked[name] = [line for line in script.read_text().splitlines() if "--mem" in line]
        task.on_kill()
    assert asked == {"theirs": ["#SBATCH --mem=1"], "ours": ["#SBATCH --mem=256"]}
