# SPDX-License-Identifier: Apache-2.0
"""Callbacks written for the KubernetesPodOperator are called in its order, with its arguments."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback
from airflow.sdk.exceptions import AirflowFailException
from kubernetes.client import V1EmptyDirVolumeSource, V1PersistentVolumeClaimVolumeSource, V1Pod, V1Volume
from kubernetes.client.exceptions import ApiException

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.operators.kubernetes import KubernetesJobOperator
from airflow_provider_oscar.operators.pod_callbacks import PodCallbacks, as_object
from tests.support.fakes import OUTPUT, Store, context, manifest
from tests.unit.operators.test_interlink import deferred, operator, resumed

pytestmark = pytest.mark.usefixtures("supervisor")


class Recorder(KubernetesPodOperatorCallback):
    """Notes what it is called with, with the signatures of the class it is derived from."""

    told: list[tuple[str, object]] = []  # noqa: RUF012 (emptied by the fixture)

    @staticmethod
    def on_sync_client_creation(*, client, operator, **kwargs):
        Recorder.told.append(("client", operator.task_id))

    @staticmethod
    def on_pod_manifest_created(*, pod_request, client, mode, operator, context, **kwargs):
        assert isinstance(pod_request, V1Pod)
        pod_request.metadata.labels["team"] = "detector"
        pod_request.spec.volumes.append(V1Volume(name="scratch", empty_dir=V1EmptyDirVolumeSource()))
        Recorder.told.append(("manifest", mode))

    @staticmethod
    def on_pod_creation(*, pod, client, mode, operator, context, **kwargs):
        Recorder.told.append(("creation", pod.metadata.name))

    @staticmethod
    def on_pod_starting(*, pod, client, mode, operator, context, **kwargs):
        Recorder.told.append(("starting", pod.metadata.name))

    @staticmethod
    def on_operator_resuming(*, pod, event, client, mode, operator, context, **kwargs):
        Recorder.told.append(("resuming", event["status"]))

    @staticmethod
    def progress_callback(*, line, client, mode, container_name, timestamp, pod, **kwargs):
        Recorder.told.append((container_name, line))

    @staticmethod
    def on_pod_completion(*, pod, client, mode, operator, context, **kwargs):
        Recorder.told.append(("completion", pod.metadata.name))

    @staticmethod
    def on_pod_teardown(*, pod, client, mode, operator, context, **kwargs):
        Recorder.told.append(("teardown", context["ti"].task_id))

    @staticmethod
    def on_pod_cleanup(*, pod, client, mode, operator, context, **kwargs):
        Recorder.told.append(("cleanup", pod.metadata.name))


class Claims(KubernetesPodOperatorCallback):
    """Puts in what interLink would lose."""

    @staticmethod
    def on_pod_manifest_created(*, pod_request, **kwargs):
        claim = V1PersistentVolumeClaimVolumeSource(claim_name="data")
        pod_request.spec.volumes.append(V1Volume(name="data", persistent_volume_claim=claim))


@pytest.fixture(autouse=True)
def told(monkeypatch):
    """What was told; a cluster that shows the pods that were created."""
    Recorder.told.clear()
    monkeypatch.setattr(InterLinkHook, "core", object())  # of no use
    return Recorder.told


@pytest.fixture
def pods(cluster, monkeypatch):
    def read(name, namespace):
        found = next((pod for pod in cluster.created if pod["metadata"]["name"] == name and name in cluster.pods), None)
        if found is None:
            error = ApiException(status=404)
            error.body = b'{"kind": "Status", "code": 404}'
            raise error
        return as_object(found)

    monkeypatch.setattr(InterLinkHook, "core", SimpleNamespace(read_namespaced_pod=read))
    return cluster


def test_every_callback_is_called_in_order_around_a_deferral(pods, supervisor, told):
    store = Store()
    pause = deferred(operator(callbacks=Recorder), context(store))
    (pod,) = pods.created
    name = pod["metadata"]["name"]
    assert pod["metadata"]["labels"]["team"] == "detector", "what a callback changes is what is created"
    assert {"name": "scratch", "emptyDir": {}} in pod["spec"]["volumes"]
    assert told == [("client", "train"), ("manifest", "sync"), ("creation", name)]
    told.clear()
    pods.put(name, JobPhase.SUCCEEDED)
    pods.log = "one\ntwo\n" + supervisor.marker(manifest(name))
    task = operator(callbacks=[Recorder])
    assert resumed(task, context(store), pause, "succeeded", log_lines=1)["exit_code"] == 0
    lines = [what for who, what in told if who == "job"]
    assert lines[:2] == ["one", "two"], "also those that the trigger has shown"
    assert [who for who, _ in told if who != "job"] == [
        "client",
        "resuming",
        "starting",
        "completion",
        "teardown",
        "cleanup",
    ]
    assert pods.deleted == [name]


def test_an_adopted_pod_was_created_by_another_try(pods, told):
    store = Store()
    deferred(operator(callbacks=Recorder), context(store))
    told.clear()
    deferred(operator(callbacks=Recorder), context(store))
    assert told == [("client", "train")]


def test_callbacks_hear_of_a_job_that_failed(pods, told):
    store = Store()
    pause = deferred(operator(callbacks=Recorder), context(store))
    (name,) = pods.pods
    pods.put(name, JobPhase.FAILED)
    with pytest.raises(TransientError):
        resumed(operator(callbacks=Recorder), context(store), pause, "failed", exit_code=3, waited=True)
    assert [who for who, _ in told][-3:] == ["completion", "teardown", "cleanup"]


def test_a_callback_may_not_put_in_what_a_virtual_node_loses(pods):
    with pytest.raises(AirflowFailException, match="persistentVolumeClaim"):
        operator(callbacks=Claims).execute(context())
    assert pods.created == []


def test_an_instance_is_refused_in_the_dag_file():
    with pytest.raises(DefinitionError, match="the class, no instance"):
        operator(callbacks=[Recorder()])
    task = KubernetesJobOperator(task_id="t", image="i", command=["c"], output_uri=OUTPUT, callbacks=Recorder)
    assert task.callbacks == (Recorder,)


def test_a_task_that_waits_on_its_worker_shows_lines_as_they_come(pods, told):
    """The wait calls this from threads, at each look; the start is told once."""
    pods.created.append({"metadata": {"name": "p"}, "spec": {"containers": []}})
    pods.put("p", JobPhase.RUNNING)
    calls = PodCallbacks([Recorder], operator(), InterLinkHook("interlink_default"), context())
    calls.started("p")
    calls.lines("p", ["one"])
    calls.started("p")
    assert told[1:] == [("starting", "p"), ("job", "one")]
