# SPDX-License-Identifier: Apache-2.0
"""What a task says when SLURM keeps accounts, and when it enforces memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from oscar_testbed.real import slurm_memory
from oscar_testbed.real.base import cache_directory
from oscar_testbed.real.slurm_accounting import Account, AccountedSlurm
from oscar_testbed.real.slurm_memory import MemoryBoundSlurm
from oscar_testbed.real.stack import clean_up, only_one
from oscar_testbed.real.undo_log import UndoLog

from airflow_provider_oscar.core.errors import JobFailedError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.pods import PodRequest, build_pod
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from tests.system import scenarios, virtual_nodes
from tests.system.virtual_nodes import VirtualNodes

#: Touches every page of 600 MiB.
_GREEDY = "data = bytearray(b'x') * (600 * 1024 * 1024); print(len(data), flush=True)"
_FORGETS = 2
NODES = {"embedded": virtual_nodes.embedded, "real": virtual_nodes.upstream}


@pytest.fixture(scope="module", params=list(NODES))
def running(request: pytest.FixtureRequest) -> str:
    """Whose virtual nodes make the jobs; the cluster is real."""
    return str(request.param)


@pytest.fixture(scope="module")
def accounted(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccountedSlurm]:
    slurm = AccountedSlurm(tmp_path_factory.mktemp("accounted"), forgets_after=_FORGETS)
    start(slurm)
    yield slurm
    slurm.stop()


@pytest.fixture(scope="module")
def accounted_nodes(accounted, running, tmp_path_factory) -> Iterator[VirtualNodes]:
    with NODES[running](tmp_path_factory.mktemp("nodes"), accounted) as nodes:
        yield nodes


@pytest.fixture
def on_accounted(accounted, accounted_nodes, monkeypatch) -> AccountedSlurm:
    """The cluster with accounts, behind the default connections."""
    for name, value in accounted_nodes.environment().items():
        monkeypatch.setenv(name, value)
    return accounted


def account(slurm: AccountedSlurm, job_id: str, state: str) -> Account:
    """The only record of a job, once it has a state; slurmctld sends them now and then."""

    def found() -> Account | None:
        accounts = slurm.accounts(job_id)
        return accounts[0] if len(accounts) == 1 and accounts[0].state.startswith(state) else None

    return scenarios.until(found, 60, f"sacct has {state} for job {job_id}, not {slurm.accounts(job_id)}")


def test_manifest_and_account_of_a_success_agree(request, on_accounted):
    state = scenarios.make_context(request)
    found = virtual_nodes.job(["true"]).execute(state)
    recorded = account(on_accounted, found["slurm_job_id"], "COMPLETED")
    assert (found["exit_code"], recorded.exit_code) == (0, "0:0")


def test_failure_and_account_have_the_same_exit_code(request, on_accounted):
    state = scenarios.make_context(request)
    failure = scenarios.raised_failure(virtual_nodes.job(["sh", "-c", "echo no theta; exit 42"]), state)
    scenarios.says(failure, "exit code 42", "no theta")
    assert account(on_accounted, state["ti"].xcoms["slurm_job_id"], "FAILED").exit_code == "42:0"


def test_job_of_a_task_that_took_too_long_is_cancelled_in_the_accounts(request, on_accounted, accounted_nodes):
    task = virtual_nodes.job(scenarios.SLEEP, deferrable=True)
    state = scenarios.make_context(request)
    scenarios.deferred(task, state)
    patience = accounted_nodes.patience
    job_id = scenarios.until(
        lambda: task.backend.status(task._job.job_id).slurm_job_id, patience, "the job is in SLURM"
    )
    scenarios.until(lambda: task.backend.status(task._job.job_id).phase is JobPhase.RUNNING, patience, "it runs")
    scenarios.says(
        scenarios.raised_failure(virtual_nodes.job(scenarios.SLEEP, timeout=1), state), "did not end within 1 second"
    )
    account(on_accounted, job_id, "CANCELLED")


def test_exit_code_arrives_although_the_scheduler_has_forgotten_the_job(request, on_accounted, accounted_nodes):
    """The virtual node is away until ``squeue`` knows nothing of the job any more; ``sacct`` still does."""
    nodes = accounted_nodes.embedded
    if nodes is None:
        pytest.skip("interLink's own nodes cannot be sent away for a while: they would be taken out of the cluster")
    state = scenarios.make_context(request)
    task = virtual_nodes.job(["sh", "-c", "sleep 3; exit 42"], deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        task.execute(state)
    pod = task._job.job_id
    job_id = scenarios.until(lambda: task.backend.status(pod).slurm_job_id, 30, "the job is in SLURM")
    nodes.stop()
    try:
        account(on_accounted, job_id, "FAILED")
        scenarios.until(lambda: job_id not in on_accounted.jobs(), 150, "slurmctld forgets the job")
    finally:
        nodes.start()
    event = asyncio.run(anext(deferral.value.trigger.run()))
    with pytest.raises(AirflowFailException, match="exit code 42"):
        task.execute_complete(state, event.payload, **deferral.value.kwargs)
    assert account(on_accounted, job_id, "FAILED").exit_code == "42:0"


@pytest.fixture(scope="module")
def memory_bound(start: Any) -> Iterator[MemoryBoundSlurm]:
    """At one place of its own, so that what a killed test session left is cleaned up by the next."""
    directory = cache_directory() / "slurm-memory"
    with only_one(directory):
        clean_up(directory)
        undo_log = UndoLog(directory)
        slurm = MemoryBoundSlurm(directory / "slurm", undo_log)
        start(slurm)
        try:
            yield slurm
        finally:
            slurm.stop()
            assert undo_log.undo() == []
    assert slurm_memory.groups() == []


@pytest.fixture(scope="module")
def memory_bound_nodes(memory_bound, running, tmp_path_factory) -> Iterator[VirtualNodes]:
    with NODES[running](tmp_path_factory.mktemp("nodes"), memory_bound) as nodes:
        yield nodes


@pytest.fixture
def on_memory_bound(memory_bound, memory_bound_nodes, monkeypatch) -> MemoryBoundSlurm:
    """The cluster with memory limits, behind the default connections."""
    for name, value in memory_bound_nodes.environment().items():
        monkeypatch.setenv(name, value)
    return memory_bound


def test_task_whose_job_took_too_much_memory_says_so(request, on_memory_bound):
    state = scenarios.make_context(request)
    failure = scenarios.raised_failure(virtual_nodes.job(["python3", "-c", _GREEDY], memory_mib=128), state)
    assert isinstance(failure.__context__, JobFailedError)
    scenarios.says(failure, "out-of-memory", "It ran out of memory: raise the memory of the target", "exit code 137")
    assert on_memory_bound.jobs()[state["ti"].xcoms["slurm_job_id"]].state == "OOM"


def test_pod_without_a_supervisor_says_so_as_well(on_memory_bound, memory_bound_nodes):
    hook = InterLinkHook()
    name = f"greedy-{os.getpid()}"
    request = PodRequest(
        name=name,
        namespace=hook.namespace,
        image=virtual_nodes.IMAGE,
        node=virtual_nodes.NODE,
        command=("python3", "-c"),
        args=(_GREEDY,),
        slurm=SlurmOptions(time="5", memory_mib=128),
    )
    hook.create_or_adopt_pod(build_pod(request), None)
    status = scenarios.until(
        lambda: found if (found := hook.read_pod(name)).phase is JobPhase.FAILED else None,
        memory_bound_nodes.patience,
        "the pod failed",
    )
    hook.delete_pod(name)
    assert (status.exit_code, "out-of-memory" in status.reason) == (137, True), status


def test_job_within_its_memory_succeeds_and_its_control_group_goes(request, on_memory_bound):
    found = virtual_nodes.job(["python3", "-c", _GREEDY], memory_mib=800).execute(scenarios.make_context(request))
    assert found["exit_code"] == 0
    name = f"job_{found['slurm_job_id']}"

    def left() -> list[Path]:
        return [path for group in slurm_memory.groups() for path in group.rglob(name)]

    scenarios.until(lambda: not left(), 30, "the control groups of the job are gone")
    assert slurm_memory.groups(), "this cluster's jobs were in control groups"
