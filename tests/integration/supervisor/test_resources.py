# SPDX-License-Identifier: Apache-2.0
"""What a job cost is in its manifest, measured beside the command."""

from __future__ import annotations

import pytest

from airflow_provider_oscar.supervisor.usage import (
    GpuStatistics,
    allocated_cpus,
    parse_nvidia,
    parse_rocm,
    slurm_facts,
)
from tests.support.supervised import job

BURN = "import time\nuntil = time.process_time() + 0.3\nwhile time.process_time() < until: pass\n"


def test_processor_time_is_that_of_the_command_and_its_children(store, supervise):
    run = supervise(job(store, ["/bin/sh", "-c", f"python3 -c '{BURN}'; python3 -c '{BURN}'"]))
    resources = run.raw["resources"]
    assert resources["cpu_seconds"] >= 0.6
    assert resources["cpu_seconds"] == pytest.approx(
        resources["cpu_user_seconds"] + resources["cpu_system_seconds"], abs=0.01
    )
    assert resources["wall_seconds"] > 0
    assert resources["cpu_efficiency"] == pytest.approx(
        resources["cpu_seconds"] / resources["wall_seconds"] / resources["cpus"], rel=0.05
    )


def test_peak_of_memory_is_that_of_the_command(store, supervise):
    small = supervise(job(store, ["true"])).raw["resources"]["memory_peak_bytes"]
    large = supervise(job(store, ["python3", "-c", "x = bytearray(200_000_000)"])).raw["resources"]
    assert large["memory_peak_bytes"] > 200_000_000 > small


def test_memory_of_processes_side_by_side_is_added(store, supervise):
    one = "python3 -c 'import time; x = bytearray(60_000_000); time.sleep(0.8)'"
    run = supervise(
        job(store, ["/bin/sh", "-c", f"{one} & {one} & {one} & wait"]), OSCAR_SUPERVISOR_SAMPLE_INTERVAL="0.1"
    )
    assert run.raw["resources"]["memory_peak_bytes"] > 180_000_000


def test_bytes_read_and_written_are_counted(store, supervise):
    run = supervise(job(store, ["/bin/sh", "-c", "head -c 3000000 /dev/zero > /dev/null; echo"]))
    assert run.raw["resources"]["io_written_bytes"] >= 3_000_000


def test_allocation_of_slurm_is_kept_and_counted(store, supervise):
    environment = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_PARTITION": "gpu",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS": "4",
        "SLURM_CPUS_PER_TASK": "8",
    }
    resources = supervise(job(store, ["sleep", "0.2"]), **environment).raw["resources"]
    assert resources["slurm"] == {
        "job_id": "4711", "partition": "gpu", "nodes": 2, "ntasks": 4, "cpus_per_task": 8,
    }  # fmt: skip
    assert (resources["nodes"], resources["cpus"]) == (2, 32)
    assert resources["node_hours"] == pytest.approx(2 * resources["wall_seconds"] / 3600, abs=1e-6)


def test_command_that_never_ran_cost_nothing(store, supervise):
    assert "resources" not in supervise(job(store, ["no-such-program"])).raw


SMI = """#!/bin/sh
echo "0, NVIDIA A100-SXM4-40GB, 37, 2048, 40960, 250.5"
echo "1, NVIDIA A100-SXM4-40GB, 0, 3, 40960, [N/A]"
"""


def test_gpus_are_looked_at_where_their_program_is(store, supervise, tmp_path):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(SMI)
    program.chmod(0o755)
    run = supervise(job(store, ["sleep", "0.5"]), PATH=f"{program.parent}:/usr/bin:/bin")
    first, second = run.raw["resources"]["gpus"]
    assert (first["utilization_mean_percent"], first["memory_peak_mib"]) == (37.0, 2048.0)
    assert (second["utilization_peak_percent"], second["energy_joules"]) == (0.0, None)
    assert run.raw["resources"]["gpu_hours"] >= 0


@pytest.mark.parametrize("script", ["exit 9", "sleep 60", "echo nonsense"])
def test_program_of_the_gpus_that_does_not_work_harms_nothing(store, supervise, tmp_path, script):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    run = supervise(job(store, ["true"]), PATH=f"{program.parent}:/usr/bin:/bin", OSCAR_SUPERVISOR_GPU_TIMEOUT="0.5")
    assert run.code == 0
    assert "gpus" not in run.raw["resources"]


def test_readings_of_amd_gpus_are_understood():
    text = (
        "device,GPU use (%),VRAM Total Memory (B),VRAM Total Used Memory (B),Average Graphics Package Power (W)\n"
        "card0,12,68702699520,1073741824,90.0\n"
    )
    assert parse_rocm(text) == [
        {"index": "0", "name": "AMD", "use": 12.0, "used": 1024.0, "total": 65520.0, "power": 90.0}
    ]
    assert parse_rocm("no such thing") == []


def test_means_and_peaks_are_over_all_looks():
    statistics = GpuStatistics()
    for use, memory in ((10, 100), (90, 300), (50, 200)):
        statistics.add(parse_nvidia(f"0, X, {use}, {memory}, 1000, 100"), seconds=10)
    (gpu,) = statistics.summary()
    assert (gpu["utilization_mean_percent"], gpu["utilization_peak_percent"]) == (50.0, 90.0)
    assert (gpu["memory_peak_mib"], gpu["energy_joules"]) == (300.0, 3000.0)


@pytest.mark.parametrize(
    ("environment", "cpus"),
    [
        ({"SLURM_CPUS_PER_TASK": "4"}, 4),
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_NTASKS": "3"}, 12),
        ({"SLURM_CPUS_ON_NODE": "16"}, 16),
    ],
)
def test_processors_are_those_slurm_gave(environment, cpus):
    assert allocated_cpus(environment) == cpus


def test_outside_slurm_there_are_no_facts_of_slurm():
    assert slurm_facts({"HOME": "/"}) == {}
