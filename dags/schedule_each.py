# SPDX-License-Identifier: Apache-2.0
"""One run for each new object of a bucket: the lines of a text are counted."""

from __future__ import annotations

# [START each]
from airflow.sdk import dag, get_current_context, task

from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.ingest import NewObjects, get_object

incoming = NewObjects("s3://incoming/each/", suffix=".txt", start="all")


@dag(schedule=incoming.each(), tags=["schedules"])
def schedule_each():
    @task
    def count_lines():
        found = get_object(get_current_context())
        content = storage_hook(found).read_bytes(found.uri, 10_000_000) or b""
        return {found.uri: content.count(b"\n")}

    count_lines()


schedule_each()
# [END each]

EXPECT_DAGS = ["schedule_each"]
