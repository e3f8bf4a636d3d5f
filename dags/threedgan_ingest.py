# SPDX-License-Identifier: Apache-2.0
"""Give every new 3DGAN file its own DAG run: watch a bucket and a dCache directory, emit one partition per file.

To change where it looks, set the ``THREEDGAN_*`` variables in the environment of Airflow.
"""

from __future__ import annotations

import os

from airflow.sdk import Asset, AssetWatcher

from airflow_provider_oscar.ingest import object_ingest_dag
from airflow_provider_oscar.triggers.objects import DCacheNewObjectTrigger, S3NewObjectTrigger

BUCKET = os.environ.get("THREEDGAN_BUCKET", "threedgan")
PREFIX = os.environ.get("THREEDGAN_PREFIX", "in/")
DIRECTORY = os.environ.get("THREEDGAN_DCACHE_PATH", "/data/threedgan/in")
WATCH = {
    "suffix": ".h5",
    "start": "all",
    "poll_interval": float(os.environ.get("THREEDGAN_POLL_INTERVAL", "10")),
}

EXPECT_DAGS = ["threedgan_ingest"]

# [START watch]
s3_trigger = S3NewObjectTrigger(
    asset_name="threedgan_inbox_s3", conn_id="oscar_s3_default", bucket=BUCKET, prefix=PREFIX, **WATCH
)
s3_inbox = Asset("threedgan_inbox_s3", watchers=[AssetWatcher(name="threedgan_s3", trigger=s3_trigger)])

dcache_trigger = DCacheNewObjectTrigger(
    asset_name="threedgan_inbox_dcache", conn_id="dcache_default", path=DIRECTORY, **WATCH
)
dcache_inbox = Asset("threedgan_inbox_dcache", watchers=[AssetWatcher(name="threedgan_dcache", trigger=dcache_trigger)])
# [END watch]

# [START ingest]
dag = object_ingest_dag(
    "threedgan_ingest",
    inboxes=[s3_inbox, dcache_inbox],
    objects=Asset("threedgan_objects"),
    tags=["3dgan", "ingest"],
)
# [END ingest]
