# SPDX-License-Identifier: Apache-2.0
"""One run for each new file of a directory that the triggerer and the workers share; any URL of fsspec does as well."""

from __future__ import annotations

# [START files]
from airflow.sdk import ObjectStoragePath, dag, get_current_context, task

from airflow_provider_oscar.ingest import NewObjects, get_object

# A file has to look the same for quiet_period seconds, since a file system shows one that is being written.
incoming = NewObjects("file:///data/in", suffix=".txt", start="all", watch={"recursive": True, "quiet_period": 10})


@dag(schedule=incoming.each(), tags=["schedules"])
def schedule_files():
    @task
    def count_lines():
        found = get_object(get_current_context())
        path = ObjectStoragePath(f"{found.container}/{found.key}", conn_id=found.conn_id or None)
        return {found.uri: path.read_bytes().count(b"\n")}

    count_lines()


schedule_files()
# [END files]

EXPECT_DAGS = ["schedule_files"]
