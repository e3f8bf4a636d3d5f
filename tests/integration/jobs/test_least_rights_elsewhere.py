# SPDX-License-Identifier: Apache-2.0
"""As for Kubernetes and S3, for dCache and OSCAR: what ``deploy/rights`` grants suffices, and none can be spared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
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
    'test -z "$FAIL" && mkdir "$TMP_OUTPUT_DIR/sub" && cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/sub/a.txt"',
]
REFUSED = (OscarProviderError, AirflowFailException)


@pytest.fixture
def dcache(platform: LocalPlatform, node: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DCacheGuard]:
    """The connection of dCache leads through a guard that has the ACL of the file, at door and frontend."""
    guard = DCacheGuard.of_acl(ACL)
    for path in guard.roots:
        if platform.dcache.namespace.stat(path) is None:
            platform.dcache.namespace.mkdir(path)
    if platform.dcache.namespace.stat("/incoming/below") is None:
        platform.dcache.namespace.mkdir("/incoming/below")
    platform.dcache.put("/incoming/below/a.txt", b"hello")
    connection = json.loads(json.dumps(platform.connections["dcache_default"]))
    with guarded(connection["host"], guard) as door, guarded(connection["extra"]["frontend_url"], guard) as frontend:
        connection["host"], connection["extra"]["frontend_url"] = door, frontend
        monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(connection))
        yield guard


def find_and_run(node: str, run: str) -> dict[str, Any]:
    """What a recursive watcher and a job operator do with one file; twice, since a later attempt replaces files."""
    store = DCacheHook()
    for directory in ("/incoming", "/incoming/below"):
        found = {event.key.rpartition("/")[2]: event for event in store.list_directory(directory)}
    for _ in range(2):
        manifest = run_on_slurm(
            node, run, found["a.txt"], image=HASTY_IMAGE, command=COPY, output_uri="dcache://dcache_default/results",
            timeout=40, reuse="never",
        )  # fmt: skip
    (output,) = manifest["outputs"]
    assert store.read_bytes(f"{manifest['output_uri']}{output['key']}", 100) == b"hello"
    return manifest


def test_the_acl_of_dcache_suffices(request, dcache, node):
    assert find_and_run(node, request.node.name)["exit_code"] == 0
    assert [right for right in dcache.asked if not dcache.may(right)] == []


#: What an error has to name besides connection and right, for each right of the file.
FAILS_WITHOUT = {
    ("x", "/incoming"): "'/incoming",
    ("l", "/incoming"): "'/incoming'",
    ("t", "/incoming"): "'/incoming'",
    ("x", "/incoming/*/"): "'/incoming/below/a.txt'",
    ("l", "/incoming/*/"): "'/incoming/below'",
    ("t", "/incoming/*/"): "'/incoming/below'",
    ("t", "/incoming/*"): "/incoming/below/a.txt'",
    ("r", "/incoming/*"): "/incoming/below/a.txt'",
    ("x", "/results"): "'/results",
    ("t", "/results"): "'/results",
    ("s", "/results"): "'/results",
    ("x", "/results/*/"): "/results/",
    ("t", "/results/*/"): "a.txt'",
    ("s", "/results/*/"): "a.txt'",
    ("f", "/results/*/"): "a.txt'",
    ("D", "/results/*/"): "a.txt'",
    ("d", "/results/*"): "a.txt'",
    ("t", "/results/*"): "/results/",
    ("r", "/results/*"): "/results/",
}


def test_each_right_of_the_acl_is_taken_away_below(dcache):
    assert dcache.granted == FAILS_WITHOUT.keys()


@pytest.mark.parametrize("right", FAILS_WITHOUT, ids=" ".join)
def test_without_a_right_of_dcache_the_error_names_connection_path_right_and_remedy(request, dcache, node, right):
    dcache.granted.discard(right)
    with pytest.raises(REFUSED) as raised:
        find_and_run(node, request.node.name)
    message = str(raised.value)
    assert "dcache_default" in message
    assert FAILS_WITHOUT[right] in message
    assert re.search(rf"(?<!\w){right[0]}(?!\w)", message.partition("403")[2])
    assert re.search("the account of connection .* may not|the account or its token needs", message)


@pytest.fixture
def oscar(platform: LocalPlatform, service: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OscarGuard]:
    """The connection of OSCAR leads through a guard that knows the routes of the file; the service is there before."""
    guard = OscarGuard.of_routes(ROUTES)
    connection = json.loads(json.dumps(platform.connections["oscar_default"]))
    with guarded(connection["host"], guard) as url:
        monkeypatch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps({**connection, "host": url}))
        yield guard


def run_service(service: str, s3: Any, run: str, **wanted: Any) -> dict[str, Any]:
    s3.put_bytes("incoming", "least.txt", b"hello")
    task = OscarJobOperator(
        task_id="least", service=service, object_event=s3.head("incoming", "least.txt"), command=COPY,
        output_uri="s3://outgoing/results", timeout=40, poll_interval=0.3, deferrable=False, **wanted,
    )  # fmt: skip
    return task.execute(context(partition_key=run, task_id="least"))


def run_again(service: str, s3: Any, run: str) -> dict[str, Any]:
    """A job that failed is run again under its name, so that what is left of it has to go."""
    with suppress(*REFUSED):
        run_service(service, s3, run, environment={"FAIL": "1"})
    return run_service(service, s3, run)


def test_the_routes_of_oscar_suffice(request, oscar, service, s3):
    assert run_again(service, s3, request.node.name)["exit_code"] == 0
    assert [right for right in oscar.asked if not oscar.may(right)] == []
    assert oscar.granted == oscar.asked


@pytest.mark.parametrize(
    "right", [
        ("GET", "/system/services/{service}"),
        ("POST", "/job/{service}"),
        ("GET", "/system/logs/{service}"),
        ("DELETE", "/system/logs/{service}/{job}"),
    ], ids="".join,
)  # fmt: skip
def test_without_a_route_of_oscar_the_error_names_connection_service_route_and_remedy(
    request, oscar, service, s3, monkeypatch, right
):
    oscar.granted.remove(right)
    monkeypatch.setattr(JobOperator, "pace", PollTiming(tolerance=timedelta(seconds=1), max_pause=0.5))
    with pytest.raises(REFUSED) as raised:
        run_again(service, s3, request.node.name)
    message = str(raised.value)
    assert "oscar_default" in message
    assert service in message
    assert f"for {right[0]} '{right[1].partition('{')[0]}{service}" in message
    assert "has to be the owner or among the allowed_users" in message


def test_a_log_of_oscar_that_may_not_be_read_costs_the_log_and_not_the_job(request, oscar, service, s3, capsys):
    oscar.granted.remove(("GET", "/system/logs/{service}/{job}"))
    assert run_service(service, s3, request.node.name)["exit_code"] == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if "[warning" in line]
    assert any("oscar_default" in each and f"for GET '/system/logs/{service}/" in each for each in warnings), warnings
