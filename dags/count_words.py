# SPDX-License-Identifier: Apache-2.0
"""Count the words of every new text file of a bucket on an OSCAR service: the smallest useful DAG file.

Needs the connections ``oscar_s3_default`` and ``oscar_default``, the buckets ``incoming`` and ``results``, and an OSCAR
service ``count-words`` as ``OscarServiceOperator`` makes it.
"""

from __future__ import annotations

# [START smallest]
from airflow.sdk import Asset, AssetWatcher, PartitionedAssetTimetable, dag, get_current_context, task

from airflow_provider_oscar.ingest import object_ingest_dag, object_of
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.triggers.objects import S3NewObjectTrigger

new_text = S3NewObjectTrigger(asset_name="incoming", conn_id="oscar_s3_default", bucket="incoming", suffix=".txt")
inbox = Asset("incoming", watchers=[AssetWatcher(name="incoming", trigger=new_text)])
objects = Asset("incoming_objects")
ingest = object_ingest_dag("incoming_ingest", inboxes=[inbox], objects=objects)


@dag(schedule=PartitionedAssetTimetable(assets=objects))
def count_words():
    @task
    def read_event():
        return object_of(get_current_context()).to_dict()

    OscarJobOperator(
        task_id="count",
        service="count-words",
        object_event=read_event(),
        command=["sh", "-c", 'wc -w < "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/words.txt"'],
        output_uri="s3://results/words/",
    )


count_words()
# [END smallest]

EXPECT_DAGS = ["incoming_ingest", "count_words"]
