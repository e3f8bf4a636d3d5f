# SPDX-License-Identifier: Apache-2.0
"""Airflow"s own schedule by an asset: one run for all objects since the last success.

With ``max_active_runs=1``, what arrives while a run works is for the next one.
"""

from __future__ import annotations

# [START asset]
from airflow.sdk import dag, get_current_context, task

from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.ingest import NewObjects, get_objects

incoming = NewObjects("s3://incoming/asset/", suffix=".txt", start="all")


@dag(schedule=[incoming.asset], max_active_runs=1, tags=["schedules"])
def schedule_asset():
    @task
    def count_lines():
        lines = {}
        for found in get_objects(get_current_context()):
            content = storage_hook(found).read_bytes(found.uri, 10_000_000) or b""
            lines[found.uri] = content.count(b"\n")
        return lines

    count_lines()


schedule_asset()
# [END asset]

EXPECT_DAGS = ["schedule_asset"]
