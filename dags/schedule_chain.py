# SPDX-License-Identifier: Apache-2.0
"""A chain: the result of a job is an asset, and its files are what the next DAG is about.

The operator itself emits the event of its outlet, with the files that its manifest proves. Needs an OSCAR service
``count-words`` as ``count_words.py`` does.
"""

from __future__ import annotations

# [START chain]
from airflow.sdk import Asset, dag, get_current_context, task

from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.ingest import NewObjects, get_object
from airflow_provider_oscar.operators.oscar import OscarJobOperator

incoming = NewObjects("s3://incoming/chain/", suffix=".txt", start="all")
counted = Asset("counted words")


@dag(schedule=incoming.each(), tags=["schedules"])
def schedule_chain_first():
    OscarJobOperator(
        task_id="count",
        service="count-words",
        command=["sh", "-c", 'wc -w < "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/words.txt"'],
        output_uri="s3://results/words/",
        outlets=[counted],
    )


@dag(schedule=NewObjects(counted).each(), tags=["schedules"])
def schedule_chain_second():
    @task
    def read_count():
        found = get_object(get_current_context())
        return int(storage_hook(found).read_bytes(found.uri, 1000) or b"0")

    read_count()


schedule_chain_first()
schedule_chain_second()
# [END chain]

EXPECT_DAGS = ["schedule_chain_first", "schedule_chain_second"]
