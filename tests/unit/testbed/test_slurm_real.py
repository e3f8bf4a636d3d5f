# SPDX-License-Identifier: Apache-2.0
"""What is said to SLURM and what is read from its answers; no SLURM runs here."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oscar_testbed.errors import MissingPrerequisite, PlatformError, RejectedError
from oscar_testbed.fakes.slurm import commands, open_slurm, programs, real


def _line(*cells: str) -> str:
    return "".join(cell.ljust(width) for cell, width in zip(cells, commands._WIDTHS, strict=True))


def test_job_id_is_read_from_what_sbatch_prints():
    assert commands.parse_submit(0, "Submitted batch job 17\n", "") == "17"


@pytest.mark.parametrize(
    ("code", "stdout", "stderr"),
    [
        pytest.param(1, "", "sbatch: error: Invalid partition name specified\n", id="refused"),
        pytest.param(0, "Submitted batch job 17\n", "notice: quota nearly used up\n", id="notice-on-stderr"),
        pytest.param(0, "", "", id="silence"),
        pytest.param(0, "Submitted batch job", "", id="no-number"),
    ],
)
def test_anything_but_a_plain_acceptance_is_a_refusal(code, stdout, stderr):
    with pytest.raises(RejectedError, match=stderr.strip() or "sbatch exit status"):
        commands.parse_submit(code, stdout, stderr)


def test_job_list_keeps_words_it_does_not_know():
    text = "\n".join(
        [
            _line("1", "R", "0", "cpu", "cn1", "None"),
            _line("2", "ZZ", "768", "gpu", "", "Nodes required for job are DOWN"),
            _line("3_[1-4]", "PD", "0", "cpu", "", "Resources"),
            "slurm_load_jobs: something odd",
        ]
    )
    jobs = commands.parse_jobs(0, text, "")
    assert sorted(jobs) == ["1", "2"]
    assert (jobs["1"].state, jobs["1"].node, jobs["1"].finished) == ("R", "cn1", False)
    assert (jobs["2"].state, jobs["2"].exit_code, jobs["2"].finished) == ("ZZ", 3, False)
    assert jobs["2"].reason == "Nodes required for job are DOWN"


def test_failing_squeue_is_worth_another_try():
    with pytest.raises(PlatformError, match="slurmctld"):
        commands.parse_jobs(1, "", "slurm_load_jobs error: Unable to contact slurm controller")


@given(st.text())
def test_no_answer_of_squeue_breaks_the_reader(text):
    for job_id, job in commands.parse_jobs(0, text, "").items():
        assert job.job_id == job_id
        assert job.state


def test_configuration_names_every_node_and_keeps_to_the_directory():
    text = real.configuration(Path("/some/where"), user="me", host="here", ports=[1, 2, 3, 4])
    assert text.count("NodeName=") == 3
    assert "Gres=gpu:fake:2" in text
    paths = [line.partition("=")[2] for line in text.splitlines() if "/some" in line]
    assert len(paths) >= 8
    assert "/var/" not in text
    assert "/etc/slurm" not in text


def test_a_directory_too_deep_for_a_socket_is_named(tmp_path):
    deep = tmp_path / ("d" * 100)
    with pytest.raises(RejectedError, match="too long for a socket"):
        real.RealSlurm(deep)._write_configuration()


def test_unknown_mode_is_refused(tmp_path):
    with pytest.raises(RejectedError, match="'builtin'"):
        open_slurm(tmp_path, "imaginary")


def test_settings_replace_ours_and_are_added():
    settings = {"TaskPlugin": "task/cgroup", "AccountingStorageTRES": "gres/gpu"}
    text = real.configuration(Path("/some/where"), user="me", host="here", ports=[1, 2, 3, 4], settings=settings)
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("TaskPlugin=")] == ["TaskPlugin=task/cgroup"]
    assert "AccountingStorageTRES=gres/gpu" in lines


def test_control_group_settings_are_written(tmp_path):
    real.RealSlurm(tmp_path, cgroup={"ConstrainRAMSpace": "yes"})._write_configuration()
    assert (tmp_path / "etc" / "cgroup.conf").read_text() == "CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\n"


@pytest.mark.parametrize(
    ("printed", "wait_status", "exit_code"),
    [("1792", 1792, 7), ("15", 15, 0), ("0", 0, 0), ("7:0", 1792, 7), ("0:15", 15, 0), ("0:0", 0, 0), ("", 0, 0)],
)
def test_exit_codes_of_slurm_22_and_of_later_releases_are_read_alike(printed, wait_status, exit_code):
    line = f"{'9':<20}{'F':<12}{printed:<12}{'cpu':<40}{'cn1':<40}{'NonZeroExitCode':<60}\n"
    job = commands.parse_jobs(0, line, "")["9"]
    assert (job.wait_status, job.exit_code) == (wait_status, exit_code)


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """Makes an installation that says it is of a release, and names it."""

    def make(said: str) -> Path:
        for name in ("bin", "sbin", "lib/slurm"):
            (tmp_path / name).mkdir(parents=True)
        for path in ("bin/sbatch", "sbin/slurmctld", "sbin/slurmstepd"):
            (tmp_path / path).write_text(f"#!/bin/sh\necho '{said}'\n")
            (tmp_path / path).chmod(0o755)
        monkeypatch.setenv(programs.VARIABLE, str(tmp_path))
        return tmp_path

    return make


@pytest.mark.parametrize(("said", "release"), [("slurm-wlm 24.11.5", (24, 11)), ("slurm 25.05.2-1", (25, 5))])
def test_programs_and_plugins_of_a_named_installation_are_used(installation, said, release):
    folder = installation(said)
    assert programs.find("sbatch") == folder / "bin" / "sbatch"
    assert programs.find("slurmctld") == folder / "sbin" / "slurmctld"
    assert programs.step_daemon() == folder / "sbin" / "slurmstepd"
    assert programs.plugin_settings() == {"PluginDir": f"{folder}/lib/slurm"}
    assert (programs.version(), programs.release()) == (said.split()[1], release)


def test_a_program_that_names_no_release_is_named_with_what_it_said(installation):
    installation("no such option: -V")
    with pytest.raises(MissingPrerequisite, match="slurmctld -V does not name a release of SLURM: 'no such option"):
        programs.version()


def test_the_machine_s_own_programs_know_their_plugins(monkeypatch):
    monkeypatch.delenv(programs.VARIABLE, raising=False)
    assert (programs.folders(), programs.plugin_settings(), programs.step_daemon()) == ([], {}, None)


@pytest.mark.parametrize(("said", "plugin"), [("slurm 22.05.8", "cgroup/v1"), ("slurm 24.11.5", "disabled")])
def test_a_release_that_can_does_without_control_groups(installation, said, plugin):
    folder = installation(said)
    directory = folder / "cluster"
    real.RealSlurm(directory)._write_configuration()
    assert (directory / "etc" / "cgroup.conf").read_text() == f"CgroupPlugin={plugin}\n"
    assert f"PluginDir={folder}/lib/slurm\n" in (directory / "etc" / "slurm.conf").read_text()
