# SPDX-License-Identifier: Apache-2.0
"""What nobody waits for is found by asking Airflow, saved, and removed; whatever is not clear stays."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.orphans import SecretInfo
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.jobs.result_store import ResultStore
from airflow_provider_oscar.jobs.signing import configured_signer
from airflow_provider_oscar.operators.maintenance import InterLinkMaintenanceOperator
from tests.support.fakes import context

OLD = datetime.now(UTC) - timedelta(hours=3)


@pytest.fixture
def left(cluster, monkeypatch):
    """A cluster with one pod of each kind; ``states`` is what Airflow says of tasks."""
    mine = f"{configured_signer().deployment_id}.digest.0"
    for name, phase in (("ended", JobPhase.FAILED), ("waited-for", JobPhase.RUNNING), ("given-up", JobPhase.RUNNING)):
        task = json.dumps({"dag_id": "d", "run_id": "r", "task_id": name, "map_index": -1})
        cluster.put(name, phase, created_at=OLD, owner=mine, task=task, slurm_job_id="17")
    cluster.put("foreign", JobPhase.RUNNING, created_at=OLD, owner="other.x.0", task=task)
    cluster.put("foreign-ended", JobPhase.FAILED, created_at=OLD, owner="other.x.0", task=task)
    cluster.put("nobodys", JobPhase.SUCCEEDED, created_at=OLD, owner="", task=task)
    cluster.put("unreadable", JobPhase.RUNNING, created_at=OLD, owner=mine, task="{")
    cluster.log = "its log\n"
    owners = {"no-pod": mine, "foreign-secret": "other.x.0", "nobodys-secret": ""}
    secrets = [SecretInfo(name, OLD, owner) for name, owner in owners.items()]
    monkeypatch.setattr(InterLinkHook, "list_secrets", lambda self: secrets)
    cluster.secrets |= {"no-pod": {}, "foreign-secret": {}, "nobodys-secret": {}}
    cluster.saved = {}

    def save(self, conn_id, uri, name, chunks):
        if cluster.saved is None:
            raise TransientError("the store is away")
        cluster.saved[name] = b"".join(chunks)
        return f"{uri}/{name}/job.log"

    monkeypatch.setattr(ResultStore, "save_log", save)
    return cluster


def run(left, states, **arguments):
    seen = context()
    seen["ti"].get_task_states = lambda dag_id, run_ids, task_ids, map_index: {
        run_id: {name: state for name, state in states.items() if name in task_ids} for run_id in run_ids
    }
    task = InterLinkMaintenanceOperator(task_id="clean", **{"logs_uri": "s3://logs/hpc", **arguments})
    return {each["name"]: each for each in task.execute(seen)}


STATES = {"ended": "failed", "waited-for": "deferred", "given-up": "failed"}


def test_what_nobody_waits_for_is_saved_and_removed_and_nothing_else(left):
    found = run(left, STATES)
    assert set(found) == {"ended", "given-up", "no-pod"}
    assert set(left.pods) == {"waited-for", "foreign", "foreign-ended", "nobodys", "unreadable"}
    assert {"foreign-secret", "nobodys-secret"} <= set(left.secrets)
    assert left.saved == {"ended": b"its log\n", "given-up": b"its log\n"}
    assert found["given-up"]["why"] == "its task d.given-up is failed"
    assert "its log is s3://logs/hpc/given-up/job.log" in found["given-up"]["outcome"]
    assert "no-pod" not in left.secrets


@pytest.mark.parametrize(
    "state", [None, "queued", "running", "deferred", "up_for_retry", "scheduled", "awaiting_input"]
)
def test_a_task_that_may_come_back_keeps_its_pod(left, state):
    assert "given-up" not in run(left, {**STATES, "given-up": state})
    assert "ended" not in run(left, {**STATES, "ended": state}), "the next try reads how it ended"


def test_a_task_that_was_removed_does_not(left):
    states = {name: state for name, state in STATES.items() if name != "given-up"}
    assert "is not there any more" in run(left, states)["given-up"]["why"]


def test_a_pod_whose_log_cannot_be_saved_stays(left):
    left.saved = None
    found = run(left, STATES)
    assert "the store is away" in found["ended"]["outcome"]
    assert not found["ended"]["gone"]
    assert "ended" in left.pods


def test_a_dry_run_removes_nothing(left):
    found = run(left, STATES, dry_run_only=True, logs_uri="")
    assert set(found) == {"ended", "given-up", "no-pod"}
    foreign = {"foreign", "foreign-ended", "nobodys"}
    assert set(left.pods) == {"ended", "waited-for", "given-up", "unreadable"} | foreign


def test_nothing_is_removed_without_a_place_for_logs():
    with pytest.raises(DefinitionError, match="has no logs_uri"):
        InterLinkMaintenanceOperator(task_id="clean")


def test_what_is_young_stays(left):
    assert run(left, STATES, older_than=timedelta(hours=5)) == {}
