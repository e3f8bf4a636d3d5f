# SPDX-License-Identifier: Apache-2.0
"""One run for three objects, or for fewer when the first has waited for half a minute."""

from __future__ import annotations

# [START batch]
from airflow.sdk import dag, get_current_context, task

from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.ingest import NewObjects, get_objects

incoming = NewObjects("s3://incoming/batch/", suffix=".txt", start="all")


@dag(schedule=incoming.batch(size=3, wait=30), tags=["schedules"])
def schedule_batch():
    @task
    def count_lines():
        lines = {}
        for found in get_objects(get_current_context()):
            content = storage_hook(found).read_bytes(found.uri, 10_000_000) or b""
            lines[found.uri] = content.count(b"\n")
        return lines

    count_lines()


schedule_batch()
# [END batch]

EXPECT_DAGS = ["schedule_batch"]
