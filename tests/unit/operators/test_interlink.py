# SPDX-License-Identifier: Apache-2.0
"""Pods behind interLink: created once, adopted, believed by their manifest, removed with their secret."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import msgspec
import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.events import parse_outputs
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.podstatus import TASK_ANNOTATION
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.jobs.manifest import Output
from airflow_provider_oscar.jobs.options import RunOptions
from airflow_provider_oscar.jobs.results import ResultLocation
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from airflow_provider_oscar.triggers.jobs import JobTrigger
from tests.support.fakes import EVENT, OUTPUT, Store, context, manifest

pytestmark = pytest.mark.usefixtures("supervisor")

TARGET = PlacementTarget(
    name="hpc-gpu",
    task_id="train",
    kind="interlink",
    node="leonardo",
    slurm=SlurmOptions(partition="gpu", gpus=1, time=timedelta(hours=1), memory_mib=2048),
)


def operator(**arguments):
    wanted = {
        "task_id": "train",
        "image": "docker://python:3.12-slim",
        "object_event": EVENT,
        "output_uri": OUTPUT,
        "command": ["python3", "train.py"],
        "target": TARGET,
    }
    return InterLinkPodOperator(**wanted | arguments)


def deferred(task, seen):
    with pytest.raises(TaskDeferred) as raised:
        task.execute(seen)
    return raised.value


def resumed(task, seen, pause, phase, *, seconds_ago=0.0, **fields):
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    event = {"status": "ended", "phase": phase, "ended_at": at.isoformat(), **fields}
    return task.execute_complete(seen, event=event, **json.loads(json.dumps(pause.kwargs)))


def test_pod_carries_target_supervisor_and_secret(cluster):
    pause = deferred(operator(), context(task_id="train"))
    (pod,) = cluster.created
    name = pod["metadata"]["name"]
    assert name.startswith("train-")
    assert pod["metadata"]["namespace"] == "hpc-jobs"
    assert pod["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "leonardo"}
    assert "--partition=gpu" in pod["metadata"]["annotations"]["slurm-job.vk.io/flags"]
    assert pod["metadata"]["labels"]["airflow/task_id"] == "train"
    assert json.loads(cluster.secrets[name]["job.json"])["placement"] == "hpc-gpu"
    assert isinstance(pause.trigger, JobTrigger)
    assert pause.trigger.backend == "interlink"
    assert pause.trigger.backend_arguments == {
        "conn_id": "interlink_default",
        "namespace": "hpc-jobs",
        "node": "leonardo",
    }


def test_nothing_secret_is_in_the_pod_or_the_deferral(cluster, supervisor):
    pause = deferred(operator(environment={"A": "b"}), context())
    text = json.dumps([cluster.created, pause.kwargs, pause.trigger.serialize()])
    assert "job.json" not in text
    assert cluster.secrets[cluster.created[0]["metadata"]["name"]]["job.json"]


def test_retry_adopts_the_pod(cluster):
    store = Store()
    deferred(operator(), context(store))
    (name,) = cluster.pods
    cluster.put(name, JobPhase.RUNNING, slurm_job_id="17")
    deferred(operator(), context(store))
    assert len(cluster.created) == 1


def test_failed_pod_of_an_earlier_try_is_replaced(cluster):
    store = Store()
    deferred(operator(), context(store))
    (name,) = cluster.pods
    cluster.put(name, JobPhase.FAILED)
    deferred(operator(), context(store))
    assert (len(cluster.created), cluster.deleted) == (2, [name])


def test_pod_that_succeeded_by_its_log_is_not_run_again(cluster, supervisor):
    store = Store()
    deferred(operator(), context(store))
    (name,) = cluster.pods
    cluster.put(name, JobPhase.SUCCEEDED)
    cluster.log = supervisor.marker(manifest(name))
    assert operator().execute(context(store))["submission_id"] == name
    assert len(cluster.created) == 1


def test_success_reads_the_log_before_it_removes_the_pod(cluster, supervisor):
    task, seen = operator(), context()
    pause = deferred(task, seen)
    (name,) = cluster.pods
    cluster.put(name, JobPhase.SUCCEEDED)
    cluster.log = "done\n" + supervisor.marker(manifest(name))
    assert resumed(task, seen, pause, "succeeded", slurm_job_id="17")["exit_code"] == 0
    assert cluster.deleted == [name]
    assert seen["ti"].xcoms["slurm_job_id"] == "17"
    assert task.link_urls["SLURM job"] == "https://slurm.test/job/17"


def test_succeeded_phase_alone_proves_nothing(cluster):
    """interLink reports Succeeded for a job that SLURM cancelled before it began."""
    task, seen = operator(), context()
    pause = deferred(task, seen)
    with pytest.raises(TaskDeferred):
        resumed(task, seen, pause, "succeeded", seconds_ago=1)
    assert cluster.deleted == []


def test_time_limit_of_slurm_is_explained_and_not_tried_again(cluster):
    task, seen = operator(), context()
    pause = deferred(task, seen)
    with pytest.raises(AirflowFailException, match=r"raise SlurmOptions\.time") as raised:
        resumed(
            task,
            seen,
            pause,
            "failed",
            seconds_ago=600,
            exit_code=15,
            reason="Error: 15: SLURM job reached its time limit and was terminated",
        )
    assert "node 'leonardo' (connection 'interlink_default', namespace 'hpc-jobs')" in str(raised.value)


def test_failed_submission_is_tried_again(cluster):
    task, seen = operator(), context()
    pause = deferred(task, seen)
    with pytest.raises(TransientError, match="ProviderFailed"):
        resumed(task, seen, pause, "failed", seconds_ago=600, reason="ProviderFailed: 502 bad gateway")


def test_timeout_and_kill_remove_the_pod(cluster):
    task, seen = operator(timeout=timedelta(minutes=5)), context()
    pause = deferred(task, seen)
    (name,) = cluster.pods
    with pytest.raises(AirflowFailException, match="within 300 seconds and was cancelled"):
        task.execute_complete(seen, event={"status": "timeout"}, **pause.kwargs)
    task.on_kill()
    assert cluster.deleted == [name, name]


def test_target_of_another_kind_is_refused():
    other = PlacementTarget(name="cloud", task_id="x", kind="oscar")
    with pytest.raises(DefinitionError, match="target 'cloud' of task 'train' is of kind 'oscar'"):
        operator(target=other)


def test_xcom_cannot_be_switched_off():
    with pytest.raises(DefinitionError, match="do_xcom_push"):
        operator(do_xcom_push=False)


def test_templates_cover_what_changes_from_run_to_run():
    assert set(InterLinkPodOperator.template_fields) >= {
        "object_event",
        "output_uri",
        "command",
        "environment",
        "image",
        "target",
    }


def rendered(task, **values):
    task.render_template_fields({**context(task_id="train"), **values})
    return task


def test_slurm_options_and_resources_are_rendered_for_each_try(cluster):
    slurm = SlurmOptions(memory_mib="{{ 1024 * n }}", extra_flags=("--dependency=afterok:{{ j }}",))
    target = replace(TARGET, slurm=slurm, resources={"nvidia.com/gpu": "{{ n }}", "amd.com/gpu": "{{ '' }}"})
    task = operator(target=target)
    deferred(rendered(task, n=3, j="17"), context(task_id="train"))
    (pod,) = cluster.created
    limits = pod["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "1", "memory": "3072Mi", "nvidia.com/gpu": "3"}
    assert "--dependency=afterok:17" in pod["metadata"]["annotations"]["slurm-job.vk.io/flags"]


@pytest.mark.parametrize(
    "hints", [{"capabilities": {"gpu", "large"}}, {"cost_per_hour": 2.5, "prior_run": 7.0}, {"max_active": 3}]
)
def test_what_helps_to_choose_a_target_is_no_part_of_the_request(hints):
    assert operator(target=replace(TARGET, **hints)).request() == operator().request()
    assert operator(target=replace(TARGET, node="other")).request() != operator().request()


DAY = 86_400.0
SCRIPT = "#!/bin/sh\n#SBATCH -t 1-12\nsrun x\n"


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        ({}, DAY + 3600),
        ({"target": replace(TARGET, slurm=SlurmOptions(time="2-00:00:00"))}, 3 * DAY),
        ({"target": replace(TARGET, slurm=None), "script": SCRIPT, "image": "", "command": None}, 2.5 * DAY),
        ({"target": replace(TARGET, slurm=SlurmOptions(time="2-00:00:00")), "timeout": 60}, 60),
        ({"execution_timeout": timedelta(hours=2)}, 7200),
    ],
    ids=["an hour", "two days", "of a script", "another timeout", "Airflow's own"],
)
def test_a_job_that_asks_slurm_for_days_is_not_cancelled_after_one(arguments, seconds):
    assert operator(**arguments).timeout_seconds() == seconds


def test_squeue_says_whose_job_it_is(cluster):
    deferred(operator(), context(task_id="train"))
    flags = cluster.created[0]["metadata"]["annotations"]["slurm-job.vk.io/flags"].split()
    assert "--job-name=dag.train" in flags
    (comment,) = (flag for flag in flags if flag.startswith("--comment=airflow:dag/train/run-1/1@"))
    assert comment.endswith("/hpc-jobs")


def test_whose_slurm_job_it_is_can_be_told_however_long_the_names_are(cluster):
    seen = {**context(task_id="train"), "run_id": "r" * 400}
    deferred(operator(), seen)
    pod = cluster.created[0]
    flags = pod["metadata"]["annotations"]["slurm-job.vk.io/flags"].split()
    (comment,) = (flag for flag in flags if flag.startswith("--comment="))
    assert comment.endswith("/hpc-jobs")
    assert json.loads(pod["metadata"]["annotations"][TASK_ANNOTATION])["run_id"] == "r" * 400


def test_a_dag_with_a_target_can_be_stored_by_airflow():
    with DAG("dag", schedule=None) as dag:
        operator(target=replace(TARGET, slurm=SlurmOptions(memory_mib="{{ 1024 * n }}")))
    json.dumps(DagSerialization.to_dict(dag))


def test_the_asset_event_of_an_outlet_says_what_was_produced(cluster, supervisor):
    asset = Asset(name="results", uri="s3://out/results")
    task, seen = operator(outlets=[asset]), context()
    seen["outlet_events"] = {asset: SimpleNamespace(extra={"mine": 1})}
    pause = deferred(task, seen)
    (name,) = cluster.pods
    supervisor.manifests[name] = msgspec.structs.replace(manifest(name), outputs=(Output("a b.txt", 1, "0" * 64),))
    cluster.put(name, JobPhase.SUCCEEDED)
    resumed(task, seen, pause, "succeeded")
    extra = seen["outlet_events"][asset].extra
    place = f"{OUTPUT}/{name}/"
    objects = [{"uri": f"{place}a%20b.txt", "conn_id": task.output_conn_id, "sha256": "0" * 64}]
    told = {"job_id": name, "output_uri": place, "outputs": 1, "placement": "", "objects": objects}
    assert extra == {**told, "mine": 1}
    assert [each.uri for each in parse_outputs(extra)] == [f"{place}a%20b.txt"]


@pytest.mark.parametrize("given", ["object_event", "inputs"])
def test_a_directory_is_refused_before_a_job_is_made(cluster, given):
    directory = {**EVENT, "key": "in/"}
    task = operator(**{given: directory if given == "object_event" else [directory]})
    with pytest.raises(AirflowFailException, match=r"in/'.* is a directory, and a job takes files"):
        task.execute(context())
    assert cluster.created == []


def test_a_command_of_a_run_about_several_objects_gets_them_all(cluster, supervisor):
    event = SimpleNamespace(extra={"object": EVENT}, timestamp=datetime(2026, 1, 1, tzinfo=UTC))
    other = SimpleNamespace(extra={"object": {**EVENT, "key": "b"}}, timestamp=event.timestamp)
    task = operator(object_event=None)
    deferred(task, {**context(), "triggering_asset_events": {"inbox": [event, other]}, "params": {}})
    assert {each.key for each in task.inputs} == {EVENT["key"], "b"}


def test_a_batch_script_runs_on_the_host_and_its_directives_count(cluster, supervisor):
    script = "#!/bin/bash\n#SBATCH --qos=short\nhostname\n"
    deferred(operator(image="", command=None, script=script), context(task_id="train"))
    (pod,) = cluster.created
    annotations = pod["metadata"]["annotations"]
    assert "--qos=short" in annotations["slurm-job.vk.io/flags"]
    assert "--partition=gpu" in annotations["slurm-job.vk.io/flags"]
    assert "run-job.status" in annotations["slurm-job.vk.io/pre-exec"]
    assert "on-host" in cluster.secrets[pod["metadata"]["name"]]
    (built,) = supervisor.built
    assert built["attachments"].files == {"script.sh": script.encode()}


def test_the_shells_own_braces_in_a_script_are_no_comments_and_templates_are_rendered(cluster, supervisor):
    script = "#!/bin/bash\na=(1 2); echo ${#a[@]} ${a[0]#1} {{ 20 + 3 }} # {#x#}\n"
    task = operator(image="", command=None, script=script)
    task.render_template_fields(context(task_id="train"))
    assert task.script == script.replace("{{ 20 + 3 }}", "23").rstrip("\n")  # as Jinja has it


def test_what_is_no_script_is_refused_in_the_dag_file():
    with pytest.raises(DefinitionError, match="not its name"):
        operator(image="", command=None, script="job.sh")


@pytest.mark.parametrize("more", [{"image": "docker://x"}, {"command": ["x"]}, {"mode": "faas-supervisor"}])
def test_a_script_and_a_container_are_two_things(more):
    with pytest.raises(DefinitionError, match="without a container"):
        operator(**{"image": "", "command": None, **more, "script": "#!/bin/bash\n"})


def test_neither_of_both_is_nothing():
    with pytest.raises(DefinitionError, match="or a script"):
        operator(image="", command=None)


def test_access_lasts_as_long_as_the_job_may_take_and_then_nothing_renews_it(cluster, supervisor):
    pause = deferred(operator(timeout=timedelta(days=3)), context())
    assert (supervisor.built[0]["lifetime"], supervisor.built[0]["binding"].outlived) == (
        timedelta(days=3, minutes=10),
        False,
    )
    assert pause.trigger.queue_deadline is None
    assert ResultLocation.from_dict(pause.trigger.result).renewer() is None


def test_a_job_of_more_than_a_week_has_to_start_within_one_and_its_access_is_renewed(cluster, supervisor):
    now = time.time()
    pause = deferred(operator(timeout=timedelta(days=30)), context())
    assert (supervisor.built[0]["lifetime"], supervisor.built[0]["binding"].outlived) == (timedelta(days=7), True)
    assert pause.trigger.queue_deadline - now == pytest.approx(7 * 86_400 - 600, abs=60)
    renewer = ResultLocation.from_dict(pause.trigger.result).renewer()
    assert renewer.pause(datetime.now(UTC)) == pytest.approx(3.5 * 86_400, abs=60)
    shorter = deferred(operator(timeout=timedelta(days=30), queue_timeout=60), context(partition_key="other"))
    assert shorter.trigger.queue_deadline - now < 120


def test_a_site_may_want_access_for_minutes_alone(cluster, supervisor, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OSCAR__ACCESS_LIFETIME", "300")
    pause = deferred(operator(timeout=timedelta(hours=2)), context())
    assert (supervisor.built[0]["lifetime"], supervisor.built[0]["binding"].outlived) == (timedelta(minutes=5), True)
    assert ResultLocation.from_dict(pause.trigger.result).renewer().lifetime == timedelta(minutes=5)


def test_a_later_try_lets_the_job_that_it_adopts_find_fresh_access(cluster, supervisor, monkeypatch):
    """The try extends the job's deadline; the URLs in its secret end when the first try said."""
    store, renewals = Store(), []
    deferred(operator(timeout=timedelta(days=1)), context(store))
    (name,) = cluster.pods
    cluster.put(name, JobPhase.RUNNING)
    monkeypatch.setattr(ResultLocation, "renew_access", lambda self: renewals.append(self.job))
    later = time.time() + 86_000
    monkeypatch.setattr(time, "time", lambda: later)
    pause = deferred(operator(timeout=timedelta(days=1)), context(store))
    assert [job.submission_id for job in renewals] == [name]
    assert [each["binding"].outlived for each in supervisor.built] == [False, True], "what renews it is written now"
    assert len(cluster.created) == 1
    assert ResultLocation.from_dict(pause.trigger.result).renewer() is not None


def test_a_signal_that_the_command_would_never_get_is_refused_with_the_form_it_gets(cluster):
    lost = replace(TARGET, slurm=SlurmOptions(extra_flags=("--signal=USR1@60",)))
    with pytest.raises(AirflowFailException, match="write --signal=B:USR1@60"):
        operator(target=lost).execute(context(task_id="train"))
    assert not cluster.created
    deferred(operator(target=lost, run_options=RunOptions(launcher="srun")), context(task_id="train"))
    assert len(cluster.created) == 1, "steps of srun do get it"
