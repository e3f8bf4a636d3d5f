# SPDX-License-Identifier: Apache-2.0
"""Asks the real systems the recorded cases again; with ``CONFORMANCE_RECORD`` set, records what they answer now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from oscar_testbed.contract import releases, samples
from oscar_testbed.contract.drivers import RealPlugin
from oscar_testbed.contract.kubernetes import CLUSTER_CASES, Cluster, cluster_transcript
from oscar_testbed.contract.oscar import ApiCase, OscarRecorder, api_transcript, recorder
from oscar_testbed.contract.oscar_cases import API_CASES, VOLUME_CASES
from oscar_testbed.contract.plugin import CASES, steady, transcript
from oscar_testbed.contract.pods import POD_CASES, Site, pod_transcript
from oscar_testbed.contract.pods import steady as steady_pod
from oscar_testbed.fakes.slurm import programs as slurm_programs
from oscar_testbed.fakes.slurm.real import RealSlurm, missing_programs
from oscar_testbed.real import kubernetes_build
from oscar_testbed.real.control_plane import control_plane
from oscar_testbed.real.upstream import programs

from airflow_provider_oscar.core.logs import strip_harness
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from tests.system.backends import IMAGE, Backend, Ground, ground_for_oscar, oscar_on, real_interlink

RECORD = "CONFORMANCE_RECORD" in os.environ


def compare(
    system: str,
    found_at: Mapping[str, str],
    case: str,
    found: Any,
    steady: Callable[[Any], Any] = lambda found: found,
) -> None:
    """Assert that a case is answered as it is recorded for these releases; record it first if that is asked for.

    :param found_at: releases by name.
    :param steady: takes chance out of an answer.
    """
    column = releases.title(system, found_at)
    whole = samples.newest(system)
    if RECORD and not column:
        samples.write(whole, case, found)
    before = samples.read(whole, case)
    assert before is not None, f"{case} was not recorded"
    changed = releases.changes(steady(before), steady(found))
    if RECORD and column:
        releases.record(system, column, case, changed)
    recorded = (releases.read(system, column) or {"cases": {}})["cases"] if column else {}
    assert changed == recorded.get(case, {})


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
    compare("kubernetes", {"Kubernetes": version}, case.name, cluster_transcript(asked, case))


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
    found_at = {"plugin": programs.version("interlink-slurm-plugin"), "SLURM": slurm_programs.version()}
    found = transcript(plugin, case, strip_harness)
    compare("interlink-slurm-plugin", found_at, case.name, found, lambda found: steady(case, found))


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Kubernetes, SLURM and interLink's three programs."""
    with real_interlink(tmp_path_factory.mktemp("n")) as (backend, _):
        yield backend


@pytest.mark.parametrize("case", POD_CASES, ids=lambda case: case.name)
def test_virtual_node_treats_pods_as_recorded(backend, case, monkeypatch):
    for name, value in backend.environment().items():
        monkeypatch.setenv(name, value)
    found_at = {
        "interLink": programs.version("virtual-kubelet"),
        "plugin": programs.version("interlink-slurm-plugin"),
        "SLURM": slurm_programs.version(),
        "Kubernetes": backend.versions["Kubernetes"].removeprefix("v"),
    }
    site = Site(InterLinkHook().core, backend.slurm, backend.node, IMAGE, patience=240, clean=strip_harness)
    compare("interlink", found_at, case.name, pod_transcript(site, case), steady_pod)


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
def test_oscar_answers_as_recorded(oscar, ground, case):
    _check(oscar, case, backend_versions(ground))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", VOLUME_CASES, ids=lambda case: case.name)
def test_oscar_with_volumes_answers_as_recorded(oscar_with_volumes, ground, case):
    _check(oscar_with_volumes, case, backend_versions(ground))


def backend_versions(ground: Ground) -> dict[str, str]:
    """Releases by name."""
    kubernetes = ground.backend.versions["Kubernetes"].removeprefix("v")
    return {"OSCAR": programs.version("oscar"), "Kubernetes": kubernetes}


def _check(asked: OscarRecorder, case: ApiCase, found_at: Mapping[str, str]) -> None:
    if why := releases.impossible("oscar", releases.title("oscar", found_at), case.name):
        pytest.skip(why)
    compare("oscar", found_at, case.name, api_transcript(asked, case))
