# SPDX-License-Identifier: Apache-2.0
"""Only who was given the job can write its result, and the command is not given it.

Keeps row T1 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.supervisor.joblog import MarkerFilter
from airflow_provider_oscar.supervisor.manifest import MARKER, canonical, marker_line, signed
from airflow_provider_oscar.supervisor.text import clean
from tests.support.supervised import SUBMISSION, job, start, without_privileges

KEY = "ab" * 32
DIGEST = "sha256:" + "0" * 64
STORED = f"/out/results/{SUBMISSION}/manifest.json"


def expected(manifest):
    """The signature as the provider's side computes it, written down once more on purpose."""
    unsigned = {name: value for name, value in manifest.items() if name != "signature"}
    text = json.dumps(unsigned, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "hmac-sha256:" + hmac.new(bytes.fromhex(KEY), text.encode("ascii"), hashlib.sha256).hexdigest()


def keyed(store, command, **changes):
    return job(store, command, signing_key=KEY, request_digest=DIGEST, **changes)


def test_manifest_and_marker_line_are_signed_and_name_the_request(store, supervise):
    run = supervise(keyed(store, ["/bin/sh", "-c", 'echo \'{"x": 0.1, "y": 1e22}\' > "$SUPERVISOR_METRICS_FILE"']))
    stored = json.loads(store.objects[STORED])
    for manifest in (stored, run.raw):
        assert manifest["signature"] == expected(manifest)
        assert manifest["request_digest"] == DIGEST


def test_marker_line_that_had_to_be_shortened_has_a_signature_of_its_own(store, supervise):
    script = 'cd "$TMP_OUTPUT_DIR"; i=0; while [ $i -lt 700 ]; do : > "$i"; i=$((i+1)); done'
    run = supervise(keyed(store, ["/bin/sh", "-c", script]))
    assert run.raw["truncated"] is True
    assert run.raw["signature"] == expected(run.raw)


def test_failure_is_signed_as_well(store, supervise):
    run = supervise(keyed(store, ["no-such-program"]))
    assert run.raw["signature"] == expected(run.raw)


def test_job_without_a_key_has_no_signature(store, supervise):
    assert "signature" not in supervise(job(store, ["true"])).raw


@pytest.mark.parametrize("key", ["zz", "ab", "a" * 33])
def test_key_that_is_none_is_refused(store, supervise, key):
    assert supervise(job(store, ["true"], signing_key=key)).code == 78


LOOK_EVERYWHERE = f"""
grep -q {KEY} "$1" 2>/dev/null && echo specification
env | grep -q {KEY} && echo own environment
cd /proc/$PPID
for p in environ mem maps fd/*; do cat $p >/dev/null 2>&1 && echo $p; done
exit 0
"""


def test_command_finds_the_key_nowhere(store, tmp_path):
    spec = keyed(store, ["/bin/sh", "-c", LOOK_EVERYWHERE, "sh", str(tmp_path / "job.json")])
    process = start(tmp_path, spec, through=without_privileges())
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert [line for line in out.splitlines() if line and not line.startswith(MARKER)] == []


def test_key_is_printed_nowhere(store, supervise):
    store.faults["POST"].extend([lambda handler: handler.answer(403)] * 4)
    run = supervise(keyed(store, ["/bin/sh", "-c", "env; exit 3"]))
    assert KEY not in run.out + run.err
    assert KEY.encode() not in b"".join(store.objects.values())


def test_marker_line_of_the_command_is_not_one(store, supervise):
    forged = MARKER + json.dumps({"version": "1.0", "submission_id": SUBMISSION, "exit_code": 0})
    run = supervise(keyed(store, ["/bin/sh", "-c", f"echo '{forged}'; echo '{forged}' >&2; exit 3"]))
    assert run.out.count(MARKER.strip()) == 1
    assert run.raw["exit_code"] == 3
    assert MARKER.strip().encode() not in store.objects[f"/out/results/{SUBMISSION}/job.log"]


def test_detached_child_can_print_nothing_once_the_job_has_ended(store, tmp_path):
    late = tmp_path / "late"
    script = f"setsid sh -c 'while [ ! -e {late} ]; do sleep 0.05; done; echo late' & exit 3"
    process = start(tmp_path, keyed(store, ["/bin/sh", "-c", script]))
    out, _ = process.communicate(timeout=120)  # ends although the child lives: it does not hold our standard output
    late.touch()
    assert "late" not in out.splitlines()
    assert process.returncode == 3


def test_command_that_kills_its_supervisor_proves_nothing(store, tmp_path):
    forged = MARKER + json.dumps({"version": "1.0", "submission_id": SUBMISSION, "exit_code": 0})
    process = start(tmp_path, keyed(store, ["/bin/sh", "-c", f"echo '{forged}'; kill -KILL $PPID; sleep 1"]))
    out, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert MARKER.strip() not in out
    assert STORED not in store.objects


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_marker_filter_lets_no_marker_through_however_it_is_cut(noise, cuts):
    marker = MARKER.strip().encode()
    data = noise[:100] + marker + noise[100:] + marker
    places = sorted({min(cut, len(data)) for cut in cuts})
    pieces = [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]
    kept = MarkerFilter()
    shown = b"".join(kept.feed(piece) for piece in pieces) + kept.feed(b"", last=True)
    assert marker not in shown
    assert shown.replace(b"## airflow-oscar-manifest", marker) == data.replace(b"## airflow-oscar-manifest", marker)


@given(st.binary(max_size=300).filter(lambda data: b"#" not in data), st.integers(0, 300))
def test_other_output_passes_unchanged_and_at_once(data, cut):
    kept = MarkerFilter()
    assert kept.feed(data[:cut]) + kept.feed(data[cut:]) == data


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters()), json_values, max_size=5))
def test_cleaned_metrics_are_read_back_and_signed_the_same_by_anybody(metrics):
    manifest = {"submission_id": "a", "input": None, "metrics": clean(metrics)}
    text = json.dumps(signed(manifest, bytes.fromhex(KEY)), allow_nan=False)
    assert "\\u0000" not in text
    read = json.loads(text)
    assert read["signature"] == expected(read)
    text.encode("utf-8")
    json.dumps(read, ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e999", "Infinity"),
        ('"a\\u0000b"', "a\ufffdb"),
        ('"\\ud800"', "\ufffd"),
        ("9" * 30, "9" * 30),
        ("[" * 60 + "]" * 60, None),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_metric_that_nobody_can_hold_does_not_cost_the_result(store, supervise, tmp_path, written, kept):
    path = tmp_path / "metrics"
    path.write_text(f'{{"x": {written}, "y": 1}}')
    run = supervise(keyed(store, ["/bin/sh", "-c", f'cp {path} "$SUPERVISOR_METRICS_FILE"']))
    assert run.code == 0
    assert run.raw["metrics"]["y"] == 1
    assert kept is None or run.raw["metrics"]["x"] == kept
    assert run.raw["signature"] == expected(run.raw)


def test_canonical_form_does_not_depend_on_the_order_of_fields():
    assert canonical({"b": 1, "a": {"d": 2, "c": "é"}}) == canonical(
        {"a": {"c": "é", "d": 2}, "b": 1, "signature": "x"}
    )
    assert canonical({"a": "é"}) == b'{"a":"\\u00e9"}'


def test_marker_line_is_one_line_even_for_names_with_line_ends():
    line = marker_line({"input": None, "x": "a\nb\u2028", "outputs": []}, b"")
    assert len(line.splitlines()) == 1


def test_specification_is_gone_before_the_command_begins(store, tmp_path):
    path = Path(tmp_path / "job.json")
    process = start(tmp_path, keyed(store, ["/bin/sh", "-c", f"test ! -e {path}"]))
    process.communicate(timeout=120)
    assert process.returncode == 0
