# SPDX-License-Identifier: Apache-2.0
"""What killed workers of a real Airflow leave on real SLURM: the command names exactly that, and a DAG removes it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oscar_testbed import LocalPlatform

from airflow_provider_oscar.core.podstatus import OWNER_LABEL
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from tests.integration.faults.airflow_parts import AirflowParts
from tests.integration.jobs import quick

DAGS = Path(__file__).parent / "left_dags"
KILLED = {"runs_on", "ended", "waits_for_its_secret"}
FOREIGN, LOST = "of-somebody-else", "lost-its-pod"


@pytest.fixture
def others(platform: LocalPlatform) -> Iterator[InterLinkHook]:
    """The cluster with a pod of somebody else and a secret of ours whose pod is gone."""
    hook = InterLinkHook()
    spec = {"containers": [{"name": "c", "image": "python:3-slim", "command": ["true"]}], "nodeName": "elsewhere"}
    foreign = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": FOREIGN}, "spec": spec}
    hook.core.create_namespaced_pod(hook.namespace, foreign)
    ours = {"app.kubernetes.io/managed-by": "airflow-provider-oscar", OWNER_LABEL: f"left.{'0' * 32}.0"}
    lost = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": LOST, "labels": ours}}
    hook.core.create_namespaced_secret(hook.namespace, lost)
    yield hook
    hook.delete_pod(FOREIGN)
    hook.delete_secret(LOST)


def orphans(airflow: AirflowParts) -> dict[tuple[str, str], str]:
    """What ``airflow oscar hpc orphans`` lists, and why."""
    words = ("oscar", "hpc", "orphans", "--older-than", "0.02", "--output", "json")
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *words],
        env=airflow.environment(),
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return {(each["kind"], each["name"]): each["why"] for each in rows}


@pytest.mark.timeout(1500)
@pytest.mark.filterwarnings("default")
def test_what_killed_workers_leave_is_named_and_removed_and_nothing_else(
    tmp_path: Path, platform: LocalPlatform, others: InterLinkHook, s3: OscarS3Hook
) -> None:
    hook = others
    variables = {
        **platform.environment(),
        "LEFT_NODE": quick.node_of(platform),
        "AIRFLOW__OSCAR__DEFER_AFTER": "0",
        "AIRFLOW__OSCAR__DEPLOYMENT_ID": "left",
    }
    airflow = AirflowParts(tmp_path / "airflow", dags=DAGS, environment=variables, parallelism=4)
    # Tests of the same platform may have left something before.
    before = {each.name for each in [*hook.list_pods(), *hook.list_secrets()]} - {LOST}

    def states(dag: str) -> dict[str, str]:
        rows = quick.query(airflow, f"SELECT task_id, state FROM task_instance WHERE dag_id = '{dag}'")
        return {str(task): str(state) for task, state in rows}

    def pods() -> dict[str, str]:
        """The pods of the DAG by the tasks that made them."""
        found = {}
        for pod in hook.list_pods():
            if pod.task and json.loads(pod.task)["dag_id"] == "left":
                found[json.loads(pod.task)["task_id"]] = pod.name
        return found

    try:
        airflow.start()
        quick.until(lambda: quick.query(airflow, "SELECT count(*) FROM dag WHERE dag_id = 'left'")[0][0] == 1, 120)
        airflow.api.post("dags/left/dagRuns", {"logical_date": None})
        wanted = {**dict.fromkeys(KILLED, "failed"), "waited_for": "deferred"}
        quick.until(lambda: states("left") == wanted, 480)
        made = pods()
        assert made.keys() == wanted.keys()
        quick.until(lambda: hook.read_pod(made["ended"]).phase.ended, 120)
        secrets = {each.name for each in hook.list_secrets()}
        assert {made["runs_on"], made["waited_for"]} <= secrets

        listed = {key: why for key, why in orphans(airflow).items() if key[1] not in before}
        assert listed == {
            ("pod", made["runs_on"]): "its task left.runs_on is failed",
            ("pod", made["waits_for_its_secret"]): "its task left.waits_for_its_secret is failed",
            ("pod", made["ended"]): "it has succeeded and nobody removed it",
            ("secret", LOST): "there is no pod of its name",
        }

        airflow.api.post("dags/sweep/dagRuns", {"logical_date": None})
        quick.until(lambda: states("sweep").get("sweep") in ("success", "failed"), 480)
        assert states("sweep") == {"sweep": "success"}
        assert pods() == {"waited_for": made["waited_for"]}
        assert {each.name for each in hook.list_pods()} >= {made["waited_for"], FOREIGN}
        left = {each.name for each in hook.list_secrets()}
        assert made["waited_for"] in left
        assert not left & {*(made[task] for task in KILLED), LOST}
        assert states("left")["waited_for"] == "deferred"
        assert s3.head("outgoing", f"swept/{made['ended']}/job.log") is not None
    finally:
        airflow.stop()
        for name in pods().values():
            hook.delete_pod(name)
