# SPDX-License-Identifier: Apache-2.0
"""OSCAR services and jobs: the same scenarios on the embedded platform and on OSCAR itself with MinIO.

The service is an interLink one in both: its jobs go through the virtual node to SLURM.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from airflow_provider_oscar.core.errors import JobFailedError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.services import ServiceDefinition, StoragePath
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.sealing import with_key
from airflow_provider_oscar.jobs.signing import configured_signer
from airflow_provider_oscar.jobs.start_script import service_script
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.operators.oscar_service import OscarServiceOperator
from tests.support.fakes import Store
from tests.system.backends import PREFIX, Backend, embedded, live_oscar, real_oscar
from tests.system.scenarios import COPY, HOSTILE_KEY, SLEEP, deferred, make_context, raised_failure, says, until

OPENERS = {"live": live_oscar} if os.environ.get("OSCAR_URL") else {"embedded": embedded, "real": real_oscar}
SERVICE = f"{PREFIX}words"
INCOMING, OUTGOING = f"{PREFIX}incoming", f"{PREFIX}outgoing"


@pytest.fixture(scope="module", params=OPENERS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """One back end for the module."""
    with OPENERS[request.param](tmp_path_factory.mktemp("os")) as backend:
        yield backend


@pytest.fixture
def backend(running: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The back end behind the default connections."""
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    return running


@pytest.fixture
def hook(backend: Backend) -> OscarHook:
    """The provider's hook on OSCAR."""
    return OscarHook()


@pytest.fixture
def s3(backend: Backend) -> OscarS3Hook:
    """The object store, with its buckets."""
    hook = OscarS3Hook()
    present = {each["Name"] for each in hook.client.list_buckets()["Buckets"]}
    for name in {INCOMING, OUTGOING} - present:
        hook.client.create_bucket(Bucket=name)
    return hook


def definition(backend: Backend, name: str = SERVICE) -> ServiceDefinition:
    """An interLink service, where there is a virtual node, that runs this provider's supervisor."""
    return ServiceDefinition(
        name=name,
        image=f"docker://{backend.image}" if backend.node else backend.image,
        script=service_script(),
        cpu="1",
        memory="256Mi",
        interlink_node_name=backend.node,
        annotations=SlurmOptions(time="10", memory_mib=256).to_annotations(),
    )


@pytest.fixture
def task(backend: Backend, s3: OscarS3Hook, hook: OscarHook) -> Callable[..., Any]:
    """Makes operators for the service, which is there."""
    hook.run(hook.apply_service(with_key(definition(backend), configured_signer())))

    def make(**arguments: Any) -> OscarJobOperator:
        defaults = {"task_id": "run", "service": SERVICE, "output_uri": f"s3://{OUTGOING}/results"}
        return OscarJobOperator(**defaults | {"timeout": 300, "poll_interval": 1, "deferrable": False} | arguments)

    return make


def jobs(hook: OscarHook) -> dict[str, Any]:
    """All jobs of the service."""
    return dict(hook.run(hook.list_jobs(SERVICE)))


@pytest.mark.timeout(600)
def test_service_is_created_updated_left_alone_and_deleted(request, backend, hook):
    def run(**arguments: Any) -> str:
        done = OscarServiceOperator(task_id="service", **arguments).execute(make_context(request))
        return str(done[name])

    name = f"{PREFIX}life"
    first = definition(backend, name)
    assert run(definition=first) == "created"
    assert run(definition=first) == "unchanged"
    assert run(definition=replace(first, memory="512Mi", environment={"variables": {"MODE": "b"}})) == "updated"
    found = hook.run(hook.get_service(name))
    assert (found["memory"], found["environment"]["variables"]["MODE"]) == ("512Mi", "b")
    assert run(service=name, action="delete", delete_buckets=True) == "deleted"
    assert hook.run(hook.get_service(name)) is None
    assert run(service=name, action="delete", delete_buckets=True) == "absent"


