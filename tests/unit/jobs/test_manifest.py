# SPDX-License-Identifier: Apache-2.0
"""The reader's half of the golden cases, and everything else a log or an object may hold instead."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import LostContactError, PermanentError
from airflow_provider_oscar.core.logs import MARKER
from airflow_provider_oscar.jobs.manifest import Manifest, Phase

CASES = {
    path.stem: json.loads(path.read_text())
    for path in sorted(Path(__file__).parents[2].glob("support/manifest_cases/*.json"))
}
READABLE = [name for name, case in CASES.items() if "refused" not in case]
SCHEMA = json.loads(resources.files("airflow_provider_oscar.jobs").joinpath("manifest.schema.json").read_text())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize("name", READABLE)
def test_case_is_read_and_written_back_without_loss(name):
    case = CASES[name]
    jsonschema.validate(case["manifest"], SCHEMA, format_checker=jsonschema.FormatChecker())
    manifest = Manifest.from_json(json.dumps(case["manifest"]))
    assert manifest.succeeded is case["succeeded"]
    again = manifest.to_dict()
    jsonschema.validate(again, SCHEMA, format_checker=jsonschema.FormatChecker())
    assert Manifest.from_dict(again) == manifest
    assert {**again, "phases": None} == {**case["manifest"], "phases": None}


@pytest.mark.parametrize("name", [name for name in CASES if name not in READABLE])
def test_newer_major_version_is_refused_by_name(name):
    with pytest.raises(PermanentError, match=CASES[name]["refused"]):
        Manifest.from_dict(CASES[name]["manifest"])


def test_unknown_fields_are_kept():
    assert Manifest.from_dict(CASES["newer_minor"]["manifest"]).extra == {"energy_joules": 12.5}


@pytest.mark.parametrize("prefix", ["", "2026-11-22T09:00:00Z ", "2026-11-22 - supervisor - DEBUG - "])
def test_last_marker_line_of_a_log_wins_whatever_precedes_it(prefix):
    first, last = CASES["command_fails"]["manifest"], CASES["success"]["manifest"]
    log = "\n".join(
        ["hello", prefix + MARKER + json.dumps(first), prefix + MARKER + json.dumps(last), "cleaning up", ""]
    )
    assert Manifest.from_marker(log) == Manifest.from_dict(last)


@pytest.mark.parametrize("before", [MARKER, "100 %" + MARKER, MARKER + '{"version": "1.0"} ', "\ufeff", MARKER * 7])
def test_what_a_command_printed_without_a_newline_hides_no_manifest(before):
    manifest = CASES["success"]["manifest"]
    assert Manifest.from_marker(before + MARKER + json.dumps(manifest) + "\r") == Manifest.from_dict(manifest)


def test_a_manifest_may_hold_the_marker():
    manifest = {**CASES["success"]["manifest"], "metrics": {"log": MARKER + "{}"}}
    assert Manifest.from_marker(MARKER + json.dumps(manifest)) == Manifest.from_dict(manifest)


def test_a_line_of_markers_costs_little():
    assert Manifest.from_marker(MARKER * 300_000) is None


def test_marker_line_of_another_job_is_passed_over():
    log = MARKER + json.dumps({**CASES["success"]["manifest"], "submission_id": "other"})
    assert Manifest.from_marker(log, "t-0123456789abcdef") is None


def test_a_newer_version_that_a_command_prints_hides_no_manifest_and_ends_nothing():
    line = MARKER + json.dumps(CASES["success"]["manifest"])
    newer = MARKER + json.dumps({**CASES["success"]["manifest"], "version": "99.0"})
    assert Manifest.from_marker(f"{line}\n{newer}\n") == Manifest.from_dict(CASES["success"]["manifest"])
    assert Manifest.from_marker(newer) is None


def test_marker_line_that_was_cut_is_passed_over():
    line = MARKER + json.dumps(CASES["success"]["manifest"])
    assert Manifest.from_marker(f"{line}\n{line[:200]}").submission_id == "t-0123456789abcdef"
    assert Manifest.from_marker(line[:200]) is None


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "null", "{}", '{"version":"1.0"}', '{"version":1}', b"\xff", "[" * 100_000]
)
def test_text_that_is_no_manifest_proves_nothing(text):
    with pytest.raises(LostContactError, match="not a manifest"):
        Manifest.from_json(text)


@given(name=st.sampled_from(sorted(CASES["success"]["manifest"])), value=JSON)
def test_field_of_any_value_is_read_or_said_to_prove_nothing(name, value):
    try:
        manifest = Manifest.from_dict({**CASES["success"]["manifest"], name: value})
    except (LostContactError, PermanentError):
        return
    assert manifest.to_dict()["exit_code"] == manifest.exit_code
    assert "\n" not in manifest.summary


@given(text=st.text() | st.text().map(lambda text: MARKER + text))
def test_log_of_any_text_never_raises(text):
    assert Manifest.from_marker(text) is None


@pytest.mark.parametrize("exit_code", ["0", True, None, 0.0])
def test_exit_code_must_be_an_integer_to_prove_success(exit_code):
    with pytest.raises(LostContactError):
        Manifest.from_dict({**CASES["success"]["manifest"], "exit_code": exit_code})


def test_duration_is_not_negative_when_clocks_disagree():
    late, early = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    assert Phase(late, early).duration == timedelta(0)
    assert Phase(early, late).duration == timedelta(days=1)
