# SPDX-License-Identifier: Apache-2.0
"""A consumer that costs nothing, of a bucket that is not there: its events are stored by the burst itself."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from airflow_provider_oscar.ingest import NewObjects

incoming = NewObjects("s3://burst/in/", poll_interval=3600)

with DAG("burst", schedule=incoming.each(), max_active_runs=16) as burst:
    EmptyOperator(task_id="work")
