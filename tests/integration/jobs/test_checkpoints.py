# SPDX-License-Identifier: Apache-2.0
"""A job that is interrupted is continued by the next try of its task, from what it saved itself."""

from __future__ import annotations

import types
from typing import Any

import pytest

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.integration.jobs.conftest import IMAGE
from tests.support.fakes import Store, context

#: Counts its tries in the checkpoint, and is interrupted as by SLURM until it has been tried three times.
COUNTS = """
state="$CHECKPOINT_DIR/deep/step 1.pt"
mkdir -p "$CHECKPOINT_DIR/deep"
echo try >> "$state"
[ "$(grep -c try "$state")" -lt 3 ] || { cp "$state" "$TMP_OUTPUT_DIR/done"; exit 0; }
trap 'exit 75' USR1
kill -USR1 "$PPID"
while :; do sleep 0.1; done
"""


@pytest.fixture(params=["oscar", "interlink"])
def make(request, service, node, s3):
    """Makes the task, of either kind."""

    def make(**given: Any) -> Any:
        common = {"task_id": "count", "command": ["sh", "-c", COUNTS], "output_uri": "s3://outgoing/counted"}
        common |= {"timeout": 120, "poll_interval": 0.3, "deferrable": False, **given}
        if request.param == "oscar":
            return OscarJobOperator(service=service, **common)
        target = PlacementTarget(name="hpc", task_id="x", kind="interlink", node=node)
        return InterLinkPodOperator(image=IMAGE, target=target, **common)

    return make


def tries(request: pytest.FixtureRequest, store: Store, *, max_tries: int = 5) -> Any:
    """What one try of the task sees; the next one of the same run has the same store."""
    found = context(store, partition_key=request.node.name, task_id="count")
    found["ti"] = types.SimpleNamespace(**{**vars(found["ti"]), "max_tries": max_tries})
    return found


def test_each_try_continues_from_what_the_one_before_saved_until_a_person_clears_the_task(request, make, s3):
    store = Store()
    for _ in range(2):
        with pytest.raises(TransientError, match="It saved its state"):
            make(resume_from="previous-try").execute(tries(request, store))
    found = make(resume_from="previous-try").execute(tries(request, store))
    assert s3.read_bytes(f"{found['output_uri']}done", 100) == b"try\n" * 3
    # A person who clears the task has it begin anew.
    with pytest.raises(TransientError, match="It saved its state"):
        make(resume_from="previous-try").execute(tries(request, store, max_tries=6))


def test_without_being_asked_no_try_finds_what_another_saved(request, make):
    store = Store()
    for _ in range(4):
        with pytest.raises(TransientError, match="It saved its state"):
            make().execute(tries(request, store))
