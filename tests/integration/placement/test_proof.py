# SPDX-License-Identifier: Apache-2.0
"""Three DAGs with three policies: every object is done once, and exported with its decision, prediction and outcome."""

from __future__ import annotations

import pytest

from tests.integration.placement.proof import POLICIES, prove, tell

OBJECTS = 10


@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("default")
def test_each_object_is_done_once_and_exported_with_what_was_decided_predicted_and_what_happened(
    tmp_path, running_platform, monkeypatch
):
    for name, value in running_platform.environment().items():
        monkeypatch.setenv(name, value)
    proof = prove(tmp_path, OBJECTS, running_platform, patience=600)
    tell(proof)
    assert proof.faults == []
    assert {row["policy"] for row in proof.scores if "policy" in row} >= {
        "FastestFinish",
        "CheapestWithinDeadline",
        "Fallback",
    }
    assert all(row["predicted"] for row in proof.scores if row.get("policy") in ("FastestFinish", "Fallback"))
    assert len(proof.rows) >= OBJECTS * len(POLICIES)
