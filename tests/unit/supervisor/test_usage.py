# SPDX-License-Identifier: Apache-2.0
"""What the kernel counts of processes that it ended for want of memory."""

from __future__ import annotations

import pytest

from airflow_provider_oscar.supervisor.usage import oom_kills

SECOND = "low 0\nhigh 0\nmax 17\noom 3\noom_kill 2\noom_group_kill 0\n"
FIRST = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"


@pytest.mark.parametrize(
    ("groups", "path", "content"),
    [
        ("0::/system.slice/job_12/task_0\n", "system.slice/job_12/task_0/memory.events", SECOND),
        ("0::/\n", "memory.events", SECOND),
        ("5:cpu:/x\n4:memory:/slurm/job_12\n0::/\n", "memory/slurm/job_12/memory.oom_control", FIRST),
        ("4:cpuacct,memory:/docker/1f2e\n", "memory/memory.oom_control", FIRST),
    ],
    ids=["version 2", "its container", "version 1", "its container under a name of the host"],
)
def test_ended_processes_are_counted_in_both_versions_of_control_groups(tmp_path, groups, path, content):
    (tmp_path / "groups").write_text(groups)
    file = tmp_path / "root" / path
    file.parent.mkdir(parents=True)
    file.write_text(content)
    assert oom_kills(str(tmp_path / "groups"), str(tmp_path / "root")) == 2


@pytest.mark.parametrize("groups", ["", "0::/x\n", "nonsense\n", "4:cpu:/x\n"])
def test_nothing_is_counted_where_the_kernel_does_not_tell(tmp_path, groups):
    (tmp_path / "groups").write_text(groups)
    assert oom_kills(str(tmp_path / "groups"), str(tmp_path)) == 0
    assert oom_kills(str(tmp_path / "absent"), str(tmp_path)) == 0
