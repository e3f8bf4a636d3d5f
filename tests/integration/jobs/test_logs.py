# SPDX-License-Identifier: Apache-2.0
"""The log of an offloaded pod as the embedded interLink serves it, and the manifest in it."""

from __future__ import annotations

import pytest

from airflow_provider_oscar.core.logs import MARKER
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.jobs.interlink import InterLinkBackend
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.integration.jobs.conftest import IMAGE
from tests.support.fakes import context


@pytest.fixture
def ended(node, monkeypatch, request):
    """Name of a pod that ended and was left where it is, and the manifest its task returned."""
    target = PlacementTarget(
        name="hpc-cpu", task_id="x", kind="interlink", node=node, slurm=SlurmOptions(time="10", memory_mib=256)
    )
    task = InterLinkPodOperator(
        task_id="logs",
        image=IMAGE,
        target=target,
        command=["python3", "-c", "print('gr\u00fc\u00dfe \\\\ \"quoted\"')"],
        output_uri="s3://outgoing/logs",
        timeout=60,
        poll_interval=0.3,
        deferrable=False,
    )
    monkeypatch.setattr(InterLinkBackend, "cleanup", lambda self, job_id, *, succeeded: None)
    manifest = task.execute(context(partition_key=request.node.name, task_id="logs"))
    yield manifest["submission_id"], manifest
    InterLinkHook().delete_pod(manifest["submission_id"])


def test_manifest_is_found_although_its_line_is_not_the_last(ended):
    name, manifest = ended
    hook = InterLinkHook()
    answer = hook.core.read_namespaced_pod_log(name, hook.namespace, _preload_content=False)
    whole = answer.data.decode()
    assert not whole.rstrip().splitlines()[-1].startswith(MARKER), "bash's `time` writes after it"
    assert not whole.startswith(MARKER)
    found = Manifest.from_marker(whole, name)
    assert found is not None
    assert found.to_dict() == manifest


def test_log_is_text_and_not_the_spelling_of_bytes(ended):
    name, _ = ended
    log = InterLinkHook().read_log(name)
    assert 'gr\u00fc\u00dfe \\ "quoted"' in log.splitlines()
    assert not log.startswith("b'")
    assert "\\n" not in log
