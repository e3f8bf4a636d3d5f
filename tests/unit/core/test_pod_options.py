# SPDX-License-Identifier: Apache-2.0
"""A user's additions reach the pod, ours win, and what a virtual node would lose is refused with what works instead."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client import V1EnvFromSource, V1SecretEnvSource, V1Toleration, V1Volume, V1VolumeMount

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.pod_merge import template_command, template_image
from airflow_provider_oscar.core.pod_options import PodOptions
from airflow_provider_oscar.core.pods import PodRequest, build_pod
from airflow_provider_oscar.core.slurm import SlurmOptions

SHARED = {"name": "shared", "emptyDir": {"sizeLimit": "500Mi"}}
SHELL = {"image": "busybox", "command": ["sh", "-c", "true"]}


def pod(options=None, *, node="hpc", template=None, **fields):
    common = {"name": "j", "namespace": "n", "node": node, "image": "docker://python:3.12", "secret_name": "j"}
    given = {**common, "command": ("/bin/sh", "-c"), "args": ("run",), "env": {"OSCAR": "1"}, **fields}
    return build_pod(PodRequest(**given, options=options or PodOptions(), template=template or {}))


def job_of(made):
    return made["spec"]["containers"][0]


def template(*containers, **spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": list(containers), **spec},
    }


def main(**fields):
    return {"name": "base", "image": "docker://alpine:3.20", "command": ["sh", "-c", "date"], **fields}


def other(name="second", **fields):
    return {"name": name, **SHELL, **fields}


KEY = {"name": "site-config", "key": "url"}
PROBE = {"exec": {"command": ["test", "-f", "/tmp/ready"]}, "initialDelaySeconds": 5}
#: By the pods of upstream's vk-test-set (interlink-hq/vk-test-set 3404e2d): what of a pod each is about, in words of
#: our own.
FORMS = {
    "000 command and arguments": template(main(args=["hello"])),
    "010 a program of many lines": template(main(command=["python3", "-c", "print('ü')\nprint(\"$HOME `id`\")\n"])),
    "020 plain variables": template(main(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "two words"}])),
    "030 one directory for two containers": template(
        main(volumeMounts=[{"name": "shared", "mountPath": "/in"}]),
        other(volumeMounts=[{"name": "shared", "mountPath": "/out", "readOnly": True}]),
        volumes=[SHARED],
    ),
    "040 files of a ConfigMap and a Secret": template(
        main(volumeMounts=[{"name": "c", "mountPath": "/c"}, {"name": "s", "mountPath": "/s"}]),
        volumes=[{"name": "c", "configMap": {"name": "c"}}, {"name": "s", "secret": {"secretName": "s"}}, SHARED],
    ),
    "050 limits": template(main(resources={"limits": {"cpu": "1", "example.com/fpga": "2"}})),
    "060 an init container": template(main(), initContainers=[other("first")], volumes=[SHARED]),
    "065 several init containers": template(main(), initContainers=[other("one"), other("two"), other("three")]),
    "070 a privileged helper with FUSE": template(
        main(volumeMounts=[{"name": "shared", "mountPath": "/m", "mountPropagation": "HostToContainer"}]),
        other(securityContext={"privileged": True}),
        initContainers=[other("config")],
        volumes=[SHARED, {"name": "c", "configMap": {"name": "rclone"}}],
    ),
    "080 keys of ConfigMap and Secret": template(
        main(
            env=[
                {"name": "URL", "valueFrom": {"configMapKeyRef": KEY}},
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": KEY}},
            ]
        )
    ),
    "085 all keys of Secrets": template(
        main(envFrom=[{"secretRef": {"name": "s"}}, {"prefix": "P_", "secretRef": {"name": "t", "optional": True}}])
    ),
    "086 one key of a Secret": template(main(env=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": KEY}}])),
    "090 probes": template(main(startupProbe=PROBE, readinessProbe=PROBE, livenessProbe=PROBE)),
    "095 the entry point of an image": template(main(), {"name": "second", "image": "busybox"}),
    "100 a container that fails beside": template(main(), other(command=["sh", "-c", "exit 42"])),
    "105 values with quotes": template(
        main(
            env=[{"name": f"V{n}", "value": v} for n, v in enumerate(["'", '"', "`id`", "$(A)", "a\nb", "", " ", "\\"])]
        )
    ),
    "110 a job that is not restarted": template(main(), restartPolicy="Never", terminationGracePeriodSeconds=5),
    "115 lifecycle hooks": template(
        main(lifecycle={"postStart": {"exec": {"command": ["true"]}}, "preStop": {"exec": {"command": ["true"]}}})
    ),
    "120 projected files": template(
        main(volumeMounts=[{"name": "p", "mountPath": "/p", "readOnly": True}]),
        volumes=[
            {
                "name": "p",
                "projected": {
                    "sources": [
                        {"configMap": {"name": "c", "items": [{"key": "k", "path": "k"}]}},
                        {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                    ]
                },
            }
        ],
    ),
}


def holds(made, wanted):
    """Whether everything wanted is there, in lists by name."""
    if isinstance(wanted, dict):
        return all(name in made and holds(made[name], value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return all(any(holds(candidate, each) for candidate in made) for each in wanted)
    return made == wanted


@pytest.mark.parametrize("form", FORMS, ids=lambda text: text.partition(" ")[0])
@pytest.mark.parametrize("node", ["hpc", ""])
def test_every_form_of_the_test_set_of_interlink_is_expressed(form, node):
    wanted = FORMS[form]
    made = pod(template=wanted, node=node)
    theirs, *others = json.loads(json.dumps(wanted["spec"]["containers"]))
    # Command, arguments and image of the job are the supervisor's and the operator's, made from those of the template.
    assert template_command(wanted) == [*theirs.pop("command"), *theirs.pop("args", [])]
    assert template_image(wanted) == theirs.pop("image")
    theirs["name"] = "job"
    assert holds(made["spec"], {**wanted["spec"], "containers": [theirs, *others]})
    assert holds(made, pod(node=node) | {"spec": {**pod(node=node)["spec"], "containers": []}})
    assert made["spec"]["containers"][0]["command"] == ["/bin/sh", "-c"]


def test_objects_of_the_kubernetes_client_are_taken_as_they_are():
    options = PodOptions(
        env_from=[V1EnvFromSource(secret_ref=V1SecretEnvSource(name="s"))],
        volumes=[V1Volume(name="d", empty_dir={})],
        volume_mounts=[V1VolumeMount(name="d", mount_path="/d")],
        tolerations=[V1Toleration(key="k", operator="Exists")],
    )
    made = pod(options)
    assert job_of(made)["envFrom"] == [{"secretRef": {"name": "s"}}]
    assert {"name": "d", "mountPath": "/d"} in job_of(made)["volumeMounts"]
    assert {"key": "k", "operator": "Exists"} in made["spec"]["tolerations"]
    json.dumps(options.to_dict())


def test_metadata_is_merged_and_ours_wins():
    options = PodOptions(labels={"team": "a", "app.kubernetes.io/managed-by": "me"}, annotations={"note": "x"})
    metadata = pod(options, labels={"airflow/dag_id": "d"})["metadata"]
    assert metadata["labels"] == {
        "team": "a",
        "app.kubernetes.io/managed-by": "airflow-provider-oscar",
        "airflow/dag_id": "d",
    }
    assert metadata["annotations"]["note"] == "x"
    assert metadata["name"] == "j"


def test_ours_wins_over_variables_and_over_what_the_template_says_of_restarts():
    made = pod(PodOptions(env=[{"name": "OSCAR", "value": "2"}]), template=template(main(), restartPolicy="Always"))
    assert job_of(made)["env"] == [{"name": "OSCAR", "value": "1"}]
    assert made["spec"]["restartPolicy"] == "Never"
    assert made["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("slurm", "wanted"),
    [
        (SlurmOptions(), {"cpu": "4", "memory": "8Gi"}),
        (SlurmOptions(memory_mib=2048), {"cpu": "4", "memory": "2048Mi"}),
        (SlurmOptions(cpus_per_task=1, memory_mib=1024), {"cpu": "1", "memory": "1024Mi"}),
    ],
)
def test_limits_of_a_template_count_unless_the_slurm_options_say_another(slurm, wanted):
    limits = {"cpu": 4, "memory": "8Gi", "example.com/fpga": "1"}
    made = pod(template=template(main(resources={"limits": limits})), slurm=slurm)
    assert job_of(made)["resources"]["limits"] == {**wanted, "example.com/fpga": "1"}


def test_the_job_lands_on_its_node_whatever_the_user_adds():
    options = PodOptions(
        node_selector={"kubernetes.io/hostname": "other", "disk": "ssd"}, service_account="sa", priority_class="low"
    )
    spec = pod(options)["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": "hpc", "disk": "ssd"}
    assert (spec["serviceAccountName"], spec["priorityClassName"]) == ("sa", "low")


def test_the_options_of_slurm_are_said_in_one_place():
    options = PodOptions(annotations={"slurm-job.vk.io/flags": "--time=1"})
    with pytest.raises(DefinitionError, match="follow from SlurmOptions"):
        pod(options, slurm=SlurmOptions(partition="gpu"))


CLAIM = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
LOST = {
    "claim": (PodOptions(volumes=[CLAIM]), "drops every mount"),
    "nfs": (PodOptions(volumes=[{"name": "v", "nfs": {"server": "s", "path": "/"}}]), "drops every mount"),
    "no kind": (PodOptions(volumes=[{"name": "v"}]), "drops every mount"),
    "host path": (PodOptions(volumes=[{"name": "v", "hostPath": {"path": "/scratch"}}]), "needs type Directory"),
    "items": (PodOptions(volumes=[{"name": "v", "configMap": {"name": "c", "items": [{}]}}]), "has items"),
    "projected secret": (
        PodOptions(volumes=[{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]),
        "leaves out",
    ),
    "sub path": (
        PodOptions(volumes=[SHARED], volume_mounts=[{"name": "shared", "mountPath": "/s", "subPath": "a"}]),
        "subPath",
    ),
    "name of a variable": (PodOptions(env=[{"name": "a.b", "value": "1"}]), "not a shell identifier"),
    "pod address": (
        PodOptions(env=[{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]),
        "stay Pending",
    ),
    "resource": (PodOptions(env=[{"name": "CPU", "valueFrom": {"resourceFieldRef": {}}}]), "drops"),
    "pull secrets": (PodOptions(image_pull_secrets=["r"]), "SINGULARITY_DOCKER_USERNAME"),
    "user": (PodOptions(pod_template_dict=template(main(), securityContext={"runAsUser": 0})), "--uid"),
    "sidecar": (PodOptions(init_containers=[other("i", restartPolicy="Always")]), "forever"),
}


@pytest.mark.parametrize("kind", LOST)
def test_what_a_virtual_node_would_lose_is_refused_there_and_taken_elsewhere(kind):
    options, why = LOST[kind]
    with pytest.raises(DefinitionError, match=why):
        pod(options, template=options.pod_template_dict)
    assert pod(options, template=options.pod_template_dict, node="")["spec"]["containers"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (PodOptions(volumes=[SHARED, SHARED]), "'shared' is there twice"),
        (PodOptions(containers=[other("job")]), "'job' is there twice"),
        (PodOptions(containers=[{"image": "x"}]), "is there twice"),
        (
            PodOptions(
                volumes=[SHARED], volume_mounts=[{"name": "shared", "mountPath": "/var/run/secrets/airflow-oscar/"}]
            ),
            "mounted at the same path",
        ),
        (PodOptions(pod_template_dict=template({"name": "a"}, {"name": "b"})), "call the one that is the job's"),
    ],
)
def test_what_collides_is_refused(options, why):
    with pytest.raises(DefinitionError, match=why):
        pod(options, template=options.pod_template_dict)


@pytest.mark.parametrize(
    ("name", "value"), [("env", {"A": "1"}), ("labels", ["a"]), ("service_account", 3), ("volumes", "shared")]
)
def test_a_value_of_another_kind_is_refused_in_the_dag_file(name, value):
    with pytest.raises(DefinitionError, match=f"PodOptions.{name}"):
        PodOptions(**{name: value})


def test_both_templates_are_one_too_many():
    with pytest.raises(DefinitionError, match="give one"):
        PodOptions(pod_template_dict=template(main()), pod_template_file="pod.yaml")


def test_every_text_is_rendered():
    options = PodOptions(
        env=[{"name": "DAY", "value": "{{ ds }}"}], labels={"run": "{{ run_id }}"}, service_account="sa"
    )
    made = options.rendered(lambda text: text.replace("{{ ds }}", "2026").replace("{{ run_id }}", "r1"))
    assert made == PodOptions(env=[{"name": "DAY", "value": "2026"}], labels={"run": "r1"}, service_account="sa")


@given(st.dictionaries(st.sampled_from(["team", "stage", "x"]), st.from_regex(r"[a-z]{1,9}", fullmatch=True)))
def test_nothing_of_ours_is_changed_by_labels(labels):
    ours, made = pod(), pod(PodOptions(labels=labels))
    assert made["spec"] == ours["spec"]
    assert {**labels, **ours["metadata"]["labels"]} == made["metadata"]["labels"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"readinessProbe": {"tcpSocket": {"port": 80}}}, "readinessProbe is of tcpSocket"),
        ({"livenessProbe": {"grpc": {"port": 80}}}, "livenessProbe is of grpc"),
        ({"startupProbe": {"httpGet": {"port": "web"}}}, "startupProbe names its port"),
        ({"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}, r"lifecycle\.preStop is of sleep"),
        ({"lifecycle": {"postStart": {"httpGet": {"port": "web"}}}}, r"lifecycle\.postStart names its port"),
    ],
)
def test_probes_and_hooks_that_the_plugin_leaves_out_are_refused_on_a_virtual_node_alone(fields, message):
    for containers in ((main(**fields),), (main(), other(**fields))):
        with pytest.raises(DefinitionError, match=message):
            pod(template=template(*containers), node="hpc")
        pod(template=template(*containers), node="")
