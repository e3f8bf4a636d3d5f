# SPDX-License-Identifier: Apache-2.0
"""Two buckets and a directory of dCache feed one DAG; the code does not care where an object is."""

from __future__ import annotations

# [START places]
from airflow.sdk import dag, get_current_context, task

from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.ingest import NewObjects, get_object

texts = NewObjects("s3://incoming/places/", "s3://archive/places/", suffix=".txt", start="all")
beams = NewObjects("dcache://dcache_default/data/places", suffix=".dat", start="all")


@dag(schedule=(texts | beams).each(), tags=["schedules"])
def schedule_places():
    @task
    def count_lines():
        found = get_object(get_current_context())
        content = storage_hook(found).read_bytes(found.uri, 10_000_000) or b""
        return {found.uri: content.count(b"\n")}

    count_lines()


schedule_places()
# [END places]

EXPECT_DAGS = ["schedule_places"]
