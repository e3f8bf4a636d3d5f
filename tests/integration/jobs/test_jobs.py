# SPDX-License-Identifier: Apache-2.0
"""The same work on an OSCAR service and, through interLink, on SLURM: one set of scenarios, two targets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from msgspec.structs import replace

from airflow_provider_oscar.core.errors import BadInputError, JobFailedError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.jobs.interlink import InterLinkBackend
from airflow_provider_oscar.jobs.options import RunOptions
from airflow_provider_oscar.jobs.oscar import OscarBackend
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.integration.conftest import BARE_IMAGE, PYTHON_IMAGE
from tests.integration.jobs.conftest import IMAGE
from tests.support import nasty
from tests.support.fakes import Store, context

HOSTILE_KEY = "a b/ü'$(touch x);\n..%2e.txt"
COPY = ["python3", "-c", "import os,shutil; shutil.copy(os.environ['INPUT_FILE_PATH'], os.environ['TMP_OUTPUT_DIR'])"]
SLEEP = ["python3", "-c", "import time; print('asleep', flush=True); time.sleep(120)"]


@dataclass
class Target:
    """One way to run a command."""

    name: str
    make: Callable[..., Any]
    count: Callable[[], int]

    def operator(self, **arguments: Any) -> Any:
        common = {
            "task_id": f"run-{self.name}",
            "output_uri": "s3://outgoing/results",
            "timeout": 60,
            "poll_interval": 0.3,
            "deferrable": False,
        }
        return self.make(**common | arguments)


@pytest.fixture(params=["oscar", "interlink"])
def target(request, service, node):
    if request.param == "oscar":
        hook = OscarHook()
        return Target(
            "oscar",
            lambda **arguments: OscarJobOperator(service=service, **arguments),
            lambda: len(hook.run(hook.list_jobs(service))),
        )
    slurm = PlacementTarget(
        name="hpc-cpu", task_id="x", kind="interlink", node=node, slurm=SlurmOptions(time="10", memory_mib=256)
    )
    kube = InterLinkHook()
    return Target(
        "interlink",
        lambda **arguments: InterLinkPodOperator(image=IMAGE, target=slurm, **arguments),
        lambda: len(kube.list_pods()),
    )


@pytest.fixture
def letter(s3):
    """An object with a hostile name."""
    s3.put_bytes("incoming", HOSTILE_KEY, b"hello")
    return s3.head("incoming", HOSTILE_KEY)


def run_id(request):
    return context(partition_key=request.node.name, task_id="run")


def deferred(task, state):
    with pytest.raises(TaskDeferred) as raised:
        task.execute(state)
    return raised.value


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)


def test_object_is_processed_and_the_manifest_returned(request, target, letter, s3):
    state = run_id(request)
    found = target.operator(object_event=letter, command=COPY).execute(state)
    assert (found["exit_code"], found["input"]["uri"]) == (0, letter.uri)
    (output,) = found["outputs"]
    assert s3.read_bytes(found["output_uri"] + output["key"], 100) == b"hello"
    if target.name == "interlink":
        assert state["ti"].xcoms["slurm_job_id"].isdigit()
        assert found["placement"] == "hpc-cpu"
    again = target.operator(object_event=letter, command=COPY).execute(state)
    assert again == found, "work that is done is not done again"
    with pytest.raises(AirflowFailException, match="exit code 1"):
        target.operator(object_event=letter, command=["false"]).execute(state)


def test_every_value_of_the_environment_and_of_the_command_arrives_byte_for_byte(request, target, s3):
    task = target.operator(object_event="", command=nasty.COMMAND, environment=nasty.ENVIRONMENT)
    found = task.execute(run_id(request))
    assert s3.read_bytes(found["output_uri"] + "got", 100_000) == nasty.EXPECTED


def test_image_without_python_gets_one_for_the_supervisor(request, node, s3):
    slurm = PlacementTarget(name="hpc-cpu", task_id="x", kind="interlink", node=node)
    task = InterLinkPodOperator(
        task_id="bare",
        image=BARE_IMAGE,
        target=slurm,
        run_options=RunOptions(supervisor_image=PYTHON_IMAGE),
        object_event="",
        command=["/bin/sh", "-c", 'python3 || printf %s "$BROUGHT_ALONG" > "$TMP_OUTPUT_DIR/brought"'],
        output_uri="s3://outgoing/results",
        timeout=120,
        poll_interval=0.3,
        deferrable=False,
    )
    found = task.execute(run_id(request))
    assert s3.read_bytes(found["output_uri"] + "brought", 100) == b"yes"


def test_failed_command_is_explained_with_its_last_words(request, target, letter):
    command = ["python3", "-c", "import sys; print('no theta in file'); sys.exit(3)"]
    with pytest.raises(AirflowFailException) as raised:
        target.operator(object_event=letter, command=command).execute(run_id(request))
    assert isinstance(raised.value.__context__, JobFailedError)
    for part in ("exit code 3", "no theta in file", letter.uri, "_default'"):
        assert part in str(raised.value)


def test_object_that_vanished_is_bad_input(request, target, letter):
    gone = replace(letter, key="never-there.h5")
    with pytest.raises(AirflowFailException) as raised:
        target.operator(object_event=gone, command=COPY).execute(run_id(request))
    assert isinstance(raised.value.__context__, BadInputError)
    assert "never-there.h5" in str(raised.value)


def test_object_that_was_overwritten_meanwhile_is_bad_input(request, target, letter, s3):
    s3.put_bytes("incoming", HOSTILE_KEY, b"something else")
    with pytest.raises(AirflowFailException) as raised:
        target.operator(object_event=letter, command=COPY).execute(run_id(request))
    assert isinstance(raised.value.__context__, BadInputError)


def test_empty_object_is_an_object(request, target, s3):
    s3.put_bytes("incoming", "empty", b"")
    event = s3.head("incoming", "empty")
    found = target.operator(object_event=event, command=COPY).execute(run_id(request))
    assert found["outputs"][0]["size"] == 0


def test_second_try_adopts_the_job_and_a_kill_ends_it(request, target, platform):
    store, before = Store(), target.count()
    state = {**run_id(request), "task_state_store": store}
    first = deferred(target.operator(command=SLEEP, deferrable=True), state)
    job = first.kwargs["job"]["job_id"]
    second = deferred(target.operator(command=SLEEP, deferrable=True), state)
    assert second.kwargs["job"]["job_id"] == job
    assert target.count() == before + 1
    task = target.operator(command=SLEEP)
    until(lambda: task.backend.status(job).phase is JobPhase.RUNNING)
    asyncio.run(second.trigger.on_kill())
    until(lambda: task.backend.status(job).phase is JobPhase.ABSENT)
    if target.name == "interlink":
        until(lambda: all(each.finished for each in platform.slurm.jobs().values()))


def test_timeout_cancels_the_job(request, target):
    task = target.operator(command=SLEEP, timeout=4)
    with pytest.raises(AirflowFailException, match="did not end within 4 seconds and was cancelled"):
        task.execute(run_id(request))
    until(lambda: task.backend.status(task._job.job_id).phase is JobPhase.ABSENT)


def test_places_can_be_observed(service, node):
    assert OscarBackend(conn_id="oscar_default", service=service).observe().up
    assert InterLinkBackend(conn_id="interlink_default", node=node).observe().up
    assert not OscarBackend(conn_id="oscar_default", service="no-such-service").observe().up


def test_all_objects_below_a_prefix_are_inputs(request, target, s3):
    for name in ("a.txt", "deep/b.txt", "deep/er/c.txt"):
        s3.put_bytes("incoming", f"set/{name}", name.encode())
    command = ["sh", "-c", 'cd "$INPUT_FILE_PATH"; find . -type f | sort > "$TMP_OUTPUT_DIR/found"']
    task = target.operator(inputs=["s3://incoming/set/"], object_event="", command=command)
    found = task.execute(run_id(request))
    assert s3.read_bytes(found["output_uri"] + "found", 1000) == b"./a.txt\n./deep/b.txt\n./deep/er/c.txt\n"
    with pytest.raises(AirflowFailException, match="no object below"):
        target.operator(inputs="s3://incoming/nothing/", object_event="", command=command).execute(run_id(request))
