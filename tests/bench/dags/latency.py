# SPDX-License-Identifier: Apache-2.0
"""The DAGs of the latency figures: the same consumer behind an S3 inbox, dCache notifications and dCache listings."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetWatcher, PartitionedAssetTimetable

from airflow_provider_oscar.ingest import object_ingest_dag
from airflow_provider_oscar.triggers.objects import DCacheNewObjectTrigger, S3NewObjectTrigger

POLL = 2.0

s3_trigger = S3NewObjectTrigger(
    asset_name="s3-inbox", conn_id="oscar_s3_default", bucket="inbox", prefix="in/", start="all", poll_interval=POLL
)
sse_trigger = DCacheNewObjectTrigger(
    asset_name="dcache-inbox",
    conn_id="dcache_default",
    path="/inbox",
    notifications="sse",
    start="all",
    poll_interval=POLL,
)
listed_trigger = DCacheNewObjectTrigger(
    asset_name="listed-inbox",
    conn_id="dcache_default",
    path="/listed",
    notifications="none",
    start="all",
    poll_interval=POLL,
)
inboxes = [
    Asset("s3-inbox", watchers=[AssetWatcher(name="s3", trigger=s3_trigger)]),
    Asset("dcache-inbox", watchers=[AssetWatcher(name="sse", trigger=sse_trigger)]),
    Asset("listed-inbox", watchers=[AssetWatcher(name="listed", trigger=listed_trigger)]),
]
objects = Asset("objects")

ingest = object_ingest_dag("ingest", inboxes=inboxes, objects=objects)

with DAG("per_object", schedule=PartitionedAssetTimetable(assets=objects), max_active_runs=64) as per_object:
    EmptyOperator(task_id="infer")
