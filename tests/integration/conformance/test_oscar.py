# SPDX-License-Identifier: Apache-2.0
"""The embedded OSCAR against what OSCAR itself answered to the same requests when that was recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from oscar_testbed.contract import samples
from oscar_testbed.contract.oscar import OscarRecorder, api_transcript, recorder
from oscar_testbed.contract.oscar_cases import API_CASES, VOLUME_CASES

from airflow_provider_oscar.core.logs import strip_harness
from tests.system.backends import embedded

SYSTEM = "oscar"
FOLDER = samples.newest(SYSTEM)


@pytest.fixture(scope="module")
def oscar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OscarRecorder]:
    """The embedded platform's OSCAR, with its virtual node."""
    with embedded(tmp_path_factory.mktemp("o"), slurm="builtin") as backend, recorder(backend, strip_harness) as found:
        yield found


@pytest.fixture(scope="module")
def oscar_with_volumes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OscarRecorder]:
    """The same with volumes, and quotas with them."""
    directory = tmp_path_factory.mktemp("v")
    with embedded(directory, slurm="builtin", volumes=True) as backend, recorder(backend, strip_harness) as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_embedded_oscar_differs_from_the_recorded_one_only_where_the_page_says(oscar, oscar_with_volumes):
    lines, number = [], 0
    for asked, cases in ((oscar, API_CASES), (oscar_with_volumes, VOLUME_CASES)):
        for case in cases:
            if (recorded := samples.read(FOLDER, case.name)) is None:
                continue
            lines += samples.compare(case.name, recorded, api_transcript(asked, case))
            number += 1
    unexplained = [line for line in lines if not samples.explanation(SYSTEM, line)]
    assert not unexplained
    page = samples.section(SYSTEM, FOLDER.name, number, lines)
    assert samples.update_page(SYSTEM, page, write_it="CONFORMANCE_WRITE" in os.environ), "docs/conformance.md is old"
