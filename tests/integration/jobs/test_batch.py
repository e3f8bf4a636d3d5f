# SPDX-License-Identifier: Apache-2.0
"""Many objects in one SLURM job: each has its own result, and the next try runs the failed ones alone."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.batches import OffloadBatch
from airflow_provider_oscar.core.errors import TransientError
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


#: Counts in its own checkpoint how often its object was begun, and is interrupted as by SLURM until that was twice.
SAVES = """
state="$CHECKPOINT_DIR/deep/tries of it"
mkdir -p "$CHECKPOINT_DIR/deep"
cat "$INPUT_FILE_PATH" >> "$state"
[ "$(wc -c < "$state")" -lt 2 ] || { cp "$state" "$TMP_OUTPUT_DIR/done"; exit 0; }
case "$(cat "$INPUT_FILE_PATH")" in a) cp "$state" "$TMP_OUTPUT_DIR/done"; exit 0;; esac
trap 'exit 75' USR1
kill -USR1 "$PPID"
while :; do sleep 0.1; done
"""


def test_each_object_continues_from_what_it_saved_itself(request, platform, node, s3):
    for name in "abc":
        s3.put_bytes("incoming", f"saving/{name}", name.encode())

    def run(store, *, fails, **given):
        state = {**run_id(request), "task_state_store": store}
        task = InterLinkBatchOperator(
            task_id="batch",
            image=IMAGE,
            command=["sh", "-c", SAVES],
            output_uri="s3://outgoing/saving",
            target=PlacementTarget(
                name="hpc-cpu", task_id="x", kind="interlink", node=node, slurm=SlurmOptions(time="10", memory_mib=512)
            ),
            objects=["s3://incoming/saving/"],
            offload=OffloadBatch(parallel=2),
            timeout=120,
            poll_interval=0.3,
            deferrable=False,
            **given,
        )
        with pytest.raises(TransientError, match="2 of 3 objects failed") if fails else nullcontext():
            task.execute(state)
        return {row["uri"][-1]: row for row in state["ti"].xcoms["objects"]}

    store = Store()
    first = run(store, fails=True, resume_from="previous-try")
    assert {name: row["exit_code"] for name, row in first.items()} == {"a": 0, "b": 75, "c": 75}
    second = run(store, fails=False, resume_from="previous-try")
    assert {name: row["exit_code"] for name, row in second.items()} == {"a": 0, "b": 0, "c": 0}
    for name, expected in (("a", b"a"), ("b", b"bb"), ("c", b"cc")):
        done = s3.read_bytes(f"s3://outgoing/saving/{second[name]['id']}/done", 100)
        assert done == expected, "no object finds what another saved"
