# SPDX-License-Identifier: Apache-2.0
"""Count the words of every new text file of a bucket on an OSCAR service: the smallest useful DAG file.

Needs the connections ``oscar_s3_default`` and ``oscar_default``, the buckets ``incoming`` and ``results``, and the
OSCAR service of ``count_words_service.yaml``: ``airflow oscar services apply count_words_service.yaml``.
"""

from __future__ import annotations

# [START smallest]
from airflow.sdk import dag

from airflow_provider_oscar import NewObjects, OscarJobOperator

incoming = NewObjects("s3://incoming", suffix=".txt", start="all")


@dag(schedule=incoming.each())
def count_words():
    OscarJobOperator(
        task_id="count",
        service="count-words",
        command=["sh", "-c", 'wc -w < "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/words.txt"'],
        output_uri="s3://results/words/",
    )


count_words()
# [END smallest]

EXPECT_DAGS = ["count_words"]
