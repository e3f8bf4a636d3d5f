# SPDX-License-Identifier: Apache-2.0
"""Pods of this provider on a real API server, scheduler and SLURM, through interLink's nodes."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from oscar_testbed.contract.envelope import encode

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.pods import PodRequest, build_pod
from airflow_provider_oscar.core.podstatus import PodStatus
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.jobs.interlink import InterLinkBackend
from tests.system.conftest import Site

T = TypeVar("T")
_numbers = itertools.count()
#: Factor of every patience, for crowded machines.
_PATIENCE = float(os.environ.get("SYSTEM_PATIENCE", "1"))
_OVER = (JobPhase.SUCCEEDED, JobPhase.FAILED)


class Jobs:
    """Pods of one test; whatever is left of them goes with it."""

    def __init__(self, site: Site, hook: InterLinkHook) -> None:
        self.site = site
        self.hook = hook
        self.names: list[str] = []

    def submit(
        self, script: str = "true", *, node: str = "", secret: dict[str, str] | None = None, **given: Any
    ) -> str:
        name = f"system-{os.getpid()}-{next(_numbers)}"
        slurm = SlurmOptions(**{"time": "5", "memory_mib": 64, **given.pop("slurm", {})})
        defaults: dict[str, Any] = {
            "image": self.site.image,
            "command": ("/bin/sh", "-c"),
            "args": (script,),
            "slurm": slurm,
        }
        request = PodRequest(
            name=name,
            namespace=self.hook.namespace,
            node=node or self.site.cpu_node,
            **defaults | {"secret_name": name if secret else ""} | given,
        )
        self.names.append(name)
        assert self.hook.create_or_adopt_pod(build_pod(request), secret)
        return name

    def until(self, name: str, *phases: JobPhase, seconds: float = 60.0) -> PodStatus:
        return wait(
            lambda: status if (status := self.hook.read_pod(name)) and status.phase in phases else None, seconds
        )

    def over(self, name: str, seconds: float = 60.0) -> PodStatus:
        return self.until(name, *_OVER, seconds=seconds)

    def slurm_state(self, job_id: str) -> str:
        if self.site.slurm is None:
            pytest.skip("only the cluster can be asked here, not its SLURM")
        found = self.site.slurm.jobs().get(job_id)
        return found.state if found else ""


def wait(look: Callable[[], T | None], seconds: float) -> T:
    end = time.monotonic() + seconds * _PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.2)
    return found


@pytest.fixture
def jobs(site: Site, hook: InterLinkHook) -> Iterator[Jobs]:
    jobs = Jobs(site, hook)
    yield jobs
    for name in jobs.names:
        hook.delete_pod(name)


def test_pod_becomes_a_slurm_job_and_succeeds(jobs):
    name = jobs.submit("echo hello from the job")
    status = jobs.over(name)
    assert (status.phase, status.raw, status.node) == (JobPhase.SUCCEEDED, "Succeeded", jobs.site.cpu_node)
    assert jobs.hook.read_log(name).splitlines()[-1] == "hello from the job"
    assert jobs.slurm_state(status.slurm_job_id) == "CD"


def test_exit_code_arrives(jobs):
    status = jobs.over(jobs.submit("echo no theta; exit 42"))
    assert (status.phase, status.exit_code) == (JobPhase.FAILED, 42)


def test_secret_arrives_as_a_file_and_goes_with_the_pod(jobs):
    mounted = '"$CONTAINER_SANDBOX_MOUNT_POINT/var/run/secrets/airflow-oscar/job.json"'
    name = jobs.submit(f"cat {mounted}", secret={"job.json": "{nasty: 'ü'}\n"})
    assert jobs.over(name).phase is JobPhase.SUCCEEDED
    assert "{nasty: 'ü'}" in jobs.hook.read_log(name)
    # Somebody else deletes the pod alone; the real garbage collector takes the secret.
    jobs.hook.core.delete_namespaced_pod(name, jobs.hook.namespace)
    wait(lambda: name not in secret_names(jobs.hook), 30)


def secret_names(hook):
    answer = hook.core.list_namespaced_secret(hook.namespace, _preload_content=False)
    return {item["metadata"]["name"] for item in json.loads(answer.data)["items"]}


def test_missing_secret_keeps_the_pod_waiting_until_it_comes(jobs):
    name = jobs.submit("true", secret_name="comes-late")
    time.sleep(2)
    status = jobs.hook.read_pod(name)
    assert (status.phase, status.slurm_job_id) == (JobPhase.PENDING, "")
    secret = {"metadata": {"name": "comes-late"}, "stringData": {"job.json": "{}"}}
    jobs.hook.core.create_namespaced_secret(jobs.hook.namespace, secret)
    assert jobs.over(name).phase is JobPhase.SUCCEEDED
    jobs.hook.core.delete_namespaced_secret("comes-late", jobs.hook.namespace)


def test_log_is_read_while_the_job_runs(jobs):
    name = jobs.submit("echo one; sleep 60")
    assert jobs.until(name, JobPhase.RUNNING).slurm_job_id.isdigit()
    assert wait(lambda: jobs.hook.read_log(name), 15).splitlines()[-1] == "one"


def test_second_submission_adopts_the_pod(jobs):
    name = jobs.submit("sleep 60")
    request = PodRequest(name=name, namespace=jobs.hook.namespace, node=jobs.site.cpu_node, image=jobs.site.image)
    assert not jobs.hook.create_or_adopt_pod(build_pod(request), None)


def test_deleting_the_pod_cancels_the_running_job(jobs):
    name = jobs.submit("sleep 300")
    job = jobs.until(name, JobPhase.RUNNING).slurm_job_id
    assert jobs.hook.delete_pod(name)
    wait(lambda: jobs.slurm_state(job) == "CA", 30)
    jobs.hook.await_deleted(name, timeout=30)


def test_deleting_the_pod_cancels_the_queued_job(jobs):
    name = jobs.submit("true", slurm={"extra_flags": ("--begin=now+1hour",)})
    job = wait(lambda: jobs.hook.read_pod(name).slurm_job_id, 30)
    assert jobs.slurm_state(job) == "PD"
    assert jobs.hook.read_pod(name).phase is JobPhase.PENDING
    jobs.hook.delete_pod(name)
    wait(lambda: jobs.slurm_state(job) == "CA", 30)


def test_what_sbatch_refuses_fails_with_its_words(jobs):
    status = jobs.over(jobs.submit("true", slurm={"partition": "nope"}))
    assert status.phase is JobPhase.FAILED
    assert "Invalid partition name" in status.reason


@pytest.mark.slow
def test_time_limit_ends_the_job_and_is_told(jobs):
    name = jobs.submit("sleep 300", slurm={"time": timedelta(minutes=1)})
    status = jobs.over(name, seconds=150)
    assert status.phase is JobPhase.FAILED
    assert "time limit" in status.reason
    assert jobs.slurm_state(status.slurm_job_id) == "TO"


def test_gpu_node_gives_a_gpu(jobs):
    if not jobs.site.gpu_node:
        pytest.skip("no GPU node here")
    options = {"gpus": 1, "pre_exec": "export APPTAINERENV_CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES"}
    name = jobs.submit('echo "gpu=$CUDA_VISIBLE_DEVICES"', node=jobs.site.gpu_node, slurm=options)
    assert jobs.over(name).phase is JobPhase.SUCCEEDED
    assert "gpu=0" in jobs.hook.read_log(name)


NASTY: dict[str, str | bytes] = {
    "QUOTES": "a \"b\" 'c' `d` $(e) ${f} \\",
    "LINES": "one\n two\t\r\n\n",
    "DOLLAR": "$(HOME) $$ $HOME",
    "UNICODE": "\N{SNOWMAN} ü \U0001f600",
    "CONTROL": "\x01\x1b[31m\x7f",
    "EMPTY": "",
    "GLOB": "* ? [a-z] ~ ! # & ; | < >",
    "BYTES": b"\xff\xfe\x80",
}


def test_envelope_carries_nasty_values_and_arguments(jobs):
    program = (
        "import os,sys; names=sys.argv[1].split(','); "
        "print('##', [os.environb[n.encode()] for n in names], [os.fsencode(a) for a in sys.argv[2:]])"
    )
    arguments = list(NASTY.values())
    env, command, args = encode(NASTY, ["python3", "-c", program, ",".join(NASTY), *arguments])
    name = jobs.submit(env=env, command=tuple(command), args=tuple(args))
    status = jobs.over(name)
    log = jobs.hook.read_log(name)
    assert status.phase is JobPhase.SUCCEEDED, log
    expected = [value if isinstance(value, bytes) else value.encode() for value in NASTY.values()]
    assert log.splitlines()[-1] == f"## {expected} {expected}"


def test_twenty_pods_at_once_run_once_each(jobs):
    names = [jobs.submit(f"echo number {number}; sleep 1") for number in range(20)]
    # interLink itself takes ten seconds for each.
    found = [jobs.over(name, seconds=300) for name in names]
    assert {status.phase for status in found} == {JobPhase.SUCCEEDED}
    assert len({status.slurm_job_id for status in found}) == 20
    for number, name in enumerate(names):
        assert jobs.hook.read_log(name).splitlines()[-1] == f"number {number}"


def test_quantity_the_api_refuses_is_a_definition_error(jobs):
    pod = build_pod(PodRequest(name="refused", namespace=jobs.hook.namespace, image="x"))
    pod["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "lots"}}
    with pytest.raises(DefinitionError, match="lots|quantities"):
        jobs.hook.create_or_adopt_pod(pod)


def observe(jobs):
    backend = InterLinkBackend(conn_id=jobs.hook.interlink_conn_id, node=jobs.site.cpu_node)
    backend.hook = jobs.hook
    return backend.observe()


def test_nodes_are_ready_and_their_pods_are_counted(jobs):
    assert jobs.hook.node_status(jobs.site.cpu_node) == ""
    assert jobs.hook.node_status("no-such-node") == "there is no node 'no-such-node'"
    before = observe(jobs).active
    name = jobs.submit("sleep 60")
    jobs.until(name, JobPhase.RUNNING)
    observation = observe(jobs)
    assert (observation.up, observation.active) == (True, before + 1)
