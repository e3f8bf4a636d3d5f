# SPDX-License-Identifier: Apache-2.0
"""Batch scripts as people have them: their directives become SLURM options, and the target's own words win."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.sbatch import with_script
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.jobs.host_script import script_command

SCRIPT = """#!/bin/bash
#SBATCH --partition=gpu
#SBATCH -t 30:00 -N 2   # two nodes
#SBATCH --mem 4G
#SBATCH --gres=gpu:2
#SBATCH --ntasks-per-node=4
#SBATCH --output=slurm-%j.out
#SBATCH --exclusive
# a comment
module load python
#SBATCH --partition=never
srun ./simulate
"""


def test_directives_become_options_until_the_first_command():
    found = with_script(SlurmOptions(), SCRIPT)
    assert (found.partition, found.time, found.nodes, found.memory_mib) == ("gpu", "30:00", 2, 4096)
    assert (found.gpus, found.ntasks_per_node, found.extra_flags) == (2, 4, ("--exclusive",))


@pytest.mark.parametrize("line", ["#SBATCH --nodes=2-4", "#SBATCH -N 2-4", "#SBATCH -N2-4"])
def test_a_range_of_nodes_is_one(line):
    assert with_script(SlurmOptions(), f"#!/bin/bash\n{line}\n").flags()[1] == "--nodes=2-4"


def test_what_the_target_says_itself_wins():
    own = SlurmOptions(partition="cpu", memory_mib=512, extra_flags=("--exclusive=user",))
    found = with_script(own, SCRIPT)
    assert (found.partition, found.memory_mib, found.nodes) == ("cpu", 512, 2)
    assert found.extra_flags == ("--exclusive=user",)


def test_a_script_without_directives_changes_nothing():
    assert with_script(SlurmOptions(partition="x"), "#!/bin/bash\necho\n") == SlurmOptions(partition="x")


@pytest.mark.parametrize("size", ["4096", "4096M", "4G", "4gb", "4194304K"])
def test_sizes_of_memory(size):
    assert with_script(SlurmOptions(), f"#SBATCH --mem={size}\n").memory_mib == 4096


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("#SBATCH --mem=0", "whole node"),
        ("#SBATCH --nodes=4-2", "one number, or a range such as 2-4"),
        ("#SBATCH --ntasks=2-4", "expected one number"),
        ("#SBATCH --array=1-5", "one pod is one job"),
        ("#SBATCH partition=x", "not an option that is known"),
        ("#SBATCH -Z 1", "not an option that is known"),
        ("#SBATCH -a 1-5", "one pod is one job"),
        ("#SBATCH -W", "would block the plugin"),
        ("#SBATCH -vn 4", "not an option that is known"),
        ("#SBATCH hetjob", "one task for each part"),
        ("#SBATCH --wrap=hostname", "a script of its own"),
        ("#SBATCH --mem=4G \\", "No escaped character"),
        ("#SBATCH --cpus-per-task=$N", "one number"),
        ('#SBATCH --comment="a', "quotation"),
        ("#SBATCH --constraint='a b'", "blanks"),
    ],
)
def test_what_cannot_be_passed_on_is_refused(line, why):
    with pytest.raises(DefinitionError, match=why):
        with_script(SlurmOptions(), f"#!/bin/bash\n{line}\n")


@pytest.mark.parametrize(
    ("lines", "flags"),
    [
        ("  # an indented comment\n\n   \n#SBATCH --hold", ("--hold",)),
        ("# a line\u2028separator\x0cand a form feed\n#SBATCH -H -s", ("--hold", "--oversubscribe")),
        ("##SBATCH --hold\n# SBATCH --hold\n #SBATCH --hold\n#SBATCH", ()),
        ("#SBATCH--hold # why\n", ("--hold",)),
        ("#SBATCH --mail-type=BEGIN,END --mail-user=a@b.org -d afterok:1:2", None),
        (
            "#SBATCH --export=NONE\n#SBATCH --begin 2026-11-29T10:00:00",
            ("--export=NONE", "--begin=2026-11-29T10:00:00"),
        ),
        ("cat <<END\n#SBATCH --hold\nEND\n", ()),
    ],
)
def test_directives_are_found_as_sbatch_finds_them(lines, flags):
    found = with_script(SlurmOptions(), f"#!/bin/bash\n{lines}\n").extra_flags
    assert found == (
        flags if flags is not None else ("--mail-type=BEGIN,END", "--mail-user=a@b.org", "--dependency=afterok:1:2")
    )


def test_a_name_for_people_may_have_blanks_which_are_replaced():
    found = with_script(SlurmOptions(), "#!/bin/sh\n#SBATCH -J 'my job' --comment=\"it's ü\"\n")
    assert (found.job_name, found.comment) == ("my_job", "it_s_")


@pytest.mark.parametrize(
    ("first", "program"),
    [
        ("#!/bin/bash", "exec /bin/bash "),
        ("#!/bin/bash -l", "exec /bin/bash -l "),
        ("#! /usr/bin/env python3 ", "exec /usr/bin/env python3 "),
        ("#!/usr/bin/env -S python3 -u", "exec /usr/bin/env '-S python3 -u' "),
        ("#!/bin/csh; rm -rf /", "exec '/bin/csh;' 'rm -rf /' "),
    ],
)
def test_a_script_runs_with_the_interpreter_of_its_first_line(first, program):
    assert script_command(f"{first}\ntrue\n")[:2] == ["/bin/sh", "-c"]
    assert script_command(f"{first}\ntrue\n")[2].startswith(program)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("hostname\n", "wants #! and the path"),
        ("job.sh", "not its name"),
        ("\n#!/bin/bash\n", "wants #!"),
        ("#!\nhostname\n", "wants #!"),
        ("\ufeff#!/bin/bash\n", "wants #!"),
        ("#!/bin/bash\r\nhostname\r\n", "DOS line breaks"),
        ("#!/bin/bash\nhostname\0", "NUL"),
    ],
)
def test_what_sbatch_would_not_take_as_a_script_is_refused(script, why):
    with pytest.raises(DefinitionError, match=why):
        script_command(script)


@given(st.text(max_size=80))
def test_any_script_is_read_or_refused_with_a_reason(text):
    with contextlib.suppress(DefinitionError):
        assert isinstance(with_script(SlurmOptions(), f"#SBATCH {text}\n"), SlurmOptions)
