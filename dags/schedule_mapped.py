# SPDX-License-Identifier: Apache-2.0
"""Dynamic task mapping: one run for a batch, and within it a task instance for each of its objects."""

from __future__ import annotations

# [START mapped]
from airflow.sdk import dag, get_current_context, task

from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.ingest import NewObjects, get_objects

incoming = NewObjects("s3://incoming/mapped/", suffix=".txt", start="all")


@dag(schedule=incoming.batch(size=100, wait=10), tags=["schedules"])
def schedule_mapped():
    @task
    def new_objects():
        return [found.to_dict() for found in get_objects(get_current_context())]

    @task
    def count_lines(fields):
        found = ObjectEvent.from_dict(fields)
        content = storage_hook(found).read_bytes(found.uri, 10_000_000) or b""
        return content.count(b"\n")

    @task
    def add_up(lines):
        return sum(lines)

    add_up(count_lines.expand(fields=new_objects()))


schedule_mapped()
# [END mapped]

EXPECT_DAGS = ["schedule_mapped"]
