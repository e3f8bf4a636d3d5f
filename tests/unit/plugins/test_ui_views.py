# SPDX-License-Identifier: Apache-2.0
"""What the page shows, computed from rows; jobs wrote much of it, so none of it is trusted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.plugins.ui.asset_events import event_key, event_object
from airflow_provider_oscar.plugins.ui.comparing import comparison
from airflow_provider_oscar.plugins.ui.views import (
    OUTPUTS_SHOWN,
    TaskRow,
    decoded,
    five_numbers,
    is_plain_key,
    job_view,
    links,
    output_keys,
    phase_boxes,
    placement_view,
    result_view,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def phase(start: int, end: int) -> dict[str, str]:
    return {
        "start": (NOON + timedelta(seconds=start)).isoformat(),
        "end": (NOON + timedelta(seconds=end)).isoformat(),
    }


MANIFEST = {
    "submission_id": "infer-1",
    "placement": "hpc-gpu",
    "input": {"uri": "s3://in/a%20b.h5", "size": 12},
    "output_uri": "s3://out/",
    "outputs": [
        {"key": "infer-1/shower.png", "size": 3, "sha256": "aa"},
        {"key": "infer-1/shower.h5", "size": 3000, "sha256": "bb"},
    ],
    "exit_code": 0,
    "phases": {"queued": phase(0, 30), "run": phase(30, 34), "stage-out": phase(34, 33), "unknown": phase(0, 1)},
    "slurm_job_id": "77",
    "device": "gpu",
    "node": "n1",
    "metrics": {"showers": 4},
    "signature": "hmac-sha256:00",
}


def row(**fields: object) -> TaskRow:
    known = {
        "dag_id": "d", "run_id": "r", "task_id": "hpc_gpu.infer", "map_index": -1, "operator": "InterLinkPodOperator",
        "state": "success", "try_number": 1, "start": NOON, "end": NOON + timedelta(seconds=40),
        "xcoms": {"return_value": MANIFEST, "job_id": "infer-1"},
    }  # fmt: skip
    return TaskRow(**{**known, **fields})


def test_a_job_is_described_by_its_manifest():
    found = job_view(row())
    assert (found["target"], found["slurm_job_id"], found["object"]) == ("hpc-gpu", "77", "s3://in/a%20b.h5")
    assert (found["outputs"], found["seconds"]) == (2, 40)
    assert found["phases"] == {"queued": 30, "run": 4, "stage-out": 0}


def test_a_running_job_is_described_by_what_its_task_was_given():
    given = {"object_event": json.dumps({"key": "a.h5", "uri": "s3://in/a.h5"}), "placement": "cloud-cpu"}
    found = job_view(row(state="deferred", end=None, xcoms={}, rendered=given))
    assert (found["object"], found["target"], found["has_result"]) == ("s3://in/a.h5", "cloud-cpu", False)


@given(JSON)
def test_nothing_a_job_writes_breaks_the_page(found):
    hostile = row(xcoms={"return_value": found, "decision": found, "job_id": found}, rendered={"object_event": found})
    seen = job_view(hostile)
    as_manifest = found if isinstance(found, dict) else {}
    assert result_view(hostile, {"submission_id": "x", **as_manifest})["id"] == "d/r/hpc_gpu.infer/-1"
    placement_view(hostile, [seen])
    event_object(found)
    output_keys(as_manifest)


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a\nb", "", "a\x00b"])
def test_a_key_that_leaves_its_prefix_is_no_output(key):
    assert not is_plain_key(key)
    assert output_keys({"outputs": [{"key": key}]}) == frozenset()


def test_the_result_lists_its_files_and_hides_the_signature():
    found = result_view(row(), MANIFEST)
    assert found["placed"] is None
    assert [(file["key"], file["picture"]) for file in found["files"]] == [
        ("infer-1/shower.png", True),
        ("infer-1/shower.h5", False),
    ]
    assert "signature" not in found["manifest"]


def test_what_went_elsewhere_is_shown_where_it_is_and_cannot_be_downloaded_by_a_jobs_word():
    elsewhere = {"key": "a.png", "uri": "s3://pictures/x/infer-1/", "size": 1, "sha256": ""}
    found = {**MANIFEST, "outputs": [elsewhere, {"key": "b.png"}]}
    assert output_keys(found) == {"b.png"}
    assert [(file["uri"], file["picture"]) for file in result_view(row(), found)["files"]] == [
        ("s3://pictures/x/infer-1/", False),
        ("", True),
    ]


def test_of_many_outputs_the_first_are_listed_and_the_others_counted():
    many = {**MANIFEST, "outputs": [{"key": f"infer-1/{number}"} for number in range(OUTPUTS_SHOWN + 7)]}
    found = result_view(row(), many)
    assert (len(found["files"]), found["files_left_out"]) == (OUTPUTS_SHOWN, 7)


def test_outputs_that_the_summary_left_out_are_counted():
    summary = {**MANIFEST, "outputs_omitted": 40}
    assert job_view(row(xcoms={"return_value": summary}))["outputs"] == 42
    assert result_view(row(), summary)["files_left_out"] == 40


def test_a_decision_is_held_against_what_happened():
    decision = {
        "target": "hpc-gpu", "task_id": "hpc_gpu", "kind": "interlink", "reasons": ["large"],
        "rejected": {"cloud-cpu": "down"}, "predictions": {"hpc-gpu": {"total": 50.0}, "cloud-cpu": {"total": 90.0}},
    }  # fmt: skip
    found = placement_view(row(task_id="choose", xcoms={"decision": decision}), [job_view(row())])
    assert found["predicted"] == {"total": 50.0}
    assert found["took"] == {"queued": 30, "run": 4, "stage-out": 0}
    assert found["rejected"] == {"cloud-cpu": "down"}
    assert found["state"] == "success"


def test_a_task_whose_name_begins_alike_is_not_the_decisions_job():
    decision = {"target": "hpc", "task_id": "hpc"}
    assert placement_view(row(xcoms={"decision": decision}), [job_view(row())])["state"] == ""


def test_each_job_of_a_run_with_several_decisions_shows_the_one_that_led_to_it():
    def decided(group: str, rate: float) -> dict[str, object]:
        return {"task_id": f"{group}.hpc", "target": f"hpc of {group}", "cost_per_hour": rate}

    decisions = [(-1, decided("a", 1.0)), (-1, decided("b", 2.0)), (0, decided("c", 3.0)), (1, decided("c", 4.0))]
    timed = {"phases": {"run": phase(0, 3600)}, "submission_id": "x"}

    def shown(task_id: str, map_index: int = -1) -> tuple[object, object]:
        found = job_view(row(task_id=task_id, map_index=map_index, xcoms={"return_value": timed}), decisions)
        return found["target"], found["cost"]

    assert shown("a.hpc") == ("hpc of a", 1.0)
    assert shown("b.hpc") == ("hpc of b", 2.0)
    assert shown("c.hpc", 0) == ("hpc of c", 3.0)
    assert shown("c.hpc", 1) == ("hpc of c", 4.0)
    # Mapped by itself behind one decision.
    assert shown("a.hpc", 7) == ("hpc of a", 1.0)
    assert shown("d.hpc") == ("", None)
    jobs = [job_view(row(task_id="c.hpc", map_index=n, state=state)) for n, state in ((0, "success"), (1, "failed"))]
    for index, state in ((0, "success"), (1, "failed")):
        chosen = row(task_id="c.choose", map_index=index, xcoms={"decision": decisions[2 + index][1]})
        assert placement_view(chosen, jobs)["state"] == state


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_the_five_numbers_are_in_order(values):
    found = five_numbers(values)
    ordered = [found[name] for name in ("min", "q1", "median", "q3", "max")]
    assert all(low <= high + 1e-6 for low, high in zip(ordered, ordered[1:], strict=False))
    assert (found["min"], found["max"], found["count"]) == (min(values), max(values), len(values))


def test_boxes_hold_only_jobs_that_succeeded_and_know_their_target():
    jobs = [job_view(row()), job_view(row(state="failed")), job_view(row(xcoms={}))]
    assert [(box["target"], box["phase"], box["count"]) for box in phase_boxes(jobs)] == [
        ("hpc-gpu", "queued", 1),
        ("hpc-gpu", "run", 1),
        ("hpc-gpu", "stage-out", 1),
    ]


def test_jobs_of_one_run_at_several_targets_are_compared_with_the_slowest():
    def job(target, seconds, state="success"):
        return {"target": target, "state": state, "phases": {"run": seconds, "queued": 1.0}}

    found = comparison(
        [job("gpu", 2.0), job("cloud", 9.0), job("cloud", 11.0), job("cloud", 99.0, "failed"), job("", 5.0)]
    )
    assert [(row["target"], row["jobs"], row["median"], row["faster"]) for row in found["rows"]] == [
        ("cloud", 2, 10.0, 0.0),
        ("gpu", 1, 2.0, 80.0),
    ]
    assert {(box["target"], box["phase"]) for box in found["boxes"]} >= {("gpu", "run"), ("cloud", "queued")}
    assert comparison([job("gpu", 2.0), job("gpu", 3.0)]) is None, "one target is compared with nothing"
    assert comparison([{"target": "a", "state": "success", "phases": "x"}, job("b", 1.0)]) is None


def test_links_lead_to_the_task_below_airflows_own_path():
    job = {"dag_id": "d", "run_id": "manual__2026-11-22T12:00:00+00:00", "task_id": "a.b", "map_index": 3}
    expected = "/team/dags/d/runs/manual__2026-11-22T12%3A00%3A00%2B00%3A00/tasks/a.b/mapped/3"
    assert links("/team", job) == expected


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"payload": {"uri": "s3://in/a"}}, "s3://in/a"),
        ({"from_trigger": True, "payload": {"container": "in", "key": "a"}}, "in/a"),
        ({"object": {"container": "/in/", "key": "a"}}, "/in/a"),
        ({"payload": 3}, ""),
        (None, ""),
    ],
)
def test_an_event_is_named_by_its_object(extra, expected):
    assert event_object(extra) == expected


def test_xcom_values_are_read_whichever_way_they_are_kept():
    assert decoded('{"a": 1}') == decoded({"a": 1}) == {"a": 1}
    assert decoded("plain") == "plain"
    assert decoded("[" * 100_000) == "[" * 100_000


BLANK = {"target": "", "outcome": "", "why": ""}


@pytest.mark.parametrize(
    ("placed", "shown"),
    [
        (
            {"policy": "P", "reasons": ["r"], "attempts": [{"target": "gpu", "outcome": "failed", "why": "503"}]},
            {"policy": "P", "reasons": ["r"], "attempts": [{"target": "gpu", "outcome": "failed", "why": "503"}]},
        ),
        (
            {"attempts": ["x", {"target": 5}]},
            {"policy": "", "reasons": [], "attempts": [BLANK, {**BLANK, "target": "5"}]},
        ),
        ("elsewhere", None),
    ],
)
def test_how_a_job_came_to_its_target_is_shown_as_its_manifest_tells_it(placed, shown):
    assert result_view(row(), {**MANIFEST, "placed": placed})["placed"] == shown


def test_an_event_of_a_whole_object_names_the_key_of_its_run():
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    found = ObjectEvent(StoreType.S3, "oscar_s3_default", "in", "a.h5", 1, "e", "", noon)
    assert event_key({"payload": found.to_dict()}) == event_key(found.to_dict()) == found.partition_key
    assert event_key({"uri": "s3://in/a.h5"}) == event_key(None) == event_key("x") == ""
