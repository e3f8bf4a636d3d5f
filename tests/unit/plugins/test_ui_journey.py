# SPDX-License-Identifier: Apache-2.0
"""An object's way as one line, whatever is known of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.plugins.ui.journey import STEPS, RunRow, ways

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
EVENT = {"at": NOON.isoformat(), "object": "s3://in/a.h5", "partition_key": "in.a.h5-1"}
RUN = RunRow("d", "r", "in.a.h5-1", "running", NOON + timedelta(seconds=1))
DECISION = {"dag_id": "d", "run_id": "r", "at": "2026-11-22T12:00:02+00:00"}
JOB = {
    "dag_id": "d", "run_id": "r", "object": "s3://in/a.h5", "state": "success", "target": "hpc", "has_result": True,
    "start": "2026-11-22T12:00:03+00:00", "end": "2026-11-22T12:00:09+00:00", "url": "/dags/d",
}  # fmt: skip


def words(way):
    return [step["state"] for step in way["steps"]]


@pytest.mark.parametrize(
    ("runs", "decisions", "jobs", "expected"),
    [
        ([], [], [], ["done", "open", "open", "open", "open"]),
        ([RUN], [], [], ["done", "done", "open", "open", "open"]),
        ([RunRow("d", "r", "in.a.h5-1", "failed", NOON)], [], [], ["done", "broken", "open", "open", "open"]),
        ([RUN], [DECISION], [], ["done", "done", "done", "open", "open"]),
        ([RUN], [DECISION], [{**JOB, "state": "running"}], ["done", "done", "done", "done", "open"]),
        ([RUN], [DECISION], [{**JOB, "state": "failed"}], ["done", "done", "done", "broken", "open"]),
        ([RUN], [DECISION], [JOB], ["done"] * 5),
        ([RUN], [], [{**JOB, "target": ""}], ["done", "done", "open", "done", "done"]),
    ],
    ids=["seen", "run", "run failed", "placed", "running", "job failed", "done", "without placement"],
)
def test_a_step_is_done_when_the_database_says_so(runs, decisions, jobs, expected):
    (way,) = ways([EVENT], runs, decisions, jobs)
    assert words(way) == expected


def test_of_several_dags_the_run_with_a_job_is_shown_and_the_newest_where_none_has_one():
    newer = RunRow("looks", "r2", "in.a.h5-1", "success", NOON + timedelta(seconds=5))
    (way,) = ways([EVENT], [newer, RUN], [DECISION], [JOB])
    assert (way["dag_id"], words(way)) == ("d", ["done"] * 5)
    (way,) = ways([EVENT], [newer, RUN], [], [])
    assert (way["dag_id"], way["state"], words(way)[:2]) == ("looks", "success", ["done", "done"])
    # The job of an earlier version of the object is not the job of this one.
    (way,) = ways([EVENT], [newer], [], [{**JOB, "run_id": "earlier"}])
    assert words(way) == ["done", "done", "open", "open", "open"]


@pytest.mark.parametrize("name", ["s3://in/a.h5", "a.h5", "in/a.h5", "/a.h5"])
def test_an_event_without_partition_key_is_matched_by_its_object(name):
    (way,) = ways([{**EVENT, "object": name, "partition_key": ""}], [RUN], [DECISION], [JOB])
    assert (words(way), way["run_id"]) == (["done"] * 5, "r")
    assert [step["at"] for step in way["steps"]][:2] == [NOON.isoformat(), (NOON + timedelta(seconds=1)).isoformat()]


def test_another_object_of_the_same_ending_is_not_taken_for_it():
    (way,) = ways([{**EVENT, "object": "b/a.h5", "partition_key": ""}], [RUN], [DECISION], [JOB])
    assert words(way) == ["done", "open", "open", "open", "open"]


@given(
    name=st.text(max_size=20),
    key=st.text(max_size=20),
    jobs=st.lists(
        st.fixed_dictionaries(
            {"dag_id": st.text(max_size=2), "run_id": st.text(max_size=2), "state": st.text(max_size=8),
             "object": st.none() | st.text(max_size=20)}
        ),
        max_size=3,
    ),
)  # fmt: skip
def test_whatever_jobs_say_the_line_has_all_steps(name, key, jobs):
    (way,) = ways([{"at": None, "object": name, "partition_key": key}], [], [], jobs)
    assert [step["name"] for step in way["steps"]] == list(STEPS)
    assert words(way)[0] == "done"
