# SPDX-License-Identifier: Apache-2.0
"""The DAGs of the latency figures: Airflow alone, and one consumer of S3 and dCache, listed, notified and posted."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset

from airflow_provider_oscar.ingest import NewObjects

POLL = 2.0

incoming = (
    NewObjects("s3://inbox/in/", start="all", poll_interval=POLL)
    | NewObjects("dcache://dcache_default/inbox", start="all", poll_interval=POLL, watch={"notifications": "sse"})
    | NewObjects("webdav://dcache_default/listed", start="all", poll_interval=POLL)
    # Told of by webhook; the watcher beside it looks too rarely to matter.
    | NewObjects("s3://posted/in/", start="now", poll_interval=3600)
)

# Airflow alone: an event of an asset that nobody watches, and a run that Airflow makes of it by itself.
with DAG("floor", schedule=[Asset("floor")], max_active_runs=64) as floor:
    EmptyOperator(task_id="infer")

with DAG("per_object", schedule=incoming.each(), max_active_runs=64) as per_object:
    EmptyOperator(task_id="infer")
