# SPDX-License-Identifier: Apache-2.0
"""Commands of several processes: what is started, and with which variables."""

from __future__ import annotations

import os

import pytest

from airflow_provider_oscar.supervisor.launch import first_node, launched
from tests.support.launchers import needs_mpirun, needs_torchrun, of_the_launcher
from tests.support.supervised import job

NOTHING = {"submission_id": "t-1", "command": ["train", "x"], "nodes": None, "ntasks": None, "ntasks_per_node": None}
TWO_NODES = {b"SLURM_JOB_NUM_NODES": b"2", b"SLURM_NTASKS": b"8", b"SLURM_JOB_NODELIST": b"cn[07-08]"}


@pytest.mark.parametrize(
    ("launcher", "fields", "environment", "expected"),
    [
        ("none", {"nodes": 2, "ntasks": 4}, TWO_NODES, "train x"),
        ("srun", {}, {}, "srun --kill-on-bad-exit=1 --unbuffered train x"),
        (
            "srun",
            {"nodes": 2, "ntasks": 4, "ntasks_per_node": 2},
            {b"SLURM_CPUS_PER_TASK": b"3"},
            "srun --kill-on-bad-exit=1 --label --nodes=2 --ntasks=4 --ntasks-per-node=2 --cpus-per-task=3 train x",
        ),
        ("mpirun", {"ntasks": 4}, {}, "mpirun -n 4 train x"),
        ("mpirun", {"nodes": 3, "ntasks_per_node": 2}, {}, "mpirun -n 6 train x"),
        ("mpirun", {}, TWO_NODES, "mpirun -n 8 train x"),
        ("mpirun", {}, {}, "mpirun -n 1 train x"),
        ("torchrun", {"ntasks_per_node": 4}, {}, "torchrun --standalone --nproc-per-node=4 --no-python train x"),
        (
            "torchrun",
            {},
            {**TWO_NODES, b"SLURM_NTASKS": b"2", b"MASTER_ADDR": b"10.0.0.7", b"MASTER_PORT": b"4711"},
            "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 torchrun --nnodes=2 "
            "--nproc-per-node=1 --no-python --rdzv-backend=c10d --rdzv-endpoint=10.0.0.7:4711 --rdzv-id=t-1 train x",
        ),
        (
            "torchrun",
            {},
            TWO_NODES,
            "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 torchrun --nnodes=2 "
            "--nproc-per-node=4 --no-python --rdzv-backend=c10d --rdzv-endpoint=cn07:29500 --rdzv-id=t-1 train x",
        ),
    ],
)
def test_command_line_of_the_launcher(launcher, fields, environment, expected):
    assert " ".join(launched({**NOTHING, **fields, "launcher": launcher}, environment)) == expected


@pytest.mark.parametrize(
    ("nodelist", "first"),
    [
        ("cn7", "cn7"),
        ("cn7,cn8", "cn7"),
        ("cn[07-09,12],gpu1", "cn07"),
        ("cn[3]", "cn3"),
        ("rack1-[01,05]-ib,x", "rack1-01-ib"),
        ("", ""),
    ],
)
def test_first_node_of_a_compressed_list(nodelist, first):
    assert first_node(nodelist) == first


def test_launcher_starts_the_command_with_the_variables_of_the_job(store, supervise, tmp_path):
    launcher = tmp_path / "bin" / "srun"
    launcher.parent.mkdir()
    launcher.write_text('#!/bin/sh\necho "srun was given $*"; while [ "$1" != /bin/sh ]; do shift; done; exec "$@"\n')
    launcher.chmod(0o755)
    script = 'echo "threads $OMP_NUM_THREADS of job $SLURM_JOB_ID on $CUDA_VISIBLE_DEVICES"'
    run = supervise(
        job(store, ["/bin/sh", "-c", script], launcher="srun", nodes=2, ntasks=2),
        PATH=f"{launcher.parent}:/usr/bin:/bin",
        SLURM_JOB_ID="4711",
        SLURM_CPUS_PER_TASK="3",
        CUDA_VISIBLE_DEVICES="1",
    )
    assert run.code == 0, run.err
    assert "srun was given --kill-on-bad-exit=1 --label --nodes=2 --ntasks=2 --cpus-per-task=3 /bin/sh -c" in run.out
    assert "threads 3 of job 4711 on 1" in run.out


def test_missing_launcher_is_named(store, supervise):
    run = supervise(job(store, ["true"], launcher="mpirun"), PATH="/nowhere")
    assert run.code == 127
    assert "'mpirun'" in run.message


RANK = "${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-none}}"


@needs_mpirun
def test_mpirun_itself_starts_each_rank_once(store, supervise):
    command = ["/bin/sh", "-c", f'echo "rank {RANK}" > "$TMP_OUTPUT_DIR/rank-{RANK}"; echo "here is rank {RANK}"']
    run = supervise(
        job(store, command, launcher="mpirun", ntasks=3),
        **of_the_launcher(),
    )
    assert run.code == 0, run.err
    assert sorted(line for line in run.out.split("\n") if "here is" in line) == [
        f"here is rank {number}" for number in range(3)
    ]
    assert [each["key"] for each in run.raw["outputs"]] == ["rank-0", "rank-1", "rank-2"]


@needs_mpirun
def test_a_rank_of_mpirun_that_fails_fails_the_job_with_its_code_and_ends_the_others(store, supervise):
    command = ["/bin/sh", "-c", f'[ "{RANK}" = 0 ] && exit 3; exec sleep 300']
    run = supervise(
        job(store, command, launcher="mpirun", ntasks=2),
        **of_the_launcher(),
    )
    assert (run.code, run.raw["error"]) == (3, None)
    assert run.raw["resources"]["wall_seconds"] < 250, "the other rank went on"


@needs_torchrun
def test_torchrun_itself_starts_each_rank_once(store, supervise, tmp_path):
    command = ["/bin/sh", "-c", 'echo "$LOCAL_RANK of $WORLD_SIZE" > "$TMP_OUTPUT_DIR/$RANK"']
    # It leaves files where temporary ones go.
    own = {"TMPDIR": str(tmp_path)}
    run = supervise(
        job(store, command, launcher="torchrun", ntasks_per_node=2, environment=own), HOME=os.environ["HOME"]
    )
    assert run.code == 0, run.err
    assert {
        each["key"]: store.objects[run.raw["output_uri"].replace("s3:/", "") + each["key"]]
        for each in run.raw["outputs"]
    } == {"0": b"0 of 2\n", "1": b"1 of 2\n"}


@needs_torchrun
def test_a_rank_of_torchrun_that_fails_fails_the_job_and_ends_the_others(store, supervise, tmp_path):
    command = ["/bin/sh", "-c", '[ "$RANK" = 0 ] && exit 3; exec sleep 300']
    # It leaves files where temporary ones go.
    own = {"TMPDIR": str(tmp_path)}
    run = supervise(
        job(store, command, launcher="torchrun", ntasks_per_node=2, environment=own), HOME=os.environ["HOME"]
    )
    assert run.code not in (0, 66, 73, 74, 75, 77, 78)
    assert run.raw["resources"]["wall_seconds"] < 250, "the other rank went on"


@pytest.mark.parametrize("change", [{"launcher": "ssh"}, {"nodes": 0}, {"ntasks": "2"}, {"ntasks_per_node": True}])
def test_nonsense_is_refused(store, supervise, change):
    assert supervise(job(store, ["true"], **change)).code == 78
