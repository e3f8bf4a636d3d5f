# SPDX-License-Identifier: Apache-2.0
"""As for Kubernetes and S3, for dCache and OSCAR: what ``deploy/rights`` grants suffices, and none can be spared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from oscar_testbed.platform import LocalPlatform

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.jobs.poller import PollTiming
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from tests.integration.conftest import HASTY_IMAGE
from tests.support.fakes import context
from tests.support.guard import DCacheGuard, OscarGuard, guarded
from tests.support.least_rights import run_on_slurm

RIGHTS = Path(__file__).parents[3] / "deploy" / "rights"
ACL = (RIGHTS / "dcache.acl").read_text()
ROUTES = (RIGHTS / "oscar-routes.txt").read_text()
COPY = [
    "sh",
    "-c",
    'mkdir "$TMP_OUTPUT_DIR/sub" && cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/sub/a.txt"',
]
REFUSED = (OscarProviderError, AirflowFailException)


@pytest.fixture
def dcache(platform: LocalPlatform, node: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DCacheGuard]:
    """The connection of dCache leads through a guard that has the ACL of the file, at door and frontend."""
    guard = DCacheGuard.of_acl(ACL)
    for path in guard.roots:
        if platform.dcache.namespace.stat(path) is None:
            platform.dcache.namespace.mkdir(path)
    platform.dcache.put("/incoming/a.txt", b"hello")
    connection = json.loads(json.dumps(platform.connections["dcache_default"]))
    with guarded(connection["host"], guard) as door, guarded(connection["extra"]["frontend_url"], guard) as frontend:
        connection["host"], connection["extra"]["frontend_url"] = door, frontend
        monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(connection))
        yield guard


def find_and_run(node: str, run: str) -> dict[str, Any]:
    """What a watcher and a job operator do with one file; twice, since a later attempt replaces files."""
    store = DCacheHook()
    (found,) = [event for event in store.list_directory("/incoming") if event.key == "a.txt"]
    for _ in range(2):
        manifest = run_on_slurm(
            node, run, found, image=HASTY_IMAGE, command=COPY, output_uri="dcache://dcache_default/results", timeout=40,
            reuse="never",
        )  # fmt: skip
    (output,) = manifest["outputs"]
    assert store.read_bytes(f"{manifest['output_uri']}{output['key']}", 100) == b"hello"
    return manifest


def test_the_acl_of_dcache_suffices_and_grants_nothing_that_nobody_uses(request, dcache, node):
    assert find_and_run(node, request.node.name)["exit_code"] == 0
    assert [right for right in dcache.asked if not dcache.may(right)] == []
    assert dcache.granted - dcache.asked == UNUSED


#: Granted for what one job on one file does not do, named with the reason.
UNUSED = {
    ("l", "/incoming/*/"): "directories below, of recursive watchers",
    ("x", "/incoming/*/"): "the same",
    ("t", "/incoming/*/"): "the same",
    ("t", "/incoming"): "what dCache itself looks at before it lists or writes",
    ("t", "/results"): "the same",
    ("t", "/results/*/"): "the same",
    ("t", "/results/*"): "the same",
}.keys()


@pytest.mark.parametrize(
    ("right", "named"),
    [
        (("l", "/incoming"), "/incoming"),
        (("r", "/incoming/*"), "a.txt"),
        (("s", "/results"), "/results"),
        (("f", "/results/*/"), "a.txt"),
        (("r", "/results/*"), "/results"),
    ],
    ids=lambda each: "".join(each) if isinstance(each, tuple) else each,
)
def test_without_a_right_of_dcache_the_error_names_the_path(request, dcache, node, right, named):
    assert right in dcache.granted
    dcache.granted.discard(right)
    with pytest.raises(REFUSED) as raised:
        find_and_run(node, request.node.name)
    assert named in str(raised.value)
    assert "403" in str(raised.value) or "denied" in str(raised.value).lower()


@pytest.fixture
def oscar(platform: LocalPlatform, service: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OscarGuard]:
    """The connection of OSCAR leads through a guard that knows the routes of the file; the service is there before."""
    guard = OscarGuard.of_routes(ROUTES)
    connection = json.loads(json.dumps(platform.connections["oscar_default"]))
    with guarded(connection["host"], guard) as url:
        monkeypatch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps({**connection, "host": url}))
        yield guard


def run_service(service: str, s3: Any, run: str) -> dict[str, Any]:
    s3.put_bytes("incoming", "least.txt", b"hello")
    task = OscarJobOperator(
        task_id="least", service=service, object_event=s3.head("incoming", "least.txt"), command=COPY,
        output_uri="s3://outgoing/results", timeout=40, poll_interval=0.3, deferrable=False,
    )  # fmt: skip
    return task.execute(context(partition_key=run, task_id="least"))


def test_the_routes_of_oscar_suffice_and_name_none_that_nobody_uses(request, oscar, service, s3):
    assert run_service(service, s3, request.node.name)["exit_code"] == 0
    assert [right for right in oscar.asked if not oscar.may(right)] == []
    assert oscar.granted - oscar.asked <= {("DELETE", "/system/logs/{service}/{job}")}, "of jobs that are run again"


@pytest.mark.parametrize(
    "right",
    [
        ("GET", "/system/services/{service}"),
        ("POST", "/job/{service}"),
        ("GET", "/system/logs/{service}"),
    ],
    ids="".join,
)
def test_without_a_route_of_oscar_the_error_names_service_and_connection(
    request, oscar, service, s3, monkeypatch, right
):
    assert right in oscar.granted
    oscar.granted.discard(right)
    monkeypatch.setattr(JobOperator, "pace", PollTiming(tolerance=timedelta(seconds=1), max_pause=0.5))
    with pytest.raises(REFUSED) as raised:
        run_service(service, s3, request.node.name)
    assert "oscar_default" in str(raised.value)
    assert service in str(raised.value)
    assert "403" in str(raised.value) or "may not" in str(raised.value)


def test_a_log_of_oscar_that_may_not_be_read_costs_the_log_and_not_the_job(request, oscar, service, s3):
    oscar.granted.discard(("GET", "/system/logs/{service}/{job}"))
    assert run_service(service, s3, request.node.name)["exit_code"] == 0
