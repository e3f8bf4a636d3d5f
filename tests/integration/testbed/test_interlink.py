# SPDX-License-Identifier: Apache-2.0
"""Pods from the Kubernetes client through a virtual node to a batch job and back, with both batch systems."""

from __future__ import annotations

import asyncio
import itertools

import kubernetes
import pytest
from kubernetes.client.exceptions import ApiException
from oscar_testbed.fakes.interlink import LocalInterLink
from oscar_testbed.fakes.kubernetes import LocalKubernetes
from oscar_testbed.fakes.slurm import open_slurm
from oscar_testbed.fakes.slurm.real import missing_programs
from oscar_testbed.faults import InterLinkFaults
from oscar_testbed.images import LocalImage
from oscar_testbed.process import wait_until

SANDBOX = "$CONTAINER_SANDBOX_MOUNT_POINT"


class Site:
    """Kubernetes with two virtual nodes over one batch system, and a client."""

    def __init__(self, directory, mode):
        self.faults = InterLinkFaults()
        self.kubernetes = LocalKubernetes(directory / "kubernetes")
        self.slurm = open_slurm(directory / "slurm", mode)
        images = {"tools:1": LocalImage("tools:1", [], {"FROM_IMAGE": "yes"})}
        self.interlink = LocalInterLink(self.kubernetes, self.slurm, images, directory / "interlink", self.faults)
        self.parts = [self.kubernetes, self.interlink]
        self.directory = directory
        self._numbers = itertools.count()

    def start(self):
        for part in self.parts:
            part.start()
        client = kubernetes.config.new_client_from_config_dict(self.kubernetes.kubeconfig())
        self.api = kubernetes.client.CoreV1Api(client)

    def stop(self):
        self.api.api_client.close()
        for part in reversed(self.parts):
            part.stop()
        self.slurm.stop()

    def pod(self, script, *, node="slurm-cpu", flags="--time=5", **spec):
        name = f"pod-{next(self._numbers)}"
        container = {"name": "main", "image": "tools:1", "command": ["/bin/sh", "-c"], "args": [script]}
        container |= spec.pop("container", {})
        annotations = {"slurm-job.vk.io/flags": flags} | spec.pop("annotations", {})
        body = {
            "metadata": {"name": name, "labels": {"test": "interlink"}, "annotations": annotations},
            "spec": {
                "restartPolicy": "Never",
                "nodeSelector": {"kubernetes.io/hostname": node},
                "tolerations": [{"key": "virtual-node.interlink/no-schedule", "operator": "Exists"}],
                "containers": [container],
                **spec,
            },
        }
        self.api.create_namespaced_pod("default", body)
        return name

    def read(self, name):
        return self.api.read_namespaced_pod(name, "default")

    def until(self, name, *phases):
        phases = phases or ("Succeeded", "Failed")
        wait_until(lambda: self.read(name).status.phase in phases, what=f"{name} is {phases}", timeout=120)
        return self.read(name)

    def log(self, name, **options):
        # The client's own decoding of text answers is broken in version 36.
        answer = self.api.read_namespaced_pod_log(name, "default", _preload_content=False, **options)
        return answer.data.decode()

    def job_state(self, pod):
        return self.slurm.jobs()[pod.metadata.annotations["JobID"]].state


@pytest.fixture(scope="module", params=["real", "builtin"])
def site(request, tmp_path_factory):
    if request.param == "real" and missing_programs():
        pytest.skip(f"SLURM is not installed: {missing_programs()}")
    site = Site(tmp_path_factory.mktemp("site"), request.param)
    site.start()
    yield site
    site.stop()


@pytest.fixture
def queue_site(tmp_path):
    """A site of its own over the built-in queue, for tests that break something."""
    site = Site(tmp_path, "builtin")
    site.start()
    yield site
    site.stop()


def test_pod_runs_as_a_batch_job_with_its_environment_and_mounts(site):
    site.api.create_namespaced_secret("default", {"metadata": {"name": "cap"}, "stringData": {"job.json": "{}"}})
    value = "a \"b\" 'c' $x `y` \\ \n ü"
    mounts = [{"name": "cap", "mountPath": "/var/run/secrets/airflow-oscar"}, {"name": "share", "mountPath": "/data"}]
    init = {"name": "first", "image": "tools:1", "command": ["/bin/sh", "-c", f'echo hi > "{SANDBOX}/data/x"']}
    name = site.pod(
        f'printf "%s|" "$VALUE" "$FROM_IMAGE" "$PARTITION"; cd "{SANDBOX}"; cat data/x var/run/secrets/*/job.json',
        container={"env": [{"name": "VALUE", "value": value}], "volumeMounts": mounts},
        volumes=[{"name": "cap", "secret": {"secretName": "cap"}}, {"name": "share", "emptyDir": {}}],
        initContainers=[{**init, "volumeMounts": mounts[1:]}],
        annotations={"slurm-job.vk.io/pre-exec": "export SINGULARITYENV_PARTITION=$SLURM_JOB_PARTITION"},
    )
    pod = site.until(name)
    assert (pod.status.phase, pod.status.reason) == ("Succeeded", "Completed")
    assert f"{value}|yes|cpu|hi\n{{}}" in site.log(name)
    assert site.job_state(pod) == "CD"


def test_gpu_node_gives_a_gpu(site):
    script = {"slurm-job.vk.io/pre-exec": "export APPTAINERENV_CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES"}
    name = site.pod(
        'echo "gpu=$CUDA_VISIBLE_DEVICES"', node="slurm-gpu", flags="--time=5 --gres=gpu:1", annotations=script
    )
    assert site.until(name).status.phase == "Succeeded"
    assert "gpu=0\n" in site.log(name)


