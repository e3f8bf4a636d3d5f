# SPDX-License-Identifier: Apache-2.0
"""A batch script runs on the node itself, without a container, and is proven as any job."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.integration.jobs.test_jobs import run_id

SCRIPT = """#!/bin/bash
#SBATCH --comment=as-people-have-it
#SBATCH --mem=300M
echo "on the host: ${SINGULARITY_CONTAINER:-no container}"
{ cat "$INPUT_FILE_PATH"; echo " $SLURM_JOB_ID ${CONTAINER_SANDBOX_MOUNT_POINT:-none}"; } > "$TMP_OUTPUT_DIR/result"
exit CODE
"""


@pytest.mark.parametrize("code", [0, 7])
def test_a_batch_script_runs_on_the_node_and_is_proven_by_its_manifest(request, platform, node, s3, code):
    s3.put_bytes("incoming", "letter", b"hello")
    task = InterLinkPodOperator(
        task_id="run",
        script=SCRIPT.replace("CODE", str(code)),
        target=PlacementTarget(name="hpc", task_id="x", kind="interlink", node=node, slurm=SlurmOptions(time="10")),
        object_event=s3.head("incoming", "letter"),
        output_uri="s3://outgoing/scripts",
        timeout=90,
        poll_interval=0.3,
        deferrable=False,
    )
    if code:
        with pytest.raises(AirflowFailException, match=f"exit code {code}"):
            task.execute(run_id(request))
    else:
        assert task.execute(run_id(request))["exit_code"] == 0
    place = f"s3://outgoing/scripts/{task._job.job_id}/"
    found = s3.read_bytes(place + "result", 1000).decode().split()
    assert (found[0], found[1].isdigit(), found[2]) == ("hello", True, "none")
    assert b"on the host: no container" in s3.read_bytes(place + "job.log", 10_000)
