# SPDX-License-Identifier: Apache-2.0
"""The demo's judgement: what counts as proven, and what it says about everything else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from oscar_testbed.demo.results import Findings, Row, RunFacts, judge, make_row

from airflow_provider_oscar.core.objects import ObjectEvent, StoreType

PREFIX = "s3://out/job-1/"
EVENT = ObjectEvent(StoreType.S3, "store", "in", "a.h5", 10, "etag", "", datetime(2026, 1, 1, tzinfo=UTC))
RUN = RunFacts("run-1", "success", False, EVENT, {"target": "hpc-gpu", "reasons": ["large"]}, PREFIX)
PICTURE = b"a picture"


def manifest(**changes: Any) -> dict[str, Any]:
    found = {
        "version": "1.0",
        "submission_id": "job-1",
        "placement": "hpc-gpu",
        "input": {"uri": EVENT.uri, "etag": "etag", "size": 10},
        "output_uri": PREFIX,
        "outputs": [{"key": "a.png", "size": len(PICTURE), "sha256": hashlib.sha256(PICTURE).hexdigest()}],
        "exit_code": 0,
        "error": None,
        "phases": {"run": {"start": "2026-01-01T00:00:00+00:00", "end": "2026-01-01T00:00:02+00:00"}},
        "node": "n",
        "slurm_job_id": "7",
        "device": "cpu",
        "metrics": {"showers": 4},
    }
    return {**found, **changes}


def reader(**objects: bytes):
    stored = {f"{PREFIX}{name.replace('__', '.')}": data for name, data in objects.items()}
    return lambda uri, limit: stored.get(uri)


def store(found: dict[str, Any], picture: bytes = PICTURE):
    return reader(manifest__json=json.dumps(found).encode(), a__png=picture)


def test_run_with_a_manifest_and_matching_outputs_is_a_success():
    row = make_row(RUN, store(manifest()))
    assert row.succeeded
    assert (row.placement, row.why, row.job, row.showers) == ("hpc-gpu", "large", "SLURM 7", 4)
    assert row.seconds == {"run": 2.0}
    assert row.picture == PICTURE


@pytest.mark.parametrize(
    ("run", "read", "expected"),
    [
        pytest.param(RUN, reader(), "no manifest", id="no manifest"),
        pytest.param(RUN, store(manifest(exit_code=3)), "exit code 3", id="the command failed"),
        pytest.param(RUN, store(manifest(), picture=b"other"), "differs from its manifest", id="an output was changed"),
        pytest.param(RUN, reader(manifest__json=b"{"), "not a manifest", id="a cut manifest"),
        pytest.param(replace(RUN, state="failed"), store(manifest()), "run is failed", id="Airflow says it failed"),
        pytest.param(replace(RUN, output_uri=""), reader(), "names no output", id="the job never ended"),
    ],
)
def test_run_that_is_not_proven_is_no_success(run, read, expected):
    row = make_row(run, read)
    assert not row.succeeded
    assert expected in row.result


def row(uri: str, placement: str, *, forced: bool = False) -> Row:
    return Row(uri, "s3", placement, "", {}, "", 1, "", "success", True, True, forced, None)


COMPLETE = [row("a", "x"), row("b", "y"), row("a", "x", forced=True)]


def test_complete_demo_is_proven():
    findings = judge(["a", "b"], COMPLETE, ("x", "y"))
    assert findings == Findings([], [])
    assert findings.proven


@pytest.mark.parametrize(
    ("uploaded", "rows", "expected"),
    [
        pytest.param(["a", "b", "c"], COMPLETE, "c was not processed", id="a missed object"),
        pytest.param(["a", "b"], [*COMPLETE, row("a", "x")], "a was processed 2 times", id="a repeated object"),
        pytest.param(["a", "b"], [*COMPLETE, row("z", "x")], "z was processed but never uploaded", id="a stranger"),
        pytest.param(["a", "b"], COMPLETE[:2], "forced placement", id="no forced run"),
        pytest.param(["a", "b"], [COMPLETE[0], row("b", "x"), COMPLETE[2]], "no run used y", id="an unused target"),
        pytest.param(
            ["a", "b"],
            [*COMPLETE[1:], replace(COMPLETE[0], succeeded=False, result="boom")],
            "a: boom",
            id="a failed run",
        ),
    ],
)
def test_failure_is_named(uploaded, rows, expected):
    findings = judge(uploaded, rows, ("x", "y"))
    assert any(expected in problem for problem in findings.failed)
    assert not findings.unfinished
    assert not findings.proven


def test_run_that_has_not_ended_is_no_failure():
    late = make_row(replace(RUN, state="running"), reader())
    assert (late.finished, late.result) == (False, "not finished, Airflow run run-1 is running")
    findings = judge([late.object, "b"], [late], ("x",))
    assert findings.failed == []
    assert findings.unfinished == [
        f"{late.object}: {late.result}",
        "b was not processed",
        "no run used x",
        "the run with a forced placement did not take place",
    ]
    assert not findings.proven


def test_failure_is_told_apart_from_what_has_not_ended():
    late = make_row(replace(RUN, state="queued"), reader())
    failed = replace(COMPLETE[0], succeeded=False, result="boom")
    findings = judge(["a", late.object], [failed, late], ())
    assert findings.failed == ["a: boom"]
    assert findings.unfinished[0] == f"{late.object}: {late.result}"