def test_exit_code_arrives(site):
    pod = site.until(site.pod("exit 7"))
    assert (pod.status.phase, pod.status.reason) == ("Failed", "Error: 7")
    assert pod.status.container_statuses[0].state.terminated.exit_code == 7


def test_unknown_image_fails_with_its_name_in_the_log(site):
    name = site.pod("true", container={"image": "nobody:9"})
    assert site.until(name).status.phase == "Failed"
    assert "image 'nobody:9' is not known" in site.log(name)


def test_refused_job_is_provider_failed_with_what_sbatch_said(site):
    pod = site.until(site.pod("true", flags="--partition=nope"))
    assert (pod.status.phase, pod.status.reason) == ("Failed", "ProviderFailed")
    assert "504" in pod.status.message
    assert "Invalid partition name" in pod.status.message


def test_deleting_a_running_pod_cancels_its_job_and_clears_its_directory(site):
    name = site.pod("sleep 300")
    pod = site.until(name, "Running")
    site.api.delete_namespaced_pod(name, "default")
    wait_until(lambda: site.job_state(pod) == "CA", what="the job is cancelled", timeout=120)
    wait_until(lambda: not list(site.directory.rglob(f"*{pod.metadata.uid}")), what="no directory is left", timeout=120)
    with pytest.raises(ApiException, match="404"):
        site.read(name)


def test_log_is_followed_while_the_job_runs(site):
    name = site.pod(f"echo one; until test -e {site.directory}/go; do sleep 0.1; done; echo two")
    site.until(name, "Running")
    answer = site.api.read_namespaced_pod_log(name, "default", follow=True, _preload_content=False)
    seen = b""
    for chunk in answer.stream():
        seen += chunk
        if b"one\n" in seen:
            (site.directory / "go").touch()
    (site.directory / "go").unlink()
    assert seen.index(b"one\n") < seen.index(b"two\n")


def test_log_options_are_as_odd_as_upstream(site):
    name = site.pod("echo a; echo b")
    site.until(name)
    assert site.log(name, timestamps=True) == site.log(name)
    assert site.log(name, timestamps=True, since_seconds=60) == ""
    assert site.log(name, tail_lines=1).startswith("sys")


def test_pod_that_tolerates_nothing_stays_pending_with_a_reason(site):
    name = site.pod("true", tolerations=[])
    pod = site.read(name)
    assert pod.status.phase == "Pending"
    assert "untolerated taint {virtual-node.interlink/no-schedule" in pod.status.conditions[0].message
    site.api.delete_namespaced_pod(name, "default")


def test_missing_secret_keeps_the_pod_waiting_until_it_comes(queue_site):
    site = queue_site
    name = site.pod(
        f'cat "{SANDBOX}/s/k"',
        container={"volumeMounts": [{"name": "v", "mountPath": "/s"}]},
        volumes=[{"name": "v", "secret": {"secretName": "late"}}],
    )
    site.until(name, "Initializing")
    site.api.create_namespaced_secret("default", {"metadata": {"name": "late"}, "stringData": {"k": "came"}})
    assert site.until(name).status.phase == "Succeeded"
    assert "came" in site.log(name)


def test_node_turns_not_ready_and_back(queue_site):
    site = queue_site

    def ready():
        return site.api.read_node("slurm-cpu").status.conditions[0].status

    with site.faults.during(down=True):
        wait_until(lambda: ready() == "False", what="the node is down", timeout=120)
        name = site.pod("true")
        assert "unreachable" in site.read(name).status.conditions[0].message
    wait_until(lambda: ready() == "True", what="the node is back", timeout=120)
    assert site.until(name).status.phase == "Succeeded"


def test_job_is_orphaned_when_the_deletion_is_lost(queue_site):
    site = queue_site
    name = site.pod("sleep 300")
    pod = site.until(name, "Running")
    site.faults.set(orphan_jobs=1)
    site.api.delete_namespaced_pod(name, "default")
    wait_until(lambda: site.faults.orphan_jobs == 0, what="the deletion is lost", timeout=120)
    assert site.job_state(pod) == "R"


def test_notice_of_sbatch_fails_the_pod_and_leaves_the_job(queue_site):
    site = queue_site
    site.faults.set(sbatch_stderr="sbatch: notice: <b>quota</b>")
    pod = site.until(site.pod("true"))
    assert pod.status.reason == "ProviderFailed"
    assert "&lt;b&gt;quota" in pod.status.message
    assert len(site.slurm.jobs()) == 1


def test_running_pods_are_taken_up_after_a_restart_of_the_node(queue_site):
    site = queue_site
    name = site.pod(f"until test -e {site.directory}/go; do sleep 0.1; done; exit 9")
    site.until(name, "Running")
    site.interlink.stop()
    (site.directory / "go").touch()
    site.interlink.start()
    assert site.until(name).status.reason == "Error: 9"
    assert len(site.slurm.jobs()) == 1


def test_asynchronous_client_works_as_well(queue_site):
    from kubernetes_asyncio import client, config

    site = queue_site
    name = site.pod("true")
    site.until(name)

    async def phase():
        configuration = client.Configuration()
        await config.load_kube_config_from_dict(site.kubernetes.kubeconfig(), client_configuration=configuration)
        async with client.ApiClient(configuration) as api:
            pod = await client.CoreV1Api(api).read_namespaced_pod(name, "default")
            return pod.status.phase

    assert asyncio.run(phase()) == "Succeeded"
