# SPDX-License-Identifier: Apache-2.0
"""Make the OSCAR service of 3DGAN be as defined in ``threedgan_service.yaml``.

Runs once by itself when it is switched on, and by hand after a change. As long as there is no such service,
``threedgan_inference`` passes the cloud over.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_provider_oscar.operators.oscar_service import OscarServiceOperator

IMAGE = os.environ.get("THREEDGAN_IMAGE", "threedgan")

EXPECT_DAGS = ["threedgan_service"]

# [START service]
with DAG(
    "threedgan_service",
    description="The OSCAR service of 3DGAN, as defined",
    schedule="@once",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    params={"image": Param(IMAGE, type="string", minLength=1, title="Container image")},
    tags=["3dgan", "set-up"],
    doc_md=__doc__,
) as dag:
    OscarServiceOperator(task_id="apply", fdl="threedgan_service.yaml", retries=5, retry_delay=timedelta(seconds=10))
# [END service]
