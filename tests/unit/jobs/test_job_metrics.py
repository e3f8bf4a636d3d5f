# SPDX-License-Identifier: Apache-2.0
"""Every ended job is counted once, with how long it took."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_oscar.core.errors import JobFailedError
from airflow_provider_oscar.jobs import job_metrics
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.outcome import OutcomeState
from airflow_provider_oscar.metrics import METRICS
from tests.support.fakes import manifest
from tests.unit.jobs.test_lifecycle import Bench

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
TAGS = {each.name: set(each.tags) for each in METRICS}


@pytest.fixture
def sent(monkeypatch):
    found = []
    monkeypatch.setattr(job_metrics, "count", lambda name, tags: found.append((name, 1, tags)))
    monkeypatch.setattr(job_metrics, "measure", lambda name, took, tags: found.append((name, took, tags)))
    return found


def phases(**seconds):
    end = AT.isoformat()
    return {
        name.replace("_", "-"): {"start": (AT - timedelta(seconds=took)).isoformat(), "end": end}
        for name, took in seconds.items()
    }


def test_a_job_is_counted_by_target_and_outcome_and_each_phase_is_measured(sent):
    fields = {**manifest("j").to_dict(), "placement": "hpc-gpu"}
    fields["phases"] = phases(queued=40, stage_in=2, run=30, stage_out=3, unheard_of=1)
    job_metrics.report("interlink", OutcomeState.SUCCEEDED, Manifest.from_dict(fields))
    assert {(name, str(value)) for name, value, _ in sent} == {
        ("oscar.job.ended", "1"),
        ("oscar.job.queue", "0:00:40"),
        ("oscar.job.stage_in", "0:00:02"),
        ("oscar.job.run", "0:00:30"),
        ("oscar.job.stage_out", "0:00:03"),
    }
    assert all(tags["target"] == "hpc-gpu" and set(tags) == TAGS[name] for name, _, tags in sent)


def test_a_job_without_a_manifest_is_counted_by_its_kind(sent):
    job_metrics.report("oscar", OutcomeState.LOST, None)
    assert sent == [("oscar.job.ended", 1, {"target": "oscar", "outcome": "lost"})]


def test_a_conclusion_reports_once_and_the_retry_that_finds_the_result_not_again():
    reported = []
    bench = Bench()

    def lifecycle():
        made = Bench.lifecycle(bench)
        made.report = lambda state, manifest: reported.append(state)
        return made

    bench.lifecycle = lifecycle
    bench.stored = manifest("j", 3)
    with pytest.raises(JobFailedError):
        bench.conclude()
    bench.stored = manifest("j")
    bench.conclude()
    bench.start()
    assert reported == [OutcomeState.FAILED, OutcomeState.SUCCEEDED]
