# SPDX-License-Identifier: Apache-2.0
"""The writer's half of the golden cases: the supervisor's manifest is the one in the file."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from airflow_provider_oscar.jobs.manifest import Manifest
from tests.support.supervised import MODULES, job, source

CASES = {
    path.stem: json.loads(path.read_text())
    for path in sorted(Path(__file__).parents[2].glob("support/manifest_cases/*.json"))
}
SCHEMA = json.loads((MODULES.parent / "jobs" / "manifest.schema.json").read_text())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "writer" in case])
def test_supervisor_writes_the_manifest_of_the_case(store, supervise, name):
    writer, expected = CASES[name]["writer"], CASES[name]["manifest"]
    given = source(store) if writer["input"] else None
    if writer["input"] == "absent":
        store.objects.clear()
    spec = job(store, writer["command"], input=given, submitted_at=expected["phases"]["queued"]["start"])
    run = supervise(spec, SLURMD_NODENAME=expected["node"], **writer["environment"])
    written = json.loads(store.objects["/out/results/t-0123456789abcdef/manifest.json"])
    jsonschema.validate(written, SCHEMA, format_checker=jsonschema.FormatChecker())
    assert json.loads(run.out.splitlines()[-1].partition(" ")[2]) == written
    assert run.code == expected["exit_code"]
    assert list(written["phases"]) == list(expected["phases"])
    assert written["phases"]["queued"]["start"] == expected["phases"]["queued"]["start"]
    assert ("resources" in written) is ("run" in written["phases"] and expected["exit_code"] not in (126, 127))
    for name in expected:
        if name not in ("phases", "error"):
            assert written[name] == expected[name]
    assert (written["error"] is None) is (expected["error"] is None)
    if expected["error"] is not None:
        assert {name: written["error"][name] for name in ("stage", "message")} == expected["error"]
        assert Manifest.from_dict(written).to_dict()["error"] == written["error"]
