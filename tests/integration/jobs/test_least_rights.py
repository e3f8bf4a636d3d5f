# SPDX-License-Identifier: Apache-2.0
"""The files of ``deploy/rights`` suffice for finding an object, running its job and reading its result, and no right of
them can be spared: without it the error names what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException
from oscar_testbed.platform import LocalPlatform

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from tests.integration.conftest import HASTY_IMAGE
from tests.support.guard import KubernetesGuard, S3Guard, guarded
from tests.support.least_rights import run_on_slurm

RIGHTS = Path(__file__).parents[3] / "deploy" / "rights"
ROLE = next(
    each for each in yaml.safe_load_all((RIGHTS / "kubernetes.yaml").read_text()) if each and each["kind"] == "Role"
)
POLICY = json.loads((RIGHTS / "s3-policy.json").read_text())
COPY = ["python3", "-c", "import os,shutil; shutil.copy(os.environ['INPUT_FILE_PATH'], os.environ['TMP_OUTPUT_DIR'])"]
#: Rights that one job on one object does not use: they are for others, named with the reason.
FOR_OTHERS = {
    ("s3:ListBucketVersions", "incoming"): "buckets with versions",
    ("s3:GetObjectVersion", "incoming/*"): "buckets with versions",
    ("s3:AbortMultipartUpload", "results/words/*"): "a large result that was broken off",
    ("s3:DeleteObject", "results/words/*/.airflow-oscar-parts/*"): "large results",
    ("s3:ListBucket", "results?words/*/.airflow-oscar-parts/*"): "large results of jobs that failed",
}


@dataclass
class Guards:
    """The two systems behind their files of rights."""

    kubernetes: KubernetesGuard
    s3: S3Guard


@pytest.fixture
def node_name(node: str) -> str:
    """A virtual node; found before the guards are there, since placement alone may look at nodes."""
    return node


@pytest.fixture
def guards(platform: LocalPlatform, node_name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guards]:
    """Connections that lead through the guards; buckets of the names that the policy has."""
    for bucket in ("incoming", "results"):
        platform.s3.create_bucket(bucket)
    found = Guards(KubernetesGuard.of_role(ROLE), S3Guard.of_policy(POLICY))
    connections = json.loads(json.dumps(platform.connections))
    config = json.loads(connections["interlink_default"]["extra"]["kube_config_secret"])
    cluster, store = config["clusters"][0]["cluster"], connections["oscar_s3_default"]
    with ExitStack() as stack:
        cluster["server"] = stack.enter_context(guarded(cluster["server"], found.kubernetes))
        store["host"] = stack.enter_context(guarded(store["host"], found.s3))
        connections["interlink_default"]["extra"]["kube_config_secret"] = json.dumps(config)
        for conn_id in ("interlink_default", "oscar_s3_default"):
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connections[conn_id]))
        platform.s3.client().put_object(Bucket="incoming", Key="a.txt", Body=b"hello")
        yield found


def find_and_run(node: str, run: str) -> dict[str, Any]:
    """What a watcher and a job operator do with one object."""
    store = OscarS3Hook()
    (found,) = [event for page in store.list_pages("incoming", "a.txt") for event in page.events]
    manifest = run_on_slurm(
        node, run, found, image=HASTY_IMAGE, command=COPY, output_uri="s3://results/words", timeout=20
    )
    (output,) = manifest["outputs"]
    assert store.read_bytes(f"{manifest['output_uri']}{output['key']}", 100) == b"hello"
    return manifest


def test_the_files_of_rights_suffice_and_grant_nothing_that_nobody_uses(request, guards, node_name):
    assert find_and_run(node_name, request.node.name)["exit_code"] == 0
    assert [right for right in guards.kubernetes.asked if not guards.kubernetes.may(right)] == []
    assert [right for right in guards.s3.asked if not guards.s3.may(right)] == []
    assert guards.kubernetes.granted - guards.kubernetes.asked - {("delete", "secrets")} == set()
    used = {granted for granted in guards.s3.granted for right in guards.s3.asked if S3Guard([granted]).may(right)}
    assert guards.s3.granted - used == set(FOR_OTHERS)


def refused(node: str, run: str) -> str:
    with pytest.raises((OscarProviderError, AirflowFailException)) as raised:
        find_and_run(node, run)
    return str(raised.value)


@pytest.mark.parametrize("right", [("create", "pods"), ("get", "pods"), ("list", "pods"), ("create", "secrets")])
def test_without_a_right_of_kubernetes_the_error_names_it(request, guards, node_name, right):
    guards.kubernetes.granted.discard(right)
    verb, resource = right
    message = refused(node_name, request.node.name)
    assert f'cannot {verb} resource "{resource}"' in message
    assert "interlink_default" in message


@pytest.mark.parametrize(
    ("right", "place"),
    [
        (("s3:ListBucket", "incoming"), "incoming"),
        (("s3:GetObject", "incoming/*"), "a.txt"),
        (("s3:PutObject", "results/words/*"), "a.txt"),
        (("s3:GetObject", "results/words/*"), "results"),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else each,
)
def test_without_a_right_of_s3_the_error_names_the_place(request, guards, node_name, right, place):
    assert right in guards.s3.granted
    guards.s3.granted.discard(right)
    message = refused(node_name, request.node.name)
    assert place in message
    assert "403" in message or "denied" in message.lower()


def test_a_log_that_may_not_be_read_costs_the_log_and_not_the_job(request, guards, node_name):
    guards.kubernetes.granted.discard(("get", "pods/log"))
    assert find_and_run(node_name, request.node.name)["exit_code"] == 0


def test_a_pod_may_not_be_left_behind_for_want_of_a_right(request, guards, node_name):
    guards.kubernetes.granted.discard(("delete", "pods"))
    find_and_run(node_name, request.node.name)
    assert InterLinkHook().list_pods(), "the pod is there, and its task has succeeded"
