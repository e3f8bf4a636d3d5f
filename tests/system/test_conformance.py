# SPDX-License-Identifier: Apache-2.0
"""Asks the real systems the recorded cases again; with ``CONFORMANCE_RECORD`` set, records what they answer now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from oscar_testbed.contract import samples
from oscar_testbed.contract.drivers import RealPlugin
from oscar_testbed.contract.kubernetes import CLUSTER_CASES, Cluster, cluster_transcript
from oscar_testbed.contract.oscar import ApiCase, OscarRecorder, api_transcript, recorder
from oscar_testbed.contract.oscar_cases import API_CASES, VOLUME_CASES
from oscar_testbed.contract.plugin import CASES, steady, transcript
from oscar_testbed.contract.pods import POD_CASES, Site, pod_transcript
from oscar_testbed.fakes.slurm.real import RealSlurm, missing_programs
from oscar_testbed.real import kubernetes_build
from oscar_testbed.real.control_plane import control_plane
from oscar_testbed.real.upstream import programs

from airflow_provider_oscar.core.logs import strip_harness
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from tests.system.backends import IMAGE, Backend, Ground, ground_for_oscar, oscar_on, real_interlink

RECORD = "CONFORMANCE_RECORD" in os.environ


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, str]]:
    """An API server with a scheduler and without nodes; with its version."""
    if missing := {"kube-apiserver", "kube-scheduler"} & set(kubernetes_build.missing_programs()):
        pytest.skip(f"Kubernetes is not there: {', '.join(sorted(missing))}")
    with contextlib.ExitStack() as running:
        etcd, api, scheduler, _ = control_plane(tmp_path_factory.mktemp("k"))
        for part in (etcd, api, scheduler):
            running.callback(part.stop)
            part.start()
        client = running.enter_context(api.client())
        # Pods need one, and making it is the controllers' work.
        client.post("/api/v1/namespaces/default/serviceaccounts", json={"metadata": {"name": "default"}})
        yield Cluster(client), api.version.removeprefix("v")


@pytest.mark.parametrize("case", CLUSTER_CASES, ids=lambda case: case.name)
def test_kubernetes_answers_as_recorded(cluster, case):
    asked, version = cluster
    folder = samples.SAMPLES / "kubernetes" / version
    found = cluster_transcript(asked, case)
    if RECORD:
        samples.write(folder, case.name, found)
    assert samples.read(folder if folder.exists() else samples.newest("kubernetes"), case.name) == found


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
    found = transcript(plugin, case, strip_harness)
    if RECORD:
        samples.write(folder, case.name, found)
    recorded = samples.read(folder if folder.exists() else samples.newest("interlink-slurm-plugin"), case.name)
    assert recorded is not None
    assert steady(case, recorded) == steady(case, found)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Kubernetes, SLURM and interLink's three programs."""
    with real_interlink(tmp_path_factory.mktemp("n")) as (backend, _):
        yield backend


@pytest.mark.parametrize("case", POD_CASES, ids=lambda case: case.name)
def test_virtual_node_treats_pods_as_recorded(backend, case, monkeypatch):
    for name, value in backend.environment().items():
        monkeypatch.setenv(name, value)
    folder = samples.SAMPLES / "interlink" / programs.version("virtual-kubelet")
    site = Site(InterLinkHook().core, backend.slurm, backend.node, IMAGE, patience=240, clean=strip_harness)
    found = pod_transcript(site, case)
    if RECORD:
        samples.write(folder, case.name, found)
    assert samples.read(folder if folder.exists() else samples.newest("interlink"), case.name) == found


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """MinIO over interLink."""
    with ground_for_oscar(tmp_path_factory.mktemp("c")) as ground:
        yield ground


@pytest.fixture(scope="module")
def oscar(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OscarRecorder]:
    """OSCAR as it is installed without anything else."""
    with oscar_on(ground, tmp_path_factory.mktemp("a")) as backend, recorder(backend, strip_harness) as found:
        yield found


@pytest.fixture(scope="module")
def oscar_with_volumes(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OscarRecorder]:
    """OSCAR that has volumes, and quotas with them."""
    settings = {"VOLUME_ENABLE": "true"}
    with oscar_on(ground, tmp_path_factory.mktemp("v"), settings) as backend, recorder(backend, strip_harness) as found:
        yield found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", API_CASES, ids=lambda case: case.name)
def test_oscar_answers_as_recorded(oscar, case):
    _check(oscar, case)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", VOLUME_CASES, ids=lambda case: case.name)
def test_oscar_with_volumes_answers_as_recorded(oscar_with_volumes, case):
    _check(oscar_with_volumes, case)


def _check(asked: OscarRecorder, case: ApiCase) -> None:
    folder = samples.SAMPLES / "oscar" / programs.version("oscar")
    found = api_transcript(asked, case)
    if RECORD:
        samples.write(folder, case.name, found)
    assert samples.read(folder if folder.exists() else samples.newest("oscar"), case.name) == found
