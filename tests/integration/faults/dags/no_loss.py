# SPDX-License-Identifier: Apache-2.0
"""Two inboxes, and consumers that cost nothing: the DAGs that the harness counts the runs of.

``per_object`` is what is counted; the others are what a busy Airflow has beside it. ``slow`` takes one run at a time
and minutes for it, ``paused`` is switched on when all is uploaded, ``plain`` is scheduled by the assets themselves,
``hung`` watches a store that never answers.
"""

from __future__ import annotations

import os
import time

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, dag, get_current_context, task

from airflow_provider_oscar.ingest import NewObjects, get_objects

POLL = float(os.environ.get("NO_LOSS_POLL", "2"))
MODE = os.environ.get("NO_LOSS_DCACHE_MODE", "sse")
SLOW_SECONDS = float(os.environ.get("NO_LOSS_SLOW_SECONDS", "60"))

s3 = NewObjects("s3://inbox/in/", start="all", poll_interval=POLL)
dcache = NewObjects(
    "dcache://dcache_default/inbox",
    start="all",
    poll_interval=POLL,
    watch={"notifications": MODE, "reconcile_interval": 60.0},
)
both = s3 | dcache
# A store that accepts and never answers; it may harm nobody but itself.
hung = NewObjects(*(f"s3://hung-{number}/in/" for number in range(6)), conn_id="hung_s3", poll_interval=POLL)

with DAG("per_object", schedule=both.each(), max_active_runs=64) as per_object:
    EmptyOperator(task_id="infer")

with DAG("hung", schedule=hung.each()) as hanging:
    EmptyOperator(task_id="infer")

with DAG("paused", schedule=both.each(), max_active_runs=64, is_paused_upon_creation=True) as paused:
    EmptyOperator(task_id="infer")


@dag(schedule=both.each(), max_active_runs=1)
def slow():
    @task
    def wait():
        time.sleep(SLOW_SECONDS)

    wait()


@dag(schedule=[both.asset], max_active_runs=1)
def plain():
    @task
    def look():
        return [found.uri for found in get_objects(get_current_context())]

    look()


slow()
plain()
