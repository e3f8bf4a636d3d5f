# SPDX-License-Identifier: Apache-2.0
"""Arguments of the operators that reach the supervisor: launcher, further inputs, checkpoint, and OSCAR's own."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.jobs.options import RunOptions
from airflow_provider_oscar.jobs.result_store import ResultStore
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.kubernetes import KubernetesJobOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from airflow_provider_oscar.supervisor.launch import launched
from tests.support.fakes import EVENT, OUTPUT, FakeOscar, context


def submitted(operator, **arguments):
    if operator is InterLinkPodOperator:
        slurm = arguments.pop("slurm", None)
        target = PlacementTarget(name="hpc", task_id="t", kind="interlink", node="vk", slurm=slurm)
        arguments = {"image": "docker://i", "target": target} | arguments
    elif operator is KubernetesJobOperator:
        arguments = {"image": "i"} | arguments
    else:
        arguments = {"service": "s"} | arguments
    with DAG("dag", schedule=None):
        task = operator(task_id="t", command=["x"], output_uri=OUTPUT, **arguments)
    with pytest.raises(TaskDeferred):
        task.execute(context(task_id="t"))


@pytest.mark.parametrize("operator", [InterLinkPodOperator, KubernetesJobOperator, OscarJobOperator])
def test_options_inputs_and_checkpoint_reach_the_job(cluster, supervisor, monkeypatch, operator):
    FakeOscar().install(monkeypatch)
    if operator is KubernetesJobOperator:
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps({"conn_type": "interlink"}))
    options = RunOptions(on_unstaged="warn", grace_period=30)
    other = {**EVENT, "key": "c.h5"}
    submitted(operator, run_options=options, inputs=[EVENT, json.dumps(other)], resume_from=json.dumps([other]))
    built = supervisor.built[0]
    assert built["options"] == options
    assert [event.key for event in built["attachments"].inputs] == ["a b.h5", "c.h5"]
    assert [event.key for event in built["attachments"].resume_from] == ["c.h5"]


def test_without_further_objects_nothing_is_attached(cluster, supervisor):
    submitted(InterLinkPodOperator)
    assert (supervisor.built[0]["attachments"], supervisor.built[0]["options"]) == (None, RunOptions())


def test_launcher_uses_the_nodes_of_slurm_and_slurm_knows_the_processes(cluster, supervisor):
    slurm = SlurmOptions(nodes=2, extra_flags=("--exclusive",))
    submitted(InterLinkPodOperator, slurm=slurm, run_options=RunOptions(launcher="srun", ntasks=4))
    assert supervisor.built[0]["options"] == RunOptions(launcher="srun", ntasks=4, nodes=2)
    flags = cluster.created[0]["metadata"]["annotations"]["slurm-job.vk.io/flags"].split()
    assert {"--nodes=2", "--ntasks=4", "--exclusive"} <= set(flags)


@pytest.mark.parametrize("launcher", ["srun", "mpirun", "torchrun"])
def test_of_a_range_of_nodes_the_launcher_starts_what_slurm_gave(cluster, supervisor, launcher):
    slurm = SlurmOptions(nodes="2-4", ntasks_per_node=8)
    submitted(InterLinkPodOperator, slurm=slurm, run_options=RunOptions(launcher=launcher))
    assert supervisor.built[0]["options"] == RunOptions(launcher=launcher, ntasks_per_node=8), "no number of nodes"
    assert "--nodes=2-4" in cluster.created[0]["metadata"]["annotations"]["slurm-job.vk.io/flags"].split()
    # What the supervisor then makes of it, where SLURM has given three.
    counts = {"nodes": None, "ntasks": None, "ntasks_per_node": 8}
    spec = {"launcher": launcher, "command": ["x"], "submission_id": "j", **counts}
    given = {b"SLURM_JOB_NUM_NODES": b"3", b"SLURM_JOB_NODELIST": b"cn[1-3]"}
    words = launched(spec, given)
    expected = {"srun": ["--ntasks-per-node=8"], "mpirun": ["-n", "24"], "torchrun": ["--nnodes=3"]}[launcher]
    assert set(expected) <= set(words)


def test_launcher_starts_as_many_processes_as_slurm_is_asked_for(cluster, supervisor):
    submitted(InterLinkPodOperator, slurm=SlurmOptions(nodes=2, ntasks=8), run_options=RunOptions(launcher="mpirun"))
    assert supervisor.built[0]["options"] == RunOptions(launcher="mpirun", nodes=2, ntasks=8)
    flags = cluster.created[0]["metadata"]["annotations"]["slurm-job.vk.io/flags"].split()
    assert [flag for flag in flags if flag.startswith("--ntasks")] == ["--ntasks=8"]


@pytest.fixture
def stores(monkeypatch):
    """Connections with the credentials that OSCAR's supervisor needs."""
    fields = {"conn_type": "oscar_s3", "login": "AK", "password": "hush", "extra": {"endpoint_url": "http://minio"}}
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_S3_DEFAULT", json.dumps(fields))
    monkeypatch.setattr(ResultStore, "read_manifest", lambda *_, **__: None)


def test_pod_with_oscars_supervisor_is_the_one_oscar_makes(cluster, stores):
    submitted(InterLinkPodOperator, mode="faas-supervisor", object_event=EVENT)
    spec = cluster.created[0]["spec"]
    (main,), (init,) = spec["containers"], spec["initContainers"]
    # Fields and values of OSCAR's pkg/types/interlink.go; what is ours is said in docs/jobs.md.
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": "vk"}
    assert spec["tolerations"] == [{"key": "virtual-node.interlink/no-schedule", "operator": "Exists"}]
    assert spec["restartPolicy"] == "Never"
    assert (init["name"], init["command"]) == ("supervisor-container", ["/bin/sh", "-c"])
    assert init["args"] == ["cp -r /supervisor/* /data"]
    assert init["volumeMounts"] == [{"name": "supervisor-share-data", "mountPath": "/data"}]
    assert main["command"] == ["/bin/sh", "-c"]
    assert main["args"] == ["echo $EVENT | base64 -d | /data/supervisor"]
    assert {each["name"] for each in main["env"]} == {"EVENT", "JOB_UUID"}
    assert {each["mountPath"] for each in main["volumeMounts"]} == {"/data", "/oscar/config"}
    assert {"name": "supervisor-share-data", "emptyDir": {}} in spec["volumes"]
    assert "hush" not in json.dumps(cluster.created[0])


def test_oscars_supervisor_cannot_stage_several_objects(cluster, stores):
    with pytest.raises(AirflowFailException, match="stages one object"):
        submitted(InterLinkPodOperator, mode="faas-supervisor", object_event=EVENT, inputs=[EVENT])
    assert cluster.created == []
