# SPDX-License-Identifier: Apache-2.0
"""The files of ``deploy/rights`` suffice for finding an object, running its job and reading its result, and no right of
them can be spared: without it the error names what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException
from oscar_testbed.platform import LocalPlatform

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.hooks.interlink import hook as hook_module
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.poller import PollTiming
from airflow_provider_oscar.jobs.result_store import ResultStore
from airflow_provider_oscar.operators.job import JobOperator
from tests.integration.conftest import HASTY_IMAGE
from tests.support.guard import KubernetesGuard, S3Guard, guarded
from tests.support.least_rights import run_on_slurm

RIGHTS = Path(__file__).parents[3] / "deploy" / "rights"
ROLE = next(
    each for each in yaml.safe_load_all((RIGHTS / "kubernetes.yaml").read_text()) if each and each["kind"] == "Role"
)
POLICY = json.loads((RIGHTS / "s3-policy.json").read_text())
COPY = ["python3", "-c", "import os,shutil; shutil.copy(os.environ['INPUT_FILE_PATH'], os.environ['TMP_OUTPUT_DIR'])"]
RENEWING = ("s3:DeleteObject", "results/words/.airflow-oscar-access/*")
PARTS = ("s3:DeleteObject", "results/words/*/.airflow-oscar-parts/*")
SECOND = ("s3:DeleteObject", "results/words/*/manifest.json")
ABORT = ("s3:AbortMultipartUpload", "results/words/*")
VERSIONED = ("s3:GetObjectVersion", "incoming/*")
BIG = ["sh", "-c", 'head -c 6000000 /dev/zero > "$TMP_OUTPUT_DIR/big.bin"']
OUTPUT = "s3://results/words"
#: What an error has to say besides connection and right, for each right without which a task fails.
FAILS_WITHOUT = {
    ("create", "pods"): "pod 'least-",
    ("get", "pods"): "pod 'least-",
    ("list", "pods"): "list pods in namespace 'default'",
    ("create", "secrets"): "secret 'least-",
    ("s3:ListBucket", "incoming"): "'incoming'",
    ("s3:GetObject", "incoming/*"): "'a.txt'",
    VERSIONED: "'s3://incoming/a.txt'",
    ("s3:PutObject", "results/words/*"): "'a.txt'",
    ("s3:GetObject", "results/words/*"): "/manifest.json'",
    ("s3:ListBucket", "results"): "/manifest.json'",
    SECOND: "/manifest.json'",
}
#: The same for rights without which something is left or missing, and a warning says so.
WARNS_WITHOUT = {
    ("get", "pods/log"): "pod 'least-",
    ("delete", "pods"): "pod 'least-",
    ("delete", "secrets"): "secret 'least-",
    ABORT: "/big.bin'",
    PARTS: ".airflow-oscar-parts/",
    RENEWING: ".airflow-oscar-access/",
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
        monkeypatch.setattr(hook_module, "PAUSES", (0.1,))
        monkeypatch.setattr(JobOperator, "pace", PollTiming(tolerance=timedelta(seconds=1), max_pause=0.5))
        platform.s3.client().put_object(Bucket="incoming", Key="a.txt", Body=b"hello")
        yield found


def find_and_run(node: str, run: str, **wanted: Any) -> dict[str, Any]:
    """What a watcher and a job operator do with one object."""
    store = OscarS3Hook()
    (found,) = [event for page in store.list_pages("incoming", "a.txt") for event in page.events]
    found = msgspec.structs.replace(found, version_id=wanted.pop("version", ""))
    wanted = {"image": HASTY_IMAGE, "command": COPY, "output_uri": OUTPUT, "timeout": 60, **wanted}
    manifest = run_on_slurm(node, run, found, **wanted)
    (output,) = manifest["outputs"]
    assert store.exists("results", f"{manifest['output_uri']}{output['key']}".removeprefix("s3://results/"))
    return manifest


def use(guards: Guards, right: tuple[str, str], node: str, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what needs a right."""
    wanted: dict[str, Any] = {}
    if right == VERSIONED:
        wanted = {"version": "null"}  # as stores call the only version of a bucket without versions
    elif right in (ABORT, PARTS):
        guards.s3.broken = "uploadId" if right == ABORT else ""
        wanted = {"command": BIG}
    elif right == RENEWING:
        monkeypatch.setenv("AIRFLOW__OSCAR__ACCESS_LIFETIME", "60")
        wanted = {"timeout": 600}
    manifest = find_and_run(node, run, **wanted)
    if right == SECOND:
        ResultStore().revoke("oscar_s3_default", OUTPUT, manifest["submission_id"])


def test_the_files_of_rights_suffice(request, guards, node_name, monkeypatch):
    for number, right in enumerate([("get", "pods"), VERSIONED, PARTS, RENEWING, SECOND]):
        use(guards, right, node_name, f"{request.node.name}-{number}", monkeypatch)
    for guard in (guards.kubernetes, guards.s3):
        assert [right for right in guard.asked if not guard.may(right)] == []


def test_each_right_of_the_files_is_taken_away_below(guards):
    assert guards.kubernetes.granted | guards.s3.granted == FAILS_WITHOUT.keys() | WARNS_WITHOUT.keys()


def name_of(right: tuple[str, str]) -> str:
    return right[0] if right[0].startswith("s3:") else f"{right[0]} on {right[1]}"


@pytest.mark.parametrize("right", FAILS_WITHOUT, ids=" ".join)
def test_without_a_right_the_error_names_connection_object_right_and_remedy(
    request, guards, node_name, right, monkeypatch
):
    for guard in (guards.kubernetes, guards.s3):
        guard.granted.discard(right)
    with pytest.raises((OscarProviderError, AirflowFailException)) as raised:
        use(guards, right, node_name, request.node.name, monkeypatch)
    message = str(raised.value)
    assert ("oscar_s3_default" if right[0].startswith("s3:") else "interlink_default") in message
    assert FAILS_WITHOUT[right] in message
    assert "grant" in message
    assert name_of(right) in message


@pytest.mark.parametrize("right", WARNS_WITHOUT, ids=" ".join)
def test_what_only_tidies_up_or_shows_costs_a_warning_that_says_the_same(
    request, guards, node_name, right, monkeypatch, capsys, caplog
):
    for guard in (guards.kubernetes, guards.s3):
        guard.granted.discard(right)
    if right == ABORT:  # used where the joining of a large result fails
        with pytest.raises((OscarProviderError, AirflowFailException)):
            use(guards, right, node_name, request.node.name, monkeypatch)
    else:
        use(guards, right, node_name, request.node.name, monkeypatch)
    # A task's own logger prints, those of modules are Python's.
    warnings = [line for line in capsys.readouterr().out.splitlines() if "[warning" in line]
    warnings += [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    message = next((each for each in warnings if WARNS_WITHOUT[right] in each and name_of(right) in each), warnings)
    assert ("oscar_s3_default" if right[0].startswith("s3:") else "interlink_default") in message
    assert "grant" in message
