# SPDX-License-Identifier: Apache-2.0
"""From a file to showers on each of the three targets, and what a user sees of a bad file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import pytest
from threedgan.data import write_input

from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.manifest import Manifest
from tests.integration.conftest import BUCKET, INBOX

# boto3 leaves its pooled connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def content(tmp_path: Path, showers: int) -> bytes:
    path = tmp_path / f"{showers}.h5"
    write_input(path, showers, seed=showers)
    return path.read_bytes()


def put(key: str, data: bytes) -> Any:
    """Upload to the watched prefix and return what a watcher would report."""
    hook = OscarS3Hook("oscar_s3_default")
    hook.put_bytes(BUCKET, f"in/{key}", data)
    return hook.head(BUCKET, f"in/{key}")


def check_results(finished: Any, *, target: str, showers: int) -> Manifest:
    """Hold every promise of a run that succeeded against the store."""
    assert finished.state == "success", finished.states
    manifest = Manifest.from_dict(finished.manifest)
    assert manifest.succeeded
    assert manifest.placement == target
    assert manifest.metrics["showers"] == showers
    hook = OscarS3Hook("oscar_s3_default")
    by_suffix = {output.key.rpartition(".")[2]: output for output in manifest.outputs}
    assert set(by_suffix) == {"h5", "json", "png"}
    for output in manifest.outputs:
        assert hook.read_bytes(f"{manifest.output_uri}{output.key}", 10**8) is not None
    stored = hook.read_bytes(f"{manifest.output_uri}{by_suffix['h5'].key}", 10**8)
    with h5py.File(io.BytesIO(stored)) as file:
        assert file["ECAL"].shape == (showers, 51, 51, 25)
    return manifest


def test_small_file_in_s3_runs_on_oscar(inference, tmp_path):
    event = put("small.h5", content(tmp_path, 1))
    finished = inference.run(event=event)
    manifest = check_results(finished, target="cloud-cpu", showers=1)
    assert finished.states["infer.hpc_cpu"] == finished.states["infer.hpc_gpu"] == "skipped"
    assert manifest.slurm_job_id is None
    assert finished.xcoms["infer.result", "return_value"]["object"]["uri"] == event.uri
    assert inference.events_of("threedgan_results")[-1]["output_uri"] == manifest.output_uri


def test_file_in_dcache_runs_on_hpc_cpus(inference, tmp_path):
    hook = DCacheHook("dcache_default")
    hook.put_bytes(INBOX, "beam.h5", content(tmp_path, 2))
    finished = inference.run(event=hook.head(INBOX, "beam.h5"))
    manifest = check_results(finished, target="hpc-cpu", showers=2)
    assert manifest.slurm_job_id
    assert finished.xcoms["infer.choose", "decision"]["reasons"] == ["dCache is next door to the HPC site"]


def test_user_may_force_the_gpu_partition_and_learns_that_there_is_no_gpu(inference, tmp_path):
    event = put("a b ü.h5", content(tmp_path, 1))
    finished = inference.run(conf={"object_uri": event.uri, "target": "hpc-gpu", "batch_size": 1})
    manifest = check_results(finished, target="hpc-gpu", showers=1)
    assert manifest.metrics["requested"] == "gpu"
    assert manifest.device == "gpu" or manifest.metrics["warnings"]
    assert finished.xcoms["infer.choose", "decision"]["reasons"] == ["named by the run"]


@pytest.mark.parametrize("target", ["cloud-cpu", "hpc-cpu"])
def test_bad_file_fails_with_the_payloads_own_words(inference, tmp_path, caplog, capfd, target):
    event = put(f"truncated-{target}.h5", content(tmp_path, 1)[:5000])
    finished = inference.run(conf={"object_uri": event.uri, "target": target})
    group = target.replace("-", "_")
    assert finished.states[f"infer.{group}"] in ("failed", "up_for_retry")
    assert finished.states["infer.result"] != "success"
    told = caplog.text + "".join(capfd.readouterr())
    assert "truncated" in told
    assert "exit code 65" in told
