# SPDX-License-Identifier: Apache-2.0
"""A run when files are new in both places, such as an image and its calibration; it gets all that is new in both."""

from __future__ import annotations

# [START asset_all]
from airflow.sdk import AssetAll, dag, get_current_context, task

from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.ingest import NewObjects, get_objects

images = NewObjects("s3://incoming/all/images/", start="all")
calibrations = NewObjects("s3://incoming/all/calibrations/", start="all")


@dag(schedule=AssetAll(images.asset, calibrations.asset), max_active_runs=1, tags=["schedules"])
def schedule_asset_all():
    @task
    def count_lines():
        lines = {}
        for found in get_objects(get_current_context()):
            content = storage_hook(found).read_bytes(found.uri, 10_000_000) or b""
            lines[found.uri] = content.count(b"\n")
        return lines

    count_lines()


schedule_asset_all()
# [END asset_all]

EXPECT_DAGS = ["schedule_asset_all"]
