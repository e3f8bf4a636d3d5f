# SPDX-License-Identifier: Apache-2.0
"""Commands of several processes on two nodes of real SLURM: each rank runs once, and one that fails fails the job."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from oscar_testbed.fakes.slurm.real import RealSlurm, missing_programs
from oscar_testbed.process import free_port

from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.options import RunOptions
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.launchers import needs_mpirun, needs_torchrun, of_the_launcher
from tests.system import scenarios, virtual_nodes
from tests.system.virtual_nodes import VirtualNodes

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason="SLURM is not installed")
#: What a rank knows of itself, whoever started it, and where it is.
RANK = "${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-${SLURM_PROCID:-none}}}"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualNodes]:
    """Embedded virtual nodes over a SLURM of their own."""
    slurm = RealSlurm(tmp_path_factory.mktemp("c"))
    slurm.start()
    try:
        with virtual_nodes.embedded(tmp_path_factory.mktemp("n"), slurm) as found:
            yield found
    finally:
        slurm.stop()


@pytest.fixture
def run(request: pytest.FixtureRequest, nodes: VirtualNodes, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a script for sh in two tasks on two nodes, and return the manifest."""
    for name, value in nodes.environment().items():
        monkeypatch.setenv(name, value)

    def run(launcher: str, script: str) -> dict[str, Any]:
        slurm = SlurmOptions(time="10", memory_mib=256, nodes=2, ntasks_per_node=1)
        target = PlacementTarget(name="hpc", task_id="x", kind="interlink", node=virtual_nodes.NODE, slurm=slurm)
        program = shutil.which(launcher)
        assert program is not None
        task = InterLinkPodOperator(
            task_id="run",
            image=virtual_nodes.IMAGE,
            command=["sh", "-c", script],
            target=target,
            output_uri="s3://outgoing/results",
            run_options=RunOptions(launcher=launcher, nodes=2, ntasks_per_node=1),
            environment={
                **of_the_launcher(crowded=False),
                # Both nodes are this machine, which does not know their names.
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(free_port()),
                "PATH": f"{Path(program).parent}:/usr/local/bin:/usr/bin:/bin",
            },
            timeout=300,
            poll_interval=0.5,
            deferrable=False,
        )
        return dict(task.execute(scenarios.make_context(request)))

    return run


LAUNCHERS = [
    pytest.param("srun"),
    pytest.param("mpirun", marks=needs_mpirun),
    pytest.param("torchrun", marks=needs_torchrun),
]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_both_ranks_run_once_each_on_a_node_of_its_own(run, launcher):
    found = run(launcher, f'echo "$SLURM_JOB_NUM_NODES $SLURMD_NODENAME" > "$TMP_OUTPUT_DIR/{RANK}"')
    assert [each["key"] for each in found["outputs"]] == ["0", "1"]
    said = [OscarS3Hook().read_bytes(f"{found['output_uri']}{rank}", 100).decode().split() for rank in (0, 1)]
    assert [nodes for nodes, _ in said] == ["2", "2"]
    assert {node for _, node in said} == {"cn1", "cn2"}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_rank_that_fails_ends_the_other_and_the_job_fails_with_its_code(run, launcher):
    code = 1 if launcher == "torchrun" else 3  # which has a code of its own
    with pytest.raises(AirflowFailException, match=rf"exit code {code}\b"):
        run(launcher, f'[ "{RANK}" = 1 ] && exit 3; exec sleep 280')
