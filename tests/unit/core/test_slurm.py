# SPDX-License-Identifier: Apache-2.0
"""SLURM options become annotations that survive the plugin, or a clear error."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.pods import PodRequest, build_pod
from airflow_provider_oscar.core.slurm import (
    SlurmOptions,
    check_annotations,
    check_service_flags,
)
from airflow_provider_oscar.core.slurm_notations import format_time, parse_time_limit

FLAGS = "slurm-job.vk.io/flags"


def test_without_any_wish_there_is_still_a_time_limit_and_a_memory_limit():
    options = SlurmOptions()
    assert (options.flags(), options.limits()) == (("--time=01:00:00",), {})
    request = PodRequest(name="j", namespace="n", node="hpc", image="docker://i", slurm=options)
    made = json.loads(json.dumps(build_pod(request)))
    assert made["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "1024Mi"}


def test_every_wish_becomes_one_word():
    options = SlurmOptions(
        partition="gpu", time=timedelta(days=1, minutes=1), cpus_per_task=4, memory_mib=2048, gpus=2, account="a1",
        qos="high", constraint="a100&nvlink", nodes=1, job_name="3dgan", extra_flags=("--exclusive", "--mail-type=END"),
    )  # fmt: skip
    assert options.to_annotations()[FLAGS].split(" ") == [
        "--job-name=3dgan", "--time=1-00:01:00", "--partition=gpu", "--account=a1", "--qos=high",
        "--constraint=a100&nvlink", "--nodes=1", "--gres=gpu:2", "--exclusive", "--mail-type=END",
    ]  # fmt: skip
    assert options.limits() == {"cpu": "4", "memory": "2048Mi"}


def test_cpu_and_memory_are_never_flags():
    text = SlurmOptions(cpus_per_task=9, memory_mib=9).to_annotations()[FLAGS]
    assert "cpus" not in text
    assert "mem" not in text


def test_the_job_id_reaches_the_container_before_the_users_own_text():
    text = SlurmOptions(pre_exec="module load cuda").to_annotations()["slurm-job.vk.io/pre-exec"]
    assert text.endswith("\nmodule load cuda\n")
    script = text.removesuffix("module load cuda\n") + "env"
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "cn[1-2,7]", "OTHER": "x"}
    for shell in ("sh", "bash"):
        shown = subprocess.run([shell, "-c", script], env=environment, capture_output=True, text=True, check=True)
        lines = shown.stdout.splitlines()
        for runtime in ("SINGULARITY", "APPTAINER"):
            assert f"{runtime}ENV_SLURM_JOB_ID=17" in lines
            assert f"{runtime}ENV_SLURM_JOB_NODELIST=cn[1-2,7]" in lines
        assert not [line for line in lines if "ENV_CUDA" in line or "ENV_OTHER" in line or line.startswith("OSCAR_")]


def test_nodes_and_tasks_are_flags():
    flags = SlurmOptions(nodes=2, ntasks=8, ntasks_per_node=4).flags()
    assert flags[-3:] == ("--nodes=2", "--ntasks=8", "--ntasks-per-node=4")


def test_name_and_comment_say_whose_job_it_is_unless_they_were_chosen():
    named = SlurmOptions().named(job_name="my dag.train", comment="airflow:d/t/manual__2026-11-28T09:00:00+00:00")
    assert (named.job_name, named.comment) == ("my_dag.train", "airflow:d/t/manual__2026-11-28T09:00:00+00:00")
    assert SlurmOptions(job_name="mine").named(job_name="d.t", comment="c").job_name == "mine"


@given(st.text(), st.text())
def test_any_dag_and_run_make_a_name_and_a_comment_that_slurm_takes(name, comment):
    flags = SlurmOptions().named(job_name=name, comment=comment).to_annotations()[FLAGS]
    assert all(word.startswith("--") for word in flags.split(" "))


def test_templates_are_rendered_and_checked_then():
    options = SlurmOptions(
        memory_mib="{{ 1024 * n }}",
        time="{{ t }}",
        extra_flags=("--dependency=afterok:{{ j }}",),
        gpus="{{ 0 }}",
        partition="{{ p }}",
    )
    assert options.is_template
    values = {"{{ 1024 * n }}": 2048, "{{ t }}": timedelta(hours=2), "{{ 0 }}": "0", "{{ p }}": "gpu"}
    done = options.rendered(lambda text: values.get(text, text.replace("{{ j }}", "17")))
    assert not done.is_template
    assert (done.memory_mib, done.time, done.gpus, done.partition) == (2048, timedelta(hours=2), 0, "gpu")
    assert done.flags() == ("--time=02:00:00", "--partition=gpu", "--dependency=afterok:17")
    with pytest.raises(DefinitionError, match="memory_mib is 'much'"):
        options.rendered(lambda text: {"{{ 1024 * n }}": "much"}.get(text, values.get(text, "--x=1")))


def test_a_template_that_becomes_empty_leaves_its_field_or_flag_out():
    options = SlurmOptions(
        partition="{{ '' }}",
        time="{{ '' }}",
        memory_mib="{{ '' }}",
        gpus="{{ '' }}",
        extra_flags=("{{ '' }}", "--exclusive"),
    )
    assert options.rendered(lambda text: text.replace("{{ '' }}", "")) == SlurmOptions(extra_flags=("--exclusive",))


@pytest.mark.parametrize("name", ["partition", "time", "memory_mib", "comment"])
def test_a_template_of_what_has_no_value_is_refused(name):
    with pytest.raises(DefinitionError, match=f"SlurmOptions.{name} is 'None', so what its template names has no"):
        SlurmOptions(**{name: "{{ params.x }}"}).rendered(lambda text: text and "None")


def test_what_a_template_gives_is_checked_even_if_it_looks_like_a_template_again():
    with pytest.raises(DefinitionError, match="partition"):
        SlurmOptions(partition="{{ p }}").rendered(lambda _: "{{ $(reboot) }}")


def test_mounts_options_and_image_root_become_text_for_the_command_line():
    options = SlurmOptions(
        mounts=("/a:/b", "/c:/d:ro"), options=("--no-home", "--cleanenv"), image_root="/cvmfs/images"
    )
    annotations = options.to_annotations()
    assert annotations["slurm-job.vk.io/singularity-mounts"] == "--bind /a:/b --bind /c:/d:ro"
    assert annotations["slurm-job.vk.io/singularity-options"] == "--no-home --cleanenv"
    assert annotations["slurm-job.vk.io/enroot-mounts"] == (
        "--mount /a:/b:none:x-create=auto,rbind --mount /c:/d:none:x-create=auto,rbind,ro"
    )
    assert annotations["slurm-job.vk.io/enroot-options"] == "--no-home --cleanenv"
    assert annotations["slurm-job.vk.io/image-root"] == "/cvmfs/images/"
    assert SlurmOptions(image_root="docker://").to_annotations()["slurm-job.vk.io/image-root"] == "docker://"


def test_what_is_not_wished_has_no_annotation():
    assert set(SlurmOptions().to_annotations()) == {FLAGS, "slurm-job.vk.io/pre-exec"}


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (timedelta(seconds=1), "00:00:01"),
        (timedelta(microseconds=1), "00:00:01"),
        (timedelta(hours=23, minutes=59, seconds=59), "23:59:59"),
        (timedelta(days=2), "2-00:00:00"),
        ("90", "90"),
        ("1:30", "1:30"),
        ("02:30:00", "02:30:00"),
        ("1-12", "1-12"),
        ("1-12:30:00", "1-12:30:00"),
    ],
)
def test_time_is_written_as_slurm_reads_it(limit, text):
    assert format_time(limit) == text


@pytest.mark.parametrize(
    ("limit", "duration"),
    [("90", timedelta(minutes=90)), ("1:30", timedelta(seconds=90)), ("1:30:00", timedelta(hours=1.5)),
     ("1-0", timedelta(1)), ("1-12", timedelta(1.5)), ("1-12:30", timedelta(1, hours=12, minutes=30)),
     ("1-12:30:15", timedelta(1, 15, hours=12, minutes=30))],
)  # fmt: skip
def test_a_time_is_understood_as_slurm_does(limit, duration):
    assert parse_time_limit(limit) == duration


@pytest.mark.parametrize("limit", ["4294967296", "99999999999", "4000-0", timedelta(4000), "1" * 400])
def test_a_time_that_slurm_would_count_beyond_its_end_is_refused(limit):
    with pytest.raises(DefinitionError, match=r"SlurmOptions\.time"):
        SlurmOptions(time=limit)


@pytest.mark.parametrize("limit", [timedelta(0), timedelta(-1), "0", "00:00:00", "", "1h", "1:2:3:4", "-5", "٣", 60])
def test_a_time_slurm_would_misread_is_refused(limit):
    with pytest.raises(DefinitionError, match=r"SlurmOptions\.time"):
        SlurmOptions(time=limit)


@pytest.mark.parametrize("field", ["partition", "account", "qos", "constraint", "job_name", "image_root"])
@pytest.mark.parametrize("value", ["a b", "a\nb", "a'b", 'a"b', "$(id)", "a;b", "a`b`", "a#b", "a\\b"])
def test_values_the_plugin_mangles_are_refused(field, value):
    with pytest.raises(DefinitionError, match=f"{field} is"):
        SlurmOptions(**{field: value})


@pytest.mark.parametrize("field", ["mounts", "options"])
@pytest.mark.parametrize("value", ["/a:/b; rm -rf /", "/a:/b --x", "$(id)"])
def test_words_that_would_end_the_command_line_are_refused(field, value):
    with pytest.raises(DefinitionError, match="do not survive"):
        SlurmOptions(**{field: (value,)})


@pytest.mark.parametrize("mount", ["/a", "/a:/b:ro:x", "/a:", "a:/b", "/a:b", "/a:/b:xx", "/a:/b,/c:/d"])
def test_a_mount_has_a_source_and_a_destination(mount):
    with pytest.raises(DefinitionError, match="source:destination"):
        SlurmOptions(mounts=(mount,))


@pytest.mark.parametrize("field", ["extra_flags", "mounts", "options"])
def test_a_text_in_place_of_a_tuple_is_refused(field):
    with pytest.raises(DefinitionError, match="expected a tuple of words"):
        SlurmOptions(**{field: "--exclusive"})


@pytest.mark.parametrize(
    ("field", "value"),
    [("cpus_per_task", 0), ("memory_mib", 0), ("gpus", -1), ("nodes", 0), ("gpus", True), ("cpus_per_task", 1.5),
     ("memory_mib", 1.5), ("memory_mib", "4G"), ("memory_mib", "4Gi"), ("gpus", "a100:1"), ("nodes", "4-2"),
     ("nodes", "0-2"), ("nodes", "2-"), ("nodes", "1,3"), ("nodes", "1-8:2"), ("ntasks", "2-4"),
     ("cpus_per_task", "1500m")],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(field, value):
    with pytest.raises(DefinitionError, match=f"{field} is"):
        SlurmOptions(**{field: value})


@pytest.mark.parametrize("nodes", ["2-4", "2-2"])
def test_a_range_of_nodes_is_passed_on_as_sbatch_takes_it(nodes):
    assert f"--nodes={nodes}" in SlurmOptions(nodes=nodes).flags()
    rendered = SlurmOptions(nodes="{{ params.nodes }}").rendered(lambda text: text.replace("{{ params.nodes }}", nodes))
    assert rendered.nodes == nodes


def test_how_to_say_a_range_of_nodes_is_in_the_message():
    with pytest.raises(DefinitionError, match="'4-2'; expected a whole number >= 1, or a range such as '2-4'"):
        SlurmOptions(nodes="4-2")


def test_a_number_may_be_a_text():
    assert SlurmOptions(memory_mib="4096", nodes="2").limits() == SlurmOptions(memory_mib=4096, nodes=2).limits()


@pytest.mark.parametrize(
    ("field", "value"),
    [("partition", None), ("partition", 5), ("job_name", b"x"), ("pre_exec", ["module load x"]), ("image_root", True)],
)
def test_what_is_no_text_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(DefinitionError, match=f"{field} of SlurmOptions is"):
        SlurmOptions(**{field: value})


@pytest.mark.parametrize("value", [(b"--x",), (1,), None, (None,)])
def test_what_is_no_word_is_refused_by_the_name_of_its_field(value):
    with pytest.raises(DefinitionError, match="extra_flags holds"):
        SlurmOptions(extra_flags=value)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("-p gpu", "expected --name"),
        ("--comment=a b", "do not survive"),
        ("--time=5", "use the field time"),
        ("--mem=5", "use the field memory_mib"),
        ("--cpus-per-task=5", "use the field cpus_per_task"),
        ("--output=x", "the plugin reads the log"),
        ("--mem-per-cpu=1G", "use memory_mib"),
        ("--array=1-3", "one pod is one job"),
        ("--wait", "block the plugin"),
        ("--verbose", "standard error as a failure"),
        ("--help", "no job would be submitted"),
        ("--clusters=other", "in its own cluster"),
        ("--outpu=/tmp/x", "may take for --output"),
        ("--wra=id", "may take for --wrap"),
        ("--arra=1-3", "may take for --array"),
        ("--ti=5", "may take for --time"),
        ("--ntasks-per=5", "may take for --ntasks-per-node"),
    ],
)
def test_flags_that_break_the_plugin_are_refused_with_the_reason(flag, message):
    with pytest.raises(DefinitionError, match=message):
        SlurmOptions(extra_flags=(flag,))


def test_a_flag_said_twice_is_refused():
    with pytest.raises(DefinitionError, match="--gres twice"):
        SlurmOptions(gpus=1, extra_flags=("--gres=gpu:a100:1",))
    with pytest.raises(DefinitionError, match="--gpus twice"):
        SlurmOptions(gpus=1, extra_flags=("--gpus=2",))
    with pytest.raises(DefinitionError, match="--exclusive twice"):
        SlurmOptions(extra_flags=("--exclusive", "--exclusive=user"))
    assert SlurmOptions(extra_flags=("--gres=gpu:a100:1",)).flags()[-1] == "--gres=gpu:a100:1"


@pytest.mark.parametrize("text", ["cat <<EOFMESH", "#SBATCH --time=1", "a\0b", "a\r\n"])
def test_pre_exec_text_that_the_plugin_would_take_apart_is_refused(text):
    with pytest.raises(DefinitionError, match="pre_exec contains"):
        SlurmOptions(pre_exec=text)


@pytest.mark.parametrize("prefix", ["job.vk.io/", "slurm-job.knoc.io/"])
def test_annotations_nobody_reads_are_refused_with_the_one_that_works(prefix):
    with pytest.raises(DefinitionError, match="write 'slurm-job.vk.io/flags'"):
        check_annotations({f"{prefix}flags": "--time=1"})


def test_annotations_that_are_read_pass():
    check_annotations({FLAGS: "--time=1", "interlink.eu/pod-vpn": "true"})


@given(st.text(min_size=1, max_size=20), st.sampled_from(["partition", "account", "constraint", "job_name"]))
def test_whatever_is_accepted_is_one_word_for_a_shell_and_for_the_plugin(text, field):
    try:
        flags = SlurmOptions(**{field: text}).to_annotations()[FLAGS]
    except DefinitionError:
        return
    assert len(flags.split()) == len(shlex.split(flags)) == 2


@pytest.mark.parametrize("flags", ["--array=0-3", "--array 0-3", "-a 0-3", "-a0-3", "--arr=1", "--time=5 --ar=1,2"])
def test_a_service_whose_jobs_would_be_arrays_is_refused_in_each_form_that_sbatch_takes(flags):
    with pytest.raises(DefinitionError, match="service 's' asks by '.*' for a job array"):
        check_service_flags({"slurm-job.vk.io/flags": flags}, "service 's'")


@pytest.mark.parametrize("flags", ["", "--account=array", "--time=5 --partition=a", "-A array", "--job-name=-a"])
def test_other_flags_of_a_service_are_left_to_slurm(flags):
    check_service_flags({"slurm-job.vk.io/flags": flags}, "service 's'")
