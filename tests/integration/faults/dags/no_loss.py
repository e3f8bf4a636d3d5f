# SPDX-License-Identifier: Apache-2.0
"""Two inboxes, one ingest DAG, and a consumer that costs nothing: the DAGs that the harness counts the runs of."""

from __future__ import annotations

import os

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetWatcher, PartitionedAssetTimetable

from airflow_provider_oscar.ingest import object_ingest_dag
from airflow_provider_oscar.triggers.objects import DCacheNewObjectTrigger, S3NewObjectTrigger

POLL = float(os.environ.get("NO_LOSS_POLL", "2"))
MODE = os.environ.get("NO_LOSS_DCACHE_MODE", "sse")

s3_trigger = S3NewObjectTrigger(
    asset_name="s3-inbox", conn_id="oscar_s3_default", bucket="inbox", prefix="in/", start="all", poll_interval=POLL
)
dcache_trigger = DCacheNewObjectTrigger(
    asset_name="dcache-inbox",
    conn_id="dcache_default",
    path="/inbox",
    mode=MODE,
    start="all",
    poll_interval=POLL,
    reconcile_interval=60.0,
)
s3_inbox = Asset("s3-inbox", watchers=[AssetWatcher(name="s3", trigger=s3_trigger)])
dcache_inbox = Asset("dcache-inbox", watchers=[AssetWatcher(name="dcache", trigger=dcache_trigger)])
objects = Asset("objects")

ingest = object_ingest_dag("ingest", inboxes=[s3_inbox, dcache_inbox], objects=objects)

with DAG("per_object", schedule=PartitionedAssetTimetable(assets=objects), max_active_runs=64) as per_object:
    EmptyOperator(task_id="infer")
