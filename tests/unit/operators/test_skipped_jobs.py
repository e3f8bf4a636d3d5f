# SPDX-License-Identifier: Apache-2.0
"""A command that says by its exit code that there was nothing to do skips its task, wherever it runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.manifest import Failure
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.interlink_batch import InterLinkBatchOperator
from airflow_provider_oscar.operators.job_arguments import checked_exit_codes
from airflow_provider_oscar.operators.kubernetes import KubernetesJobOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import EVENT, OUTPUT, Store, context, manifest
from tests.support.operators import oscar_operator

pytestmark = pytest.mark.usefixtures("supervisor")

HPC = PlacementTarget(name="hpc", kind="interlink", node="leonardo")
POD = {"task_id": "infer", "image": "i", "command": ["x"], "object_event": EVENT, "output_uri": OUTPUT}


def cloud(**arguments):
    return oscar_operator(**{"skip_on_exit_code": 99} | arguments)


def deferred(task, seen):
    with pytest.raises(TaskDeferred) as raised:
        task.execute(seen)
    return raised.value


def resumed(task, seen, pause):
    event = {"status": "ended", "phase": "failed", "ended_at": datetime.now(UTC).isoformat()}
    return task.execute_complete(seen, event=event, **json.loads(json.dumps(pause.kwargs)))


def failed(oscar, supervisor, code=99, **fields):
    """Let the one job of the service end with an exit code."""
    (name,) = oscar.jobs
    oscar.jobs[name] = "Failed"
    supervisor.manifests[name] = manifest(name, code, **fields)
    return name


def test_the_task_is_skipped_and_the_reason_names_job_object_and_code(oscar, supervisor):
    seen = context()
    pause = deferred(cloud(), seen)
    name = failed(oscar, supervisor)
    with pytest.raises(AirflowSkipException, match=rf"'{name}'.* exit code 99, which skips its task .*a%20b\.h5"):
        resumed(cloud(), seen, pause)
    assert seen["ti"].xcoms["job_id"] == name, "links and page lead to what it left"
    assert supervisor.finished == [(name, 99)], "its outputs are made whole"


@pytest.mark.parametrize(
    "make",
    [
        lambda **arguments: InterLinkPodOperator(target=HPC, **POD, **arguments),
        lambda **arguments: KubernetesJobOperator(kubernetes_conn_id="interlink_default", **POD, **arguments),
    ],
    ids=["interlink", "kubernetes"],
)
def test_a_pods_task_is_skipped_and_a_failed_pod_does_not_stay(cluster, supervisor, make):
    seen, arguments = context(), {"skip_on_exit_code": [98, 99], "keep_pod": "on_failure"}
    pause = deferred(make(**arguments), seen)
    (name,) = cluster.pods
    cluster.put(name, JobPhase.FAILED)
    supervisor.manifests[name] = manifest(name, 98)
    with pytest.raises(AirflowSkipException, match="exit code 98"):
        resumed(make(**arguments), seen, pause)
    assert cluster.pods == {}


@pytest.mark.usefixtures("no_delays")
def test_a_task_that_waits_on_the_worker_is_skipped_too(oscar, supervisor):
    oscar.after_list = [lambda: None] * 3 + [lambda: failed(oscar, supervisor)]
    with pytest.raises(AirflowSkipException, match="exit code 99"):
        cloud(deferrable=False, poll_interval=0.001).execute(context())


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        (1, {}),
        (99, {"error": Failure("stage-out", "a pipe")}),
        (98, {"error": Failure("run", "out of memory", "out-of-memory")}),
    ],
    ids=["another code", "an output could not be staged out", "out of memory"],
)
def test_what_the_command_did_not_say_skips_nothing(oscar, supervisor, code, fields):
    seen = context()
    pause = deferred(cloud(skip_on_exit_code=[98, 99]), seen)
    failed(oscar, supervisor, code, **fields)
    with pytest.raises(AirflowFailException, match=f"exit code {code}"):
        resumed(cloud(skip_on_exit_code=[98, 99]), seen, pause)


def test_without_a_proof_nothing_is_skipped(oscar, supervisor):
    seen = context()
    pause = deferred(cloud(), seen)
    (name,) = oscar.jobs
    oscar.jobs[name] = "Failed"
    event = {"status": "ended", "phase": "failed", "waited": True, "exit_code": 99}
    with pytest.raises(Exception, match="container exit code 99") as raised:
        cloud().execute_complete(seen, event=event, **json.loads(json.dumps(pause.kwargs)))
    assert not isinstance(raised.value, AirflowSkipException)


def test_the_retry_of_a_worker_that_died_takes_the_answer_and_another_run_asks_again(oscar, supervisor):
    store = Store()
    deferred(cloud(), context(store))
    name = failed(oscar, supervisor)
    supervisor.manifests[name] = supervisor.signed(supervisor.manifests[name])
    with pytest.raises(AirflowSkipException):
        cloud().execute(context(store))
    assert oscar.posts() == 1
    deferred(cloud(), context(Store()))
    assert oscar.posts() == 2


def test_it_is_nothing_that_is_asked_for_so_an_author_may_add_it_to_work_that_is_done(oscar, supervisor):
    store = Store()
    deferred(oscar_operator(), context(store))
    name = failed(oscar, supervisor, code=0)
    supervisor.manifests[name] = supervisor.signed(supervisor.manifests[name])
    assert cloud().execute(context(store))["exit_code"] == 0


@pytest.mark.parametrize(
    ("given", "codes"),
    [(None, ()), (99, (99,)), ([3, 2, 3], (2, 3)), ({1}, (1,)), (range(1, 4), (1, 2, 3)), ([], ())],
    ids=str,
)
def test_one_several_or_none(given, codes):
    assert checked_exit_codes("t", given) == codes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0, "is '0'; expected exit codes from 1 to 255; 0 is success"),
        ([99, 0], "0 is success"),
        (256, "from 1 to 255"),
        (-1, "from 1 to 255"),
        (True, "is 'True'"),
        (["99"], "is '99'"),
        (99.0, r"is '99\.0'"),
        (143, "something killed the command"),
        (range(130, 140), "something killed the command"),
    ],
    ids=str,
)
def test_what_is_no_such_exit_code_is_refused_in_the_dag_file(given, message):
    with pytest.raises(DefinitionError, match=f"skip_on_exit_code of task 't' .*{message}"):
        checked_exit_codes("t", given)


def test_a_text_is_refused_by_the_operator():
    with pytest.raises(DefinitionError, match="skip_on_exit_code of task 'infer' is '99'"):
        cloud(skip_on_exit_code="99")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: OscarJobOperator(
                task_id="t", service="s", payload="x", success_when={"log": "done"}, skip_on_exit_code=99
            ),
            "success_when, with which nothing tells the exit code",
        ),
        (
            lambda: InterLinkBatchOperator(
                task_id="t", target=HPC, image="i", command=["x"], output_uri=OUTPUT, skip_on_exit_code=99
            ),
            "is a batch and takes no skip_on_exit_code",
        ),
    ],
    ids=["success_when", "batch"],
)
def test_where_nothing_has_that_exit_code_it_is_refused(make, message):
    with pytest.raises(DefinitionError, match=message):
        make()


def test_a_mapped_task_takes_it():
    mapped = OscarJobOperator.partial(task_id="t", service="s", command=["x"], output_uri=OUTPUT, skip_on_exit_code=99)
    made = mapped.expand(environment=[{}]).unmap({"environment": {}})
    assert made.skip_on_exit_code == (99,)
