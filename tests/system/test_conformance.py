# SPDX-License-Identifier: Apache-2.0
"""Asks the real systems the recorded cases again; with ``CONFORMANCE_RECORD`` set, records what they answer now."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from airflow_provider_oscar.local.slurm.real import RealSlurm, missing_programs
from tests.conformance import samples
from tests.conformance.drivers import RealPlugin
from tests.conformance.plugin import CASES, transcript
from tests.system.upstream import programs

RECORD = "CONFORMANCE_RECORD" in os.environ


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPlugin]:
    """interLink's plugin over a private SLURM."""
    programs.require("interlink-slurm-plugin")
    if missing := missing_programs():
        pytest.skip(f"SLURM is not installed: {', '.join(missing)}")
    directory = tmp_path_factory.mktemp("p")
    slurm = RealSlurm(directory / "slurm")
    slurm.start()
    driver = RealPlugin(directory / "plugin", slurm)
    driver.program.start()
    yield driver
    driver.program.stop()
    slurm.stop()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_slurm_plugin_answers_as_recorded(plugin, case):
    folder = samples.SAMPLES / "interlink-slurm-plugin" / programs.version("interlink-slurm-plugin")
    found = transcript(plugin, case)
    if RECORD:
        samples.write(folder, case.name, found)
    recorded = samples.read(folder if folder.exists() else samples.folders("interlink-slurm-plugin")[-1], case.name)
    assert recorded == found