@pytest.mark.timeout(600)
def test_service_gets_another_bucket_and_goes_with_all_of_them(request, backend, hook, s3):
    def run(**arguments: Any) -> str:
        done = OscarServiceOperator(task_id="service", **arguments).execute(make_context(request))
        return str(done[name])

    def buckets() -> set[str]:
        found = {each["Name"] for each in s3.client.list_buckets()["Buckets"]}
        return found & {shelf, attic, cellar}

    name, shelf, attic, cellar = (f"{PREFIX}{word}" for word in ("shelves", "shelf", "attic", "cellar"))
    store = "minio.default"
    first = replace(
        definition(backend, name),
        inputs=(StoragePath(storage_provider=store, path=f"{shelf}/in"),),
        outputs=(StoragePath(storage_provider=store, path=f"{attic}/out"),),
    )
    assert run(definition=first) == "created"
    # OSCAR answers 500 to this, and does it.
    changed = replace(first, outputs=(*first.outputs, StoragePath(storage_provider=store, path=f"{cellar}/out")))
    assert run(definition=changed) == "updated"
    assert run(definition=changed) == "unchanged"
    assert buckets() == {shelf, attic, cellar}
    # What an update leaves out is lost, its owner for example, without whom OSCAR cannot delete its buckets.
    assert hook.run(hook.get_service(name))["owner"]
    assert run(service=name, action="delete", delete_buckets=True) == "deleted"
    assert buckets() == set()


@pytest.mark.timeout(600)
def test_object_with_a_hostile_name_is_processed_and_proven(request, backend, task, s3):
    s3.put_bytes(INCOMING, HOSTILE_KEY, b"hello")
    letter = s3.head(INCOMING, HOSTILE_KEY)
    found = task(object_event=letter, command=COPY).execute(make_context(request))
    assert (found["exit_code"], found["input"]["uri"]) == (0, letter.uri)
    assert s3.read_bytes(found["output_uri"] + found["outputs"][0]["key"], 100) == b"hello"
    if backend.slurm is not None:
        assert found["slurm_job_id"] in backend.slurm.jobs()


@pytest.mark.timeout(600)
def test_script_that_exits_3_is_a_success_for_oscar_and_a_failure_for_us(request, backend, task, hook):
    before = set(jobs(hook))
    command = ["python3", "-c", "import sys; print('no theta in file'); sys.exit(3)"]
    error = raised_failure(task(command=command), make_context(request))
    assert isinstance(error.__context__, JobFailedError)
    says(error, "exit code 3", "no theta in file")
    (name,) = set(jobs(hook)) - before
    until(lambda: jobs(hook)[name].phase is JobPhase.SUCCEEDED, backend.patience, "OSCAR calls it a success")


@pytest.mark.timeout(600)
def test_second_try_adopts_the_job_shows_its_log_and_a_kill_cancels_it(request, backend, task, hook):
    state = make_context(request, Store())
    before = set(jobs(hook))
    name = deferred(task(command=SLEEP, deferrable=True), state).kwargs["job"]["job_id"]
    second = deferred(task(command=SLEEP, deferrable=True), state)
    assert second.kwargs["job"]["job_id"] == name
    assert set(jobs(hook)) - before == {name}
    assert hook.run(hook.submit_job(SERVICE, b"e30=", name)).adopted
    until(lambda: jobs(hook)[name].phase is JobPhase.RUNNING, backend.patience, "the job runs")
    until(lambda: hook.run(hook.job_log(SERVICE, name)) is not None, backend.patience, "there is a log")
    slurm_jobs = {} if backend.slurm is None else backend.slurm.jobs()
    before_kill = {job_id for job_id, job in slurm_jobs.items() if not job.finished}
    asyncio.run(second.trigger.on_kill())
    until(lambda: name not in jobs(hook), backend.patience, "the job is gone from the list")
    until(
        lambda: all(backend.slurm.jobs()[each].finished for each in before_kill), backend.patience, "SLURM cancelled it"
    )


@pytest.mark.timeout(600)
def test_jobs_of_several_pages_are_all_listed(backend, task, hook):
    task(command=COPY)
    names = {f"page-{number}" for number in range(7)}
    for name in names:
        hook.run(hook.submit_job(SERVICE, b"e30=", name))
    assert names <= set(jobs(hook))
    with hook.client() as client:
        page = client.get(f"{hook.connection.host}/system/logs/{SERVICE}").json()
    if backend.name != "live":  # where we set the size of a page
        assert len(page["jobs"]) <= 5
        assert page["next_page"]
    for name in names:
        assert hook.run(hook.delete_job(SERVICE, name))
    assert not names & set(jobs(hook))
    assert not hook.run(hook.delete_job(SERVICE, "page-0"))
