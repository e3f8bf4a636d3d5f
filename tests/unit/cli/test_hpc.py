# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar hpc`` over a cluster in memory."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_oscar.cli import hpc
from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.nodes import VirtualNode
from airflow_provider_oscar.core.orphans import SecretInfo
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.podstatus import PodStatus
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.jobs.signing import configured_signer

OPTIONS = Namespace(conn_id="c", namespace="", output="json", older_than=60.0, remove=False, job="done", logs=".")


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    old, mine = datetime.now(UTC) - timedelta(hours=3), f"{configured_signer().deployment_id}.digest.0"
    pods = {
        "done": PodStatus(name="done", phase=JobPhase.SUCCEEDED, slurm_job_id="17", created_at=old, owner=mine),
        "foreign": PodStatus(name="foreign", phase=JobPhase.FAILED, created_at=old, owner="other.digest.0"),
        "busy": PodStatus(name="busy", phase=JobPhase.RUNNING, slurm_job_id="18", created_at=old),
    }
    secrets = {name: SecretInfo(name, old, mine) for name in ("done", "busy", "lost")}
    secrets["foreign-lost"] = SecretInfo("foreign-lost", old, "other.digest.0")
    monkeypatch.setattr(InterLinkHook, "list_pods", lambda self, **_: list(pods.values()))
    monkeypatch.setattr(InterLinkHook, "list_secrets", lambda self: list(secrets.values()))
    monkeypatch.setattr(InterLinkHook, "read_pod", lambda self, name: pods.get(name))
    monkeypatch.setattr(InterLinkHook, "delete_pod", lambda self, name: pods.pop(name, None) is not None)
    monkeypatch.setattr(InterLinkHook, "delete_secret", lambda self, name: secrets.pop(name, None) is not None)
    monkeypatch.setattr(InterLinkHook, "log_chunks", lambda self, name: iter([b"a log\n"] if name in pods else []))
    monkeypatch.setattr(InterLinkHook, "slurm", None)
    monkeypatch.setattr(InterLinkHook, "namespace", "n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(InterLinkHook, "nodes", lambda self: [VirtualNode(name="hpc", cpu="4")])
    return pods, secrets


def answered(function, capsys, **changes):
    function(Namespace(**{**vars(OPTIONS), **changes}))
    return json.loads(capsys.readouterr().out)


def test_orphans_are_listed_and_nothing_is_deleted(cluster, capsys):
    found = answered(hpc.orphans, capsys)
    assert [(each["kind"], each["name"], each["slurm_job_id"]) for each in found] == [
        ("pod", "done", "17"),
        ("secret", "lost", ""),
    ]
    assert set(cluster[0]) == {"done", "busy", "foreign"}


def test_orphans_are_removed_when_asked_for_and_no_other(cluster, capsys):
    removed = answered(hpc.orphans, capsys, remove=True)
    assert [each["outcome"] for each in removed] == ["deleted; its log is done.log", "deleted"]
    pods, secrets = cluster
    assert set(pods) == {"busy", "foreign"}
    assert "lost" not in secrets
    assert "foreign-lost" in secrets
    assert "busy" in secrets


def test_an_active_pod_whose_task_is_over_is_listed_with_the_reason(cluster, capsys, monkeypatch):
    pods, _ = cluster
    mine = f"{configured_signer().deployment_id}.digest.0"
    for name in ("given-up", "waited-for"):
        task = json.dumps({"dag_id": "d", "run_id": "r", "task_id": name, "map_index": 2})
        pods[name] = replace(pods["busy"], name=name, owner=mine, task=task)
    states = {"given-up": "failed", "waited-for": "deferred"}
    monkeypatch.setattr(hpc, "_task_state", lambda task: states[task.task_id])
    found = {each["name"]: each["why"] for each in answered(hpc.orphans, capsys)}
    assert found.keys() == {"done", "given-up", "lost"}
    assert found["given-up"] == "its task d.given-up_2 is failed"


def test_what_is_young_is_passed_over(cluster, capsys):
    assert answered(hpc.orphans, capsys, older_than=600.0) == []


def test_jobs_and_nodes_are_listed(cluster, capsys):
    assert {each["name"] for each in answered(hpc.jobs, capsys)} == {"done", "busy", "foreign"}
    assert answered(hpc.nodes, capsys)[0]["cpu"] == "4"


def test_cancel_saves_the_log_and_says_what_was_seen(cluster, capsys, tmp_path):
    busy = Namespace(**{**vars(OPTIONS), "job": "busy", "output": "table"})
    hpc.cancel(busy)
    said = capsys.readouterr().out
    assert "busy was cancelled: its pod is gone, but whether SLURM job 18 has ended was not seen" in said
    assert (tmp_path / "busy.log").read_text() == "a log\n"
    hpc.cancel(busy)
    assert "busy was not there any more" in capsys.readouterr().out


def test_an_error_is_one_line(cluster, monkeypatch):
    def away(self, **_):
        raise TransientError("the cluster is away")

    monkeypatch.setattr(InterLinkHook, "list_pods", away)
    with pytest.raises(SystemExit, match="error: the cluster is away"):
        hpc.jobs(OPTIONS)
