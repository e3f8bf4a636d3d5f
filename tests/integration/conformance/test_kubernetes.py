# SPDX-License-Identifier: Apache-2.0
"""The embedded Kubernetes API against what a real API server answered to the same requests when that was recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest
from oscar_testbed.contract import samples
from oscar_testbed.contract.kubernetes import CLUSTER_CASES, Cluster, cluster_transcript
from oscar_testbed.fakes.kubernetes import LocalKubernetes

SYSTEM = "kubernetes"
FOLDER = samples.newest(SYSTEM)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The embedded API server, without nodes."""
    kubernetes = LocalKubernetes(tmp_path_factory.mktemp("k"))
    kubernetes.start()
    config = kubernetes.kubeconfig()
    server, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=server, headers=headers, timeout=30) as client:
        yield Cluster(client)
    kubernetes.stop()


def test_embedded_kubernetes_differs_from_the_recorded_one_only_where_the_page_says(cluster):
    lines = []
    recorded = {case: found for case in CLUSTER_CASES if (found := samples.read(FOLDER, case.name)) is not None}
    for case, found in recorded.items():
        lines += samples.compare(case.name, found, cluster_transcript(cluster, case))
    unexplained = [line for line in lines if not samples.explanation(SYSTEM, line)]
    assert not unexplained
    page = samples.section(SYSTEM, FOLDER.name, len(recorded), lines)
    assert samples.update_page(SYSTEM, page, write_it="CONFORMANCE_WRITE" in os.environ), "docs/conformance.md is old"
