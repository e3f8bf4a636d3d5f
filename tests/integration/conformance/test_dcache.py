# SPDX-License-Identifier: Apache-2.0
"""The embedded dCache against what dCache itself answered and told when that was recorded."""

from __future__ import annotations

import copy
import os
import uuid

import httpx
import pytest
from oscar_testbed.contract import samples
from oscar_testbed.contract.dcache import transcripts
from oscar_testbed.contract.dcache_events import CASES
from oscar_testbed.contract.dcache_talk import Talk
from oscar_testbed.fakes.dcache import LocalDCache

SYSTEM = "dcache"
FOLDER = samples.newest(SYSTEM)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Where the embedded dCache differs, each as one line."""
    server = LocalDCache(tmp_path_factory.mktemp("dcache"))
    server.start()
    try:
        with httpx.Client(timeout=60) as client:

            def talk() -> Talk:
                base = f"/contract-{uuid.uuid4().hex[:12]}"
                return Talk(client, server.webdav_url, server.frontend_url, server.user, server.password, base)

            found = transcripts(talk()) | {name: case(talk()) for name, case in CASES.items()}
    finally:
        server.stop()
    differing = [samples.compare(name, samples.read(FOLDER, name), answers) for name, answers in found.items()]
    return [line for lines in differing for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_embedded_dcache_differs_from_the_recorded_one_only_where_the_page_says(lines):
    assert not [line for line in lines if not samples.explanation(SYSTEM, line)]
    recorded = sum(len(samples.read_path(path)) for path in FOLDER.glob("*.json"))
    page = samples.section(SYSTEM, FOLDER.name, recorded, lines)
    assert samples.update_page(SYSTEM, page, write_it="CONFORMANCE_WRITE" in os.environ), "docs/conformance.md is old"


@pytest.mark.parametrize(
    ("case", "answer", "key", "value"),
    [
        ("files", "put", "status", 200),
        ("reads", "head", "headers", {}),
        ("namespace", "file", "body", {}),
        ("macaroons", "unknown caveat", "reason", "no"),
    ],
)
def test_another_answer_than_the_recorded_one_is_named(case: str, answer: str, key: str, value: object):
    recorded = samples.read(FOLDER, case)
    other = copy.deepcopy(recorded)
    other[answer][key] = value
    found = samples.compare(case, recorded, other)
    assert found
    assert all(line.startswith(f"{case}: {answer}.{key}") for line in found)
    assert not any(samples.explanation(SYSTEM, line) for line in found)
