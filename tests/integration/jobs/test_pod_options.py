# SPDX-License-Identifier: Apache-2.0
"""A pod with everything a user may add runs on a virtual node, and each addition arrives in the command."""

from __future__ import annotations

import pytest
from kubernetes.client import V1ConfigMap, V1ObjectMeta, V1Secret

from airflow_provider_oscar.core.pod_options import PodOptions
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.integration.jobs.conftest import IMAGE
from tests.integration.jobs.test_jobs import run_id

NASTY = 'it\'s $HOME `id` "q" \\ ü\n end '
SCRIPT = """
set -eu
R=${CONTAINER_SANDBOX_MOUNT_POINT:-}
cd "$TMP_OUTPUT_DIR"
printf %s "$FROM_SECRET" > secret; printf %s "$P_WORD" > all; printf %s "$NASTY" > nasty; printf %s "$POD" > pod
cat "$R/conf/model.cfg" > conf; cat "$R/shared/from-init" > init
"""


@pytest.fixture
def site(platform):
    hook = InterLinkHook()
    meta = V1ObjectMeta(name="site")
    hook.core.create_namespaced_secret(hook.namespace, V1Secret(metadata=meta, string_data={"WORD": "s3cret"}))
    hook.core.create_namespaced_config_map(hook.namespace, V1ConfigMap(metadata=meta, data={"model.cfg": "layers=3\n"}))
    yield hook
    hook.core.delete_namespaced_secret("site", hook.namespace)
    hook.core.delete_namespaced_config_map("site", hook.namespace)


def test_everything_a_user_adds_arrives_and_a_sidecar_without_end_holds_nothing_up(request, site, node, s3):
    shared = {"name": "shared", "mountPath": "/shared"}
    options = PodOptions(
        env=[
            {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "site", "key": "WORD"}}},
            {"name": "NASTY", "value": NASTY},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        env_from=[{"prefix": "P_", "secretRef": {"name": "site"}}],
        volumes=[
            {"name": "shared", "emptyDir": {}},
            {"name": "conf", "configMap": {"name": "site", "defaultMode": 420}},
        ],
        volume_mounts=[shared, {"name": "conf", "mountPath": "/conf"}],
        init_containers=[
            {
                "name": "first",
                "image": IMAGE,
                "command": [
                    "sh",
                    "-c",
                    "echo from the init container > ${CONTAINER_SANDBOX_MOUNT_POINT:-}/shared/from-init",
                ],
                "volumeMounts": [shared],
            }
        ],
        containers=[{"name": "beside", "image": IMAGE, "command": ["sh", "-c", "sleep 300"]}],
        labels={"team": "a"},
    )
    slurm = SlurmOptions(time="10", memory_mib=256)
    task = InterLinkPodOperator(
        task_id="run",
        image=IMAGE,
        target=PlacementTarget(name="hpc-cpu", task_id="x", kind="interlink", node=node, slurm=slurm),
        command=["sh", "-c", SCRIPT],
        output_uri="s3://outgoing/options",
        timeout=120,
        poll_interval=0.3,
        deferrable=False,
        pod_options=options,
    )
    found = task.execute(run_id(request))
    assert found["exit_code"] == 0
    outputs = {
        each["key"]: s3.read_bytes(found["output_uri"] + each["key"], 1000).decode() for each in found["outputs"]
    }
    assert outputs == {
        "secret": "s3cret",
        "all": "s3cret",
        "nasty": NASTY,
        "pod": task._job.job_id,
        "conf": "layers=3\n",
        "init": "from the init container\n",
    }
