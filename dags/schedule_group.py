# SPDX-License-Identifier: Apache-2.0
"""One run for each group of files that belong together: data and description of a measurement.

``run_0042.dat`` waits for ``run_0042.json``. A group of which a part is still missing after six hours is processed as
it is, and the run says so.
"""

from __future__ import annotations

# [START group]
from datetime import timedelta

from airflow.sdk import dag, get_current_context, task

from airflow_provider_oscar.ingest import NewObjects, get_objects

incoming = NewObjects("s3://incoming/group/", start="all")
groups = incoming.group(key=r"(run_\d+)", complete=[".dat", ".json"], timeout=timedelta(hours=6), on_timeout="run")


@dag(schedule=groups, tags=["schedules"])
def schedule_group():
    @task
    def list_members():
        context = get_current_context()
        members = get_objects(context)
        complete = not (context["dag_run"].conf or {}).get("oscar_incomplete_group")
        return {"names": sorted(each.key for each in members), "complete": complete}

    list_members()


schedule_group()
# [END group]

EXPECT_DAGS = ["schedule_group"]
