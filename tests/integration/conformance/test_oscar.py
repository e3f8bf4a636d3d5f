# SPDX-License-Identifier: Apache-2.0
"""The embedded OSCAR against what OSCAR itself answered to the same requests when that was recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from oscar_testbed.contract import samples
from oscar_testbed.contract.oscar import Door, api_transcript, door
from oscar_testbed.contract.oscar_cases import API_CASES

from airflow_provider_oscar.core.logs import strip_harness
from tests.system.backends import embedded

SYSTEM = "oscar"
FOLDER = samples.newest(SYSTEM)


@pytest.fixture(scope="module")
def oscar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The embedded platform's OSCAR, with its virtual node."""
    with embedded(tmp_path_factory.mktemp("o"), slurm="builtin") as backend, door(backend, strip_harness) as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_embedded_oscar_differs_from_the_recorded_one_only_where_the_page_says(oscar):
    lines = []
    recorded = {case: found for case in API_CASES if (found := samples.read(FOLDER, case.name)) is not None}
    for case, found in recorded.items():
        lines += samples.compare(case.name, found, api_transcript(oscar, case))
    unexplained = [line for line in lines if not samples.explanation(SYSTEM, line)]
    assert not unexplained
    page = samples.section(SYSTEM, FOLDER.name, len(recorded), lines)
    assert samples.update_page(SYSTEM, page, write_it="CONFORMANCE_WRITE" in os.environ), "docs/conformance.md is old"
