# SPDX-License-Identifier: Apache-2.0
"""Metrics of jobs, sent when a job's end was seen; names and tags are in :mod:`airflow_provider_oscar.metrics`."""

from __future__ import annotations

from airflow_provider_oscar._airflow import count, measure
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.outcome import OutcomeState


def report(kind: str, state: OutcomeState, manifest: Manifest | None) -> None:
    """Count the job, and send how long each of its phases took.

    :param kind: name of the job backend, for jobs whose placement is not known.
    :param state: how it ended.
    :param manifest: of the job, if there is one.
    """
    target = (manifest.placement if manifest else "") or kind
    count("oscar.job.ended", {"target": target, "outcome": state.value})
    for name, phase in (manifest.phases if manifest else {}).items():
        if name in ("queued", "stage-in", "run", "stage-out"):
            part = {"queued": "queue"}.get(name, name.replace("-", "_"))
            measure(f"oscar.job.{part}", phase.duration, {"target": target})
