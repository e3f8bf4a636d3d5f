# SPDX-License-Identifier: Apache-2.0
"""A run when a file is new in one of two places; it gets all that is new in both."""

from __future__ import annotations

# [START asset_any]
from airflow.sdk import AssetAny, dag, get_current_context, task

from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.ingest import NewObjects, get_objects

images = NewObjects("s3://incoming/any/images/", start="all")
calibrations = NewObjects("s3://incoming/any/calibrations/", start="all")


@dag(schedule=AssetAny(images.asset, calibrations.asset), max_active_runs=1, tags=["schedules"])
def schedule_asset_any():
    @task
    def count_lines():
        lines = {}
        for found in get_objects(get_current_context()):
            content = storage_hook(found).read_bytes(found.uri, 10_000_000) or b""
            lines[found.uri] = content.count(b"\n")
        return lines

    count_lines()


schedule_asset_any()
# [END asset_any]

EXPECT_DAGS = ["schedule_asset_any"]
