# SPDX-License-Identifier: Apache-2.0
"""One set of scenarios over real SLURM and the built-in queue: they must not be told apart."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from oscar_testbed.errors import RejectedError
from oscar_testbed.fakes.slurm import BatchJob, BatchSystem, open_slurm
from oscar_testbed.fakes.slurm.real import RealSlurm, missing_programs
from oscar_testbed.faults import SlurmFaults
from oscar_testbed.process import wait_until


@pytest.fixture(scope="module", params=["real", "builtin"])
def cluster(request, tmp_path_factory):
    if request.param == "real" and missing_programs():
        pytest.skip(f"SLURM is not installed: {missing_programs()}")
    cluster = open_slurm(tmp_path_factory.mktemp("slurm"), request.param)
    yield cluster
    cluster.stop()
    assert not cluster.healthy()


@pytest.fixture
def submit(cluster, tmp_path):
    def call(text: str, *flags: str) -> str:
        script = tmp_path / f"job{len(list(tmp_path.iterdir()))}.sh"
        lines = "".join(f"#SBATCH {flag}\n" for flag in (f"--output={tmp_path}/out", *flags))
        script.write_text(f"#!/bin/bash\n{lines}{text}\n")
        return cluster.submit(script)

    return call


def _finish(cluster: BatchSystem, job_id: str, timeout: float = 120) -> BatchJob:
    _until(cluster, job_id, lambda job: job.finished, timeout)
    return cluster.jobs()[job_id]


def _until(cluster, job_id, test, timeout: float = 120) -> None:
    wait_until(lambda: test(cluster.jobs()[job_id]), what=f"job {job_id} gets there", timeout=timeout, interval=0.1)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_is_healthy_and_has_both_partitions(cluster):
    assert cluster.healthy()
    assert [one.name for one in cluster.partitions()] == ["cpu", "gpu"]


@pytest.mark.parametrize(
    ("text", "state", "wait_status"), [("true", "CD", 0), ("exit 42", "F", 42 << 8)], ids=["good", "bad"]
)
def test_job_ends_with_its_code(cluster, submit, text, state, wait_status):
    job = _finish(cluster, submit(text))
    assert (job.state, job.wait_status, job.partition) == (state, wait_status, "cpu")


def test_job_knows_itself_and_its_gpu(cluster, submit, tmp_path):
    job_id = submit(
        'echo "$SLURM_JOB_ID $SLURM_JOB_PARTITION $CUDA_VISIBLE_DEVICES"', "--partition=gpu", "--gres=gpu:1"
    )
    assert _finish(cluster, job_id).state == "CD"
    assert (tmp_path / "out").read_text().split() == [job_id, "gpu", "0"]


def test_jobs_wait_for_a_free_gpu(cluster, submit):
    first = submit("sleep 300", "--partition=gpu", "--gres=gpu:2")
    _until(cluster, first, lambda job: job.state == "R")
    second = submit("true", "--partition=gpu", "--gres=gpu:1")
    _until(cluster, second, lambda job: job.reason == "Resources")
    assert cluster.jobs()[second].state == "PD"
    cluster.cancel(first)
    assert _finish(cluster, second).state == "CD"


def test_cancel_kills_the_job_and_what_it_started(cluster, submit, tmp_path):
    job_id = submit(f"sleep 300 & echo $! > {tmp_path}/pid; mv {tmp_path}/pid {tmp_path}/child; wait")
    wait_until((tmp_path / "child").exists, what="the job runs", timeout=120)
    cluster.cancel(job_id)
    assert _finish(cluster, job_id).state == "CA"
    child = int((tmp_path / "child").read_text())
    wait_until(lambda: not _alive(child), what="the job's child is gone", timeout=120)


def test_a_requeued_job_runs_again_under_its_number(cluster, submit, tmp_path):
    runs = tmp_path / "runs"
    job_id = submit(f'echo "${{SLURM_RESTART_COUNT:-0}}" >> {runs}; [ -n "$SLURM_RESTART_COUNT" ] || sleep 300')
    _until(cluster, job_id, lambda job: job.state == "R" and runs.exists())
    cluster.requeue(job_id)
    assert _finish(cluster, job_id, timeout=240).state == "CD"  # SLURM lets it wait for two minutes
    assert runs.read_text().split() == ["0", "1"]


def test_cancel_before_the_start_leaves_no_code(cluster, submit):
    blocker = submit("sleep 300", "--partition=gpu", "--cpus-per-task=4")
    _until(cluster, blocker, lambda job: job.state == "R")
    job_id = submit("true", "--partition=gpu", "--cpus-per-task=4")
    cluster.cancel(job_id)
    job = _finish(cluster, job_id)
    assert (job.state, job.wait_status) == ("CA", 0)
    cluster.cancel(blocker)
    cluster.cancel("999999")


@pytest.mark.parametrize("flag", ["--partition=nope", "--mem=1T", "--cpus-per-task=5", "--gres=gpu:1"])
def test_impossible_requests_are_refused_with_a_text(submit, flag):
    with pytest.raises(RejectedError, match=r"Invalid partition name|Requested node configuration"):
        submit("true", flag)


def test_more_cpus_than_the_partition_has_wait_for_ever(cluster, submit):
    job_id = submit("true", "--cpus-per-task=64")
    _until(cluster, job_id, lambda job: job.reason == "PartitionConfig")
    assert cluster.jobs()[job_id].state == "PD"
    cluster.cancel(job_id)


def test_nothing_is_left_when_it_stops_under_a_running_job(tmp_path):
    for mode in ["builtin"] + ([] if missing_programs() else ["real"]):
        directory = tmp_path / mode
        cluster = open_slurm(directory, mode)
        script = tmp_path / f"{mode}.sh"
        script.write_text(f"#!/bin/bash\n#SBATCH --output=/dev/null\necho $$ > {directory}/pid; exec sleep 300\n")
        cluster.submit(script)
        wait_until((directory / "pid").exists, what="the job runs", timeout=120)
        began = time.monotonic()
        cluster.stop()
        assert time.monotonic() - began < 120
        assert not _alive(int((directory / "pid").read_text() or 0))
        named = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(directory).encode() in _bytes(path)]
        assert named == []


@pytest.mark.skipif(bool(missing_programs()), reason="SLURM is not installed")
def test_nothing_is_left_when_whoever_started_it_is_killed_under_a_running_job(tmp_path):
    pid = tmp_path / "pid"
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\n#SBATCH --output=/dev/null\necho $$ > {pid}; exec sleep 300\n")
    code = (
        "import pathlib, signal\n"
        "from oscar_testbed.fakes.slurm import open_slurm\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "open_slurm(here / 'slurm', 'real').submit(here / 'job.sh'); signal.pause()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: pid.exists() and bool(pid.read_text()), what="the job runs", timeout=60)
    parent.kill()
    parent.wait()

    def left() -> bool:
        named = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _bytes(path)]
        return _alive(int(pid.read_text())) or bool(named)

    wait_until(lambda: not left(), what="nothing of it is left", timeout=60)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.skipif(bool(missing_programs()), reason="SLURM is not installed")
def test_a_controller_that_is_killed_finds_its_jobs_and_a_drained_node_is_named(tmp_path_factory):
    cluster = open_slurm(tmp_path_factory.mktemp("k"), "real")
    assert isinstance(cluster, RealSlurm)
    try:
        directory = cluster.directory
        script = directory / "job.sh"
        script.write_text(
            f"#!/bin/bash\n#SBATCH --output={directory}/out\nuntil [ -e {directory}/end ]; do sleep 0.1; done; exit 3\n"
        )
        job_id = cluster.submit(script)
        # Their ends come while the controller saves its jobs, after it has, or while it is away.
        script.write_text(f"#!/bin/bash\n#SBATCH --output={directory}/out\nsleep 4.$((SLURM_JOB_ID * 2)); exit 3\n")
        short = [cluster.submit(script) for _ in range(3)]
        for one in (job_id, *short):
            _until(cluster, one, lambda job: job.state != "PD")
        cluster.kill_controller(0.5)
        (directory / "end").touch()
        assert {_finish(cluster, one, timeout=90).exit_code for one in (job_id, *short)} == {3}
        assert cluster.drained() == []
        cluster.control("update", "NodeName=cn2", "State=DRAIN", "Reason=Duplicate jobid")
        wait_until(lambda: cluster.drained() == ["cn2"], what="the node is drained", timeout=120)
        cluster.control("update", "NodeName=cn2", "State=RESUME")
        wait_until(lambda: cluster.drained() == [], what="the node is back", timeout=120)
    finally:
        cluster.stop()


def test_time_limit_ends_a_job_of_the_queue(tmp_path):
    queue = open_slurm(tmp_path, "builtin")
    try:
        script = tmp_path / "job.sh"
        script.write_text("#!/bin/bash\n#SBATCH --time=0:01\nexec sleep 300\n")
        job = _finish(queue, queue.submit(script))
        assert (job.state, job.wait_status, job.reason) == ("TO", 15, "TimeLimit")
    finally:
        queue.stop()


def test_held_queue_starts_nothing_until_released(tmp_path):
    faults = SlurmFaults(hold_pending=True)
    queue = open_slurm(tmp_path, "builtin", faults)
    try:
        script = tmp_path / "job.sh"
        script.write_text("#!/bin/bash\ntrue\n")
        job_id = queue.submit(script)
        assert queue.jobs()[job_id].state == "PD"
        faults.clear()
        assert _finish(queue, job_id).state == "CD"
    finally:
        queue.stop()


def test_two_clusters_run_side_by_side_without_root_files(tmp_path):
    if missing_programs():
        pytest.skip("SLURM is not installed")
    with contextlib.ExitStack() as running:
        clusters = []
        for name in ("one", "two"):
            clusters.append(open_slurm(tmp_path / name, "real"))
            running.callback(clusters[-1].stop)
        assert all(one.healthy() for one in clusters)
        assert clusters[0].environment() != clusters[1].environment()
        assert os.path.isfile(clusters[0].environment()["SLURM_CONF"])
