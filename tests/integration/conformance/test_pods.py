# SPDX-License-Identifier: Apache-2.0
"""The embedded virtual node against what interLink's own made of the same pods when that was recorded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from oscar_testbed.contract import samples
from oscar_testbed.contract.drivers import IMAGES
from oscar_testbed.contract.plugin import IMAGE
from oscar_testbed.contract.pods import POD_CASES, Site, pod_transcript, steady
from oscar_testbed.fakes.interlink import LocalInterLink
from oscar_testbed.fakes.kubernetes import LocalKubernetes
from oscar_testbed.fakes.slurm.real import RealSlurm, missing_programs

from airflow_provider_oscar.core.logs import strip_harness
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

SYSTEM = "interlink"
FOLDER = samples.newest(SYSTEM)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, RealSlurm]]:
    """The embedded Kubernetes and interLink over real SLURM."""
    if missing := missing_programs():
        pytest.skip(f"SLURM is not installed: {', '.join(missing)}")
    directory = tmp_path_factory.mktemp("pods")
    kubernetes, slurm = LocalKubernetes(directory / "kubernetes"), RealSlurm(directory / "slurm")
    interlink = LocalInterLink(kubernetes, slurm, IMAGES, directory / "interlink")  # type: ignore[arg-type]
    parts = [kubernetes, slurm, interlink]
    for part in parts:
        part.start()
    yield json.dumps(kubernetes.connection()), slurm
    for part in reversed(parts):
        part.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_embedded_node_differs_from_the_recorded_one_only_where_the_page_says(connection, monkeypatch):
    text, slurm = connection
    monkeypatch.setenv("AIRFLOW_CONN_INTERLINK_DEFAULT", text)
    site = Site(InterLinkHook().core, slurm, "slurm-cpu", IMAGE, patience=60, clean=strip_harness)
    lines = []
    recorded = {case: found for case in POD_CASES if (found := samples.read(FOLDER, case.name)) is not None}
    for case, found in recorded.items():
        lines += samples.compare(case.name, steady(found), steady(pod_transcript(site, case)))
    unexplained = [line for line in lines if not samples.explanation(SYSTEM, line)]
    assert not unexplained
    page = samples.section(SYSTEM, FOLDER.name, len(recorded), lines)
    assert samples.update_page(SYSTEM, page, write_it="CONFORMANCE_WRITE" in os.environ), "docs/conformance.md is old"
