# SPDX-License-Identifier: Apache-2.0
"""A run each morning at six, and one whenever a file is new; each gets what came since the last success."""

from __future__ import annotations

# [START asset_or_time]
from datetime import UTC, datetime

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, get_current_context, task

from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.ingest import NewObjects, get_objects

incoming = NewObjects("s3://incoming/or_time/", suffix=".txt", start="all")
mornings = CronTriggerTimetable("0 6 * * *", timezone="UTC")


@dag(
    schedule=AssetOrTimeSchedule(timetable=mornings, assets=[incoming.asset]),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["schedules"],
)
def schedule_asset_or_time():
    @task
    def count_lines():
        lines = {}
        for found in get_objects(get_current_context()):
            content = storage_hook(found).read_bytes(found.uri, 10_000_000) or b""
            lines[found.uri] = content.count(b"\n")
        return lines

    count_lines()


schedule_asset_or_time()
# [END asset_or_time]

EXPECT_DAGS = ["schedule_asset_or_time"]
