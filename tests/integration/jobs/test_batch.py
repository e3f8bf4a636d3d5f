# SPDX-License-Identifier: Apache-2.0
"""Many objects in one SLURM job: each has its own result, and the next try runs the failed ones alone."""

from __future__ import annotations

import json

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.batches import OffloadBatch
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.operators.interlink_batch import InterLinkBatchOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.integration.jobs.conftest import IMAGE
from tests.integration.jobs.test_jobs import run_id
from tests.support.fakes import Store

# Notes each run in a ledger of its own, and fails for one object until the store says otherwise.
COMMAND = [
    "sh",
    "-c",
    'n=$(cat "$INPUT_FILE_PATH"); echo "$n" > "$TMP_OUTPUT_DIR/n"; date +%N > "$TMP_OUTPUT_DIR/at"; exit "$n"',
]


def test_each_object_has_its_result_and_the_next_try_runs_what_failed(request, platform, node, s3):
    slurm = SlurmOptions(time="10", memory_mib=512)
    for number, code in enumerate((0, 0, 75, 0, 0)):
        s3.put_bytes("incoming", f"many-small/{number}", str(code).encode())

    def task():
        return InterLinkBatchOperator(
            task_id="batch",
            image=IMAGE,
            command=COMMAND,
            output_uri="s3://outgoing/batch",
            target=PlacementTarget(name="hpc-cpu", task_id="x", kind="interlink", node=node, slurm=slurm),
            objects=["s3://incoming/many-small/"],
            offload=OffloadBatch(parallel=3),
            timeout=120,
            poll_interval=0.3,
            deferrable=False,
        )

    store = Store()
    state = {**run_id(request), "task_state_store": store}
    jobs = len(platform.slurm.jobs())
    with pytest.raises(AirflowFailException, match="1 of 5 objects failed, 0 were not begun"):
        task().execute(state)
    assert len(platform.slurm.jobs()) == jobs + 1
    rows = {row["uri"]: row for row in state["ti"].xcoms["objects"]}
    assert [rows[f"s3://incoming/many-small/{number}"]["exit_code"] for number in range(5)] == [0, 0, 75, 0, 0]
    assert _read(s3, rows["s3://incoming/many-small/0"], "n") == b"0\n"
    assert json.loads(_read(s3, rows["s3://incoming/many-small/2"], "manifest.json"))["exit_code"] == 75
    before = {uri: _read(s3, row, "at") for uri, row in rows.items()}
    again = {**run_id(request), "task_state_store": store}
    with pytest.raises(AirflowFailException, match="1 of 1 objects failed"):
        task().execute(again)
    after = {uri: _read(s3, row, "at") for uri, row in rows.items()}
    assert [uri for uri in before if before[uri] != after[uri]] == ["s3://incoming/many-small/2"]


def _read(s3: OscarS3Hook, row: dict[str, object], name: str) -> bytes | None:
    return s3.read_bytes(f"s3://outgoing/batch/{row['id']}/{name}", 100_000)
