# SPDX-License-Identifier: Apache-2.0
"""Pods hold what survives interLink and nothing else."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.pods import InitContainer, PodRequest, build_pod, label_value
from airflow_provider_oscar.core.slurm import SlurmOptions


def request(**changes) -> PodRequest:
    return PodRequest(**({"name": "threedgan-1", "namespace": "hpc", "image": "python:3.11", "node": "vk-1"} | changes))


def offloaded(**changes) -> dict:
    return build_pod(request(**changes))


def container(pod: dict) -> dict:
    return pod["spec"]["containers"][0]


def test_a_pod_lands_on_its_virtual_node_and_tolerates_the_taint():
    spec = offloaded()["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": "vk-1"}
    assert spec["tolerations"] == [{"key": "virtual-node.interlink/no-schedule", "operator": "Exists"}]


def test_nothing_of_the_cluster_follows_the_pod_to_the_hpc_side():
    spec = offloaded()["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is False
    assert "securityContext" not in spec


def test_slurm_options_become_annotations_and_limits():
    pod = offloaded(slurm=SlurmOptions(partition="gpu", cpus_per_task=4, memory_mib=2048), annotations={"a/b": "c"})
    assert pod["metadata"]["annotations"]["slurm-job.vk.io/flags"] == "--time=01:00:00 --partition=gpu"
    assert pod["metadata"]["annotations"]["a/b"] == "c"
    assert container(pod)["resources"]["limits"] == {"cpu": "4", "memory": "2048Mi"}


def test_a_full_virtual_node_still_takes_the_pod_so_that_it_queues_in_slurm():
    assert container(offloaded())["resources"]["requests"] == {"cpu": "0", "memory": "0"}


def test_resources_outrank_the_slurm_options():
    limits = container(offloaded(resources={"memory": "3Gi", "nvidia.com/gpu": "1"}))["resources"]["limits"]
    assert limits == {"cpu": "1", "memory": "3Gi", "nvidia.com/gpu": "1"}


def test_a_pod_for_the_cluster_itself_has_no_trace_of_interlink():
    pod = offloaded(node="", resources={"cpu": "500m"}, annotations={"a": "b"})
    assert not {"nodeSelector", "tolerations"} & pod["spec"].keys()
    assert container(pod)["resources"] == {"limits": {"cpu": "500m"}}
    assert pod["metadata"]["annotations"] == {"a": "b"}
    assert container(offloaded(node=""))["resources"] == {}


def test_command_arguments_and_environment_arrive_as_given():
    pod = offloaded(command=("sh", "-c"), args=("echo 'a b'",), env={"A": "x y\n", "_B": ""}, labels={"dag": "d"})
    assert container(pod)["command"] == ["sh", "-c"]
    assert container(pod)["args"] == ["echo 'a b'"]
    assert container(pod)["env"] == [{"name": "A", "value": "x y\n"}, {"name": "_B", "value": ""}]
    assert pod["metadata"]["labels"]["dag"] == "d"


def test_without_a_command_the_image_decides():
    assert not {"command", "args"} & container(offloaded()).keys()


def test_the_secret_is_mounted_whole_and_read_only():
    pod = offloaded(secret_name="threedgan-1")
    assert pod["spec"]["volumes"] == [
        {"name": "airflow-oscar", "secret": {"secretName": "threedgan-1", "defaultMode": 0o600}}
    ]
    assert container(pod)["volumeMounts"] == [
        {"name": "airflow-oscar", "mountPath": "/var/run/secrets/airflow-oscar", "readOnly": True}
    ]


def test_the_secret_is_for_the_jobs_user_alone_where_it_is_written_to_a_shared_file_system():
    def mode(**changes):
        return offloaded(secret_name="s", **changes)["spec"]["volumes"][0]["secret"]["defaultMode"]

    assert mode() == 0o600
    # A kubelet keeps the file from other users; the container's own may be any.
    assert mode(node="", slurm=None) == 0o644


def test_init_containers_share_the_empty_directories_and_not_the_secret():
    copy = InitContainer(name="copy", image="tools:1", command=("cp",), args=("a", "/data"))
    pod = offloaded(init_containers=(copy,), empty_dirs={"share": "/data"}, secret_name="s")
    assert pod["spec"]["initContainers"] == [
        {"name": "copy", "image": "tools:1", "command": ["cp"], "args": ["a", "/data"],
         "volumeMounts": [{"name": "share", "mountPath": "/data"}]}
    ]  # fmt: skip
    assert pod["spec"]["volumes"][0] == {"name": "share", "emptyDir": {}}
    assert [mount["name"] for mount in container(pod)["volumeMounts"]] == ["share", "airflow-oscar"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "A"}, "name of the pod is 'A'"),
        ({"name": "a_b"}, "name of the pod"),
        ({"name": "a" * 64}, "name of the pod"),
        ({"name": "a\n"}, "name of the pod"),
        ({"namespace": ""}, "namespace of the pod"),
        ({"node": "Vega"}, "node of the pod"),
        ({"secret_name": "-"}, "secret_name of the pod"),
        ({"image": ""}, "image is ''"),
        ({"image": "a b"}, "without blanks"),
        ({"node": "", "slurm": SlurmOptions()}, "name the interLink virtual node"),
        ({"env": {"A-B": "1"}}, "is not a shell identifier"),
        ({"env": {"1A": "1"}}, "is not a shell identifier"),
        ({"env": {"A": "a\0"}}, "a text without NUL"),
        ({"env": {"A": 1}}, "a text without NUL"),
        ({"resources": {"cpu": 1}}, "expected a Kubernetes quantity"),
        ({"resources": {"cpu": "much"}}, "expected a Kubernetes quantity"),
        ({"annotations": {"job.vk.io/flags": "--time=1"}}, "no interLink plugin reads"),
        ({"annotations": {"slurm-job.vk.io/flags": "--time=1"}}, "use SlurmOptions alone"),
        ({"annotations": {"a b": "1"}}, "not a key for a label or annotation"),
        ({"labels": {"/": "1"}}, "not a key for a label or annotation"),
        ({"labels": {"a": "in/a b.h5"}}, "at most 63 characters"),
        ({"empty_dirs": {"A": "/a"}}, "empty_dirs of the pod"),
        ({"empty_dirs": {"a": "data"}}, "not an absolute path"),
        ({"empty_dirs": {"a": "/a/../etc"}}, "not an absolute path"),
        ({"empty_dirs": {"a": "/"}}, "not an absolute path"),
        ({"empty_dirs": {"a": "/a", "b": "/a/"}}, "at the same path"),
        ({"empty_dirs": {"airflow-oscar": "/a"}}, "may not be called"),
        ({"secret_mount_path": "/a:/b"}, "not an absolute path"),
        ({"init_containers": (InitContainer(name="job", image="i", command=()),)}, "same name"),
        ({"init_containers": (InitContainer(name="x y", image="i", command=()),)}, "init_containers of the pod"),
        ({"init_containers": (InitContainer(name="x", image="", command=()),)}, "image is ''"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_kubernetes_refuses_or_interlink_mangles_is_refused_here(changes, message):
    with pytest.raises(DefinitionError, match=re.escape(message)):
        offloaded(**changes)


@given(st.text())
def test_any_text_becomes_a_label_value(text):
    assert build_pod(request(labels={"a": label_value(text)}))


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True), st.text(st.characters(exclude_characters="\0"))
    )
)
def test_a_pod_is_plain_json(env):
    pod = offloaded(env=env)
    assert json.loads(json.dumps(pod)) == pod
