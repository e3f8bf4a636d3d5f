# SPDX-License-Identifier: Apache-2.0
"""A consumer whose filter the harness changes in the middle: the line below, to another word of the same meaning.

What the new watchers do not take over from the old ones they would not report: they start with ``"now"``.
"""

from __future__ import annotations

import os

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from airflow_provider_oscar.ingest import NewObjects

POLL = float(os.environ.get("NO_LOSS_POLL", "2"))
CHOICE = {"start": "all", "glob": "*.dat"}

incoming = NewObjects("s3://inbox/in/", poll_interval=POLL, **CHOICE) | NewObjects(
    "dcache://dcache_default/inbox",
    poll_interval=POLL,
    watch={"notifications": os.environ.get("NO_LOSS_DCACHE_MODE", "sse"), "reconcile_interval": 60.0},
    **CHOICE,
)

with DAG("filtered", schedule=incoming.each(), max_active_runs=64) as filtered:
    EmptyOperator(task_id="infer")
