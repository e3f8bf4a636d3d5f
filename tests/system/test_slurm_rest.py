# SPDX-License-Identifier: Apache-2.0
"""SLURM's own REST API as the provider asks it: what became of a job, how long the queue is, and an end to a job."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection
from oscar_testbed.process import LOOPBACK
from oscar_testbed.real.slurm_rest import RestSlurm

from airflow_provider_oscar.core.cancellation import ended
from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.orphans import SlurmJob
from airflow_provider_oscar.hooks.slurm import SlurmHook
from tests.system import scenarios

#: Outlives a signal, so that SLURM completes the job for as long as KillWait says.
STUBBORN = "trap '' TERM; for i in $(seq 300); do sleep 0.2; done"
SLEEP = "sleep 300"


@pytest.fixture(scope="module")
def slurm(start: Callable[[Any], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestSlurm]:
    slurm = RestSlurm(tmp_path_factory.mktemp("rest"))
    start(slurm)
    yield slurm
    slurm.stop()


def hook_with(slurm: RestSlurm, token: str) -> SlurmHook:
    login = {"host": LOOPBACK, "port": slurm.port, "login": getpass.getuser(), "password": token}
    return SlurmHook(connection=Connection(conn_id="slurm_default", conn_type="http", **login))


@pytest.fixture
def hook(slurm: RestSlurm) -> SlurmHook:
    return hook_with(slurm, slurm.token())


@pytest.fixture
def submit(slurm: RestSlurm, tmp_path: Path) -> Iterator[Callable[..., str]]:
    made: list[str] = []

    def submit(command: str, *flags: str) -> str:
        script = tmp_path / f"job-{len(made)}.sh"
        lines = "".join(f"#SBATCH {flag}\n" for flag in ("--output=/dev/null", *flags))
        script.write_text(f"#!/bin/bash\n{lines}{command}\n")
        made.append(slurm.submit(script))
        return made[-1]

    yield submit
    for job_id in made:
        slurm.cancel(job_id)


def when(hook: SlurmHook, job_id: str, state: str) -> SlurmJob:
    """The job, once SLURM's API has it in a state."""

    def found() -> SlurmJob | None:
        job = hook.job(job_id)
        return job if job is not None and job.state == state else None

    return scenarios.until(found, 30, f"job {job_id} is {state}, not {hook.job(job_id)}")


def test_the_newest_version_that_is_offered_is_used_and_test_says_so(hook):
    assert hook.version.startswith("v0.0.")
    assert hook.test_connection() == (True, f"slurmrestd answers ({hook.version}) and shows {len(hook.jobs())} job(s)")


def test_a_running_job_is_read_with_what_it_was_submitted_with(hook, submit):
    began = time.time()
    job_id = submit(SLEEP, "--job-name=dag.task", "--comment=dag=d", "--partition=gpu")
    job = when(hook, job_id, "RUNNING")
    assert (job.name, job.comment, job.partition, job.reason) == ("dag.task", "dag=d", "gpu", "")
    for at in (job.submitted_at, job.starts_at):
        assert at is not None
        assert abs(at.timestamp() - began) < 60
    assert job in hook.jobs()


@pytest.mark.parametrize(("flag", "reason"), [("--hold", "JobHeldUser"), ("--begin=now+1hour", "BeginTime")])
def test_why_a_job_waits_is_read(hook, submit, flag, reason):
    job_id = submit(SLEEP, flag)
    job = when(hook, job_id, "PENDING")
    assert job.reason == reason
    assert not ended(job.state)


def test_the_queue_has_what_waits_and_what_runs(hook, submit):
    running = submit(SLEEP, "--partition=gpu", "--exclusive", "--time=10")
    when(hook, running, "RUNNING")
    waiting = submit(SLEEP, "--partition=gpu", "--time=10")
    submit(SLEEP, "--partition=gpu", "--hold")
    scenarios.until(lambda: hook.job(waiting).starts_at, 90, "SLURM estimates when it starts")
    queue = hook.queue("gpu")
    assert (queue.waiting, queue.running) == (1, 1)
    assert 0 < queue.start_in <= 660


def test_a_cancelled_job_has_ended_only_when_it_holds_no_node(slurm, hook, submit):
    """Later releases call it CANCELLED and COMPLETING at once, from the first moment on."""
    job_id = submit(STUBBORN)
    when(hook, job_id, "RUNNING")
    hook.cancel(job_id)
    said = []
    while not ended(state := hook.job(job_id).state):
        said.append(state)
        time.sleep(0.1)
    assert set(said) <= {"RUNNING", "COMPLETING"}
    assert "COMPLETING" in said
    assert state == "CANCELLED"
    assert slurm.jobs()[job_id].finished


def test_a_job_that_failed_has_ended(hook, submit):
    job_id = submit("exit 7")
    assert ended(when(hook, job_id, "FAILED").state)


def test_a_job_that_slurm_does_not_know_is_none_and_its_cancellation_no_error(hook):
    assert hook.job("99999") is None
    hook.cancel("99999")


def test_a_token_that_is_wrong_or_has_expired_is_named(slurm):
    short = slurm.token(1)
    scenarios.until(lambda: not hook_with(slurm, short).test_connection()[0], 30, "the token expires")
    for token in ("", "nonsense", short):
        with pytest.raises(TransientError, match="tokens of 'scontrol token' live half an hour"):
            hook_with(slurm, token).jobs()
