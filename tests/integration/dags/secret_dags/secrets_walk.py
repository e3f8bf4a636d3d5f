# SPDX-License-Identifier: Apache-2.0
"""A DAG with each operator that uses a credential, and one task of each that fails."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_provider_oscar import (
    InterLinkMaintenanceOperator,
    InterLinkPodOperator,
    NewObjects,
    OscarJobOperator,
    OscarServiceOperator,
    PlacementTarget,
    S3NewObjectSensor,
    SlurmOptions,
)
from airflow_provider_oscar.core.services import ServiceDefinition

IMAGE = os.environ["SECRETS_IMAGE"]
HPC = PlacementTarget(
    name="hpc-cpu", kind="interlink", node=os.environ["SECRETS_NODE"], slurm=SlurmOptions(time="5", memory_mib=64)
)
INCOMING = NewObjects("s3://incoming/walk/", suffix=".txt", start="all")
FROM_DCACHE = NewObjects("dcache://dcache_default/data/walk", suffix=".txt", start="all")
COMMAND = ["sh", "-c", 'wc -w < "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/words.txt"']
PLACE = {"image": IMAGE, "target": HPC, "output_uri": "s3://results/walk/", "poll_interval": 1}

with DAG("secrets_walk", schedule=(INCOMING | FROM_DCACHE).each(), is_paused_upon_creation=False):
    service = OscarServiceOperator(
        task_id="service",
        definition=ServiceDefinition(name="walk", image=IMAGE, script="#!/bin/sh\nexit 0\n"),
    )
    on_slurm = InterLinkPodOperator(task_id="on_slurm", command=COMMAND, **PLACE)
    fails = InterLinkPodOperator(task_id="fails", command=["sh", "-c", "env; exit 3"], **PLACE)
    to_dcache = InterLinkPodOperator(
        task_id="to_dcache",
        command=COMMAND,
        **{**PLACE, "output_uri": "dcache://dcache_default/data/results/"},
    )
    on_oscar = OscarJobOperator(
        task_id="on_oscar",
        service="count-words",
        command=COMMAND,
        output_uri="s3://results/walk-oscar/",
        poll_interval=1,
    )
    wait = S3NewObjectSensor(task_id="wait", bucket="incoming", prefix="walk/", suffix=".txt", start="all")
    swept = InterLinkMaintenanceOperator(
        task_id="sweep", logs_uri="s3://results/swept", older_than=1, trigger_rule="all_done"
    )
    service >> wait >> [on_slurm, fails, to_dcache, on_oscar] >> swept
