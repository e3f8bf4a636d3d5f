# SPDX-License-Identifier: Apache-2.0
"""The embedded SLURM plugin against what interLink's own answered when it was recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from oscar_testbed.contract import samples
from oscar_testbed.contract.drivers import EmbeddedPlugin
from oscar_testbed.contract.plugin import CASES, steady, transcript
from oscar_testbed.fakes.slurm.real import RealSlurm, missing_programs

from airflow_provider_oscar.core.logs import strip_harness

SYSTEM = "interlink-slurm-plugin"
FOLDER = samples.newest(SYSTEM)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPlugin]:
    """The embedded plugin over real SLURM, as it was when the answers were recorded."""
    if missing := missing_programs():
        pytest.skip(f"SLURM is not installed: {', '.join(missing)}")
    directory = tmp_path_factory.mktemp("plugin")
    slurm = RealSlurm(directory / "slurm")
    slurm.start()
    yield EmbeddedPlugin(directory, slurm)
    slurm.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_embedded_plugin_differs_from_the_recorded_one_only_where_the_page_says(plugin):
    lines = []
    for case in CASES:
        recorded = samples.read(FOLDER, case.name)
        assert recorded, f"{case.name} was not recorded"
        lines += samples.compare(
            case.name, steady(case, recorded), steady(case, transcript(plugin, case, strip_harness))
        )
    unexplained = [line for line in lines if not samples.explanation(SYSTEM, line)]
    assert not unexplained
    text = samples.section(SYSTEM, FOLDER.name, len(CASES), lines)
    assert samples.update_page(SYSTEM, text, write_it="CONFORMANCE_WRITE" in os.environ), "docs/conformance.md is old"
