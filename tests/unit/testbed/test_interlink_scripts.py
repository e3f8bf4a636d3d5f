# SPDX-License-Identifier: Apache-2.0
"""How a pod becomes a batch job: environment, volumes, flags, scripts and the meaning of statuses."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oscar_testbed.errors import RejectedError
from oscar_testbed.fakes.interlink import job_script, runtime, volumes
from oscar_testbed.fakes.interlink.environment import UnresolvedError, expand, resolve
from oscar_testbed.fakes.interlink.plugin import ContainerReply, Creation, SlurmPlugin, StatusReply
from oscar_testbed.fakes.interlink.virtual_node import pod_status
from oscar_testbed.fakes.kubernetes import NotFoundError
from oscar_testbed.fakes.slurm import BatchJob
from oscar_testbed.faults import InterLinkFaults

UID = "8d3a3a8e-1f7b-4a71-b0b3-3fd0f9a3f0aa"


def _pod(**spec):
    containers = [{"name": "main", "image": "i", "command": ["true"]}]
    meta = {
        "name": "p",
        "namespace": "ns",
        "uid": UID,
        "labels": {"l": "v"},
        "annotations": spec.pop("annotations", {}),
    }
    return {"metadata": meta, "spec": {"containers": containers, "nodeName": "n", **spec}, "status": {}}


def _lookup(plural, name):
    known = {("secrets", "s"): {"data": {"key": "dmFsdWU="}}, ("configmaps", "c"): {"data": {"a": "1", "b": "2"}}}
    if (plural, name) not in known:
        raise NotFoundError(f"{plural} {name} not found")
    return known[plural, name]


class OneJob:
    """A batch system that takes every script and forgets it."""

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.cancelled: list[str] = []

    def submit(self, script: Path) -> str:
        if self.error:
            raise RejectedError(self.error)
        return "7"

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)


def test_environment_is_resolved_in_kubernetes_order():
    container = {
        "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "C_"}, {"secretRef": {"name": "no", "optional": True}}],
        "env": [
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
            {"name": "BOTH", "value": "$(SECRET)-$(C_a)-$(NOBODY)-$$(C_a)"},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['l']"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
    }
    assert resolve(_pod(), container, _lookup) == {
        "C_a": "1",
        "C_b": "2",
        "SECRET": "value",
        "BOTH": "value-1-$(NOBODY)-$(C_a)",
        "LABEL": "v",
    }


@pytest.mark.parametrize(
    "source",
    [
        {"secretKeyRef": {"name": "absent", "key": "key"}},
        {"secretKeyRef": {"name": "s", "key": "absent"}},
        {"fieldRef": {"fieldPath": "status.podIP"}},
    ],
)
def test_what_a_virtual_node_cannot_know_is_unresolved(source):
    with pytest.raises(UnresolvedError):
        resolve(_pod(), {"env": [{"name": "X", "valueFrom": source}]}, _lookup)


@given(st.text())
def test_escaped_dollars_survive_expansion(text):
    assert expand(text.replace("$", "$$"), {"A": "b"}) == text


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("-p gpu --time=5", ["-p gpu", "--time=5"]),
        ("--partition=cpu -p gpu", ["-p gpu"]),
        ("--a=1\n--b='x y'", ["--a=1", "--b=x y"]),
        ("", []),
    ],
)
def test_flags_are_split_and_the_last_of_a_kind_wins(text, flags):
    assert job_script.split_flags(text) == flags


def test_limits_take_the_place_of_flags():
    containers = [
        {"resources": {"limits": {"cpu": "1500m", "memory": "2Gi"}}},
        {"resources": {"limits": {"cpu": "1", "memory": "100M"}, "requests": {"cpu": "8"}}},
    ]
    assert job_script.resource_flags(containers, ["-c 9", "--mem=1G", "--time=5"]) == [
        "--time=5",
        "--cpus-per-task=2",
        "--mem=2048",
    ]


def test_without_limits_the_flags_stay_and_defaults_are_tiny():
    assert job_script.resource_flags([{}], ["-c 9"]) == ["-c 9", "--mem=1"]


hostile = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))


@given(environment=st.dictionaries(st.from_regex("[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), hostile, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_value_survives_the_environment_file(tmp_path, environment):
    path = tmp_path / "file"
    path.write_bytes(job_script.environment_file(environment).encode())
    assert runtime.read_env_file(str(path)) == environment


@pytest.mark.parametrize("code", [0, 3])
def test_job_script_runs_init_then_main_and_exits_with_the_highest_code(tmp_path, code):
    fake = tmp_path / "fake"
    fake.write_text('#!/bin/sh\nfor last; do :; done\neval "$last"\n')
    fake.chmod(0o755)
    lines = [
        job_script.ContainerLine("main", False, "i", (f"cat {tmp_path}/x; exit {code}",), True, (), tmp_path / "env"),
        job_script.ContainerLine("first", True, "i", (f"echo 'it''s' > {tmp_path}/x",), True, (), tmp_path / "env"),
    ]
    script = tmp_path / "job.sh"
    script.write_text(job_script.job_script(_pod(), tmp_path, lines, fake))
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert (tmp_path / "init-first.status").read_text() == "0"
    assert (tmp_path / "run-main.status").read_text() == str(code)
    assert (tmp_path / "run-main.out").read_text().startswith("its\n\nreal")
    assert f"Container main ended with status {code}" in done.stdout


def test_failing_init_container_ends_the_job_with_its_code(tmp_path):
    fake = tmp_path / "fake"
    fake.write_text("#!/bin/sh\nexit 5\n")
    fake.chmod(0o755)
    lines = [
        job_script.ContainerLine("first", True, "i", (), True, (), tmp_path / "env"),
        job_script.ContainerLine("main", False, "i", (), True, (), tmp_path / "env"),
    ]
    script = job_script.job_script(_pod(), tmp_path, lines, fake)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert not (tmp_path / "run-main.status").exists()


def test_pre_exec_stands_between_directives_and_job():
    text = job_script.batch_script(UID, Path("/d"), ["--time=5"], {"slurm-job.vk.io/pre-exec": "export A=1"})
    assert text.splitlines()[1:] == [
        f"#SBATCH --job-name={UID}",
        "#SBATCH --output=/d/job.out",
        "#SBATCH --time=5",
        "export A=1",
        "/d/job.sh",
    ]


def test_old_annotation_family_is_ignored():
    text = job_script.batch_script(UID, Path("/d"), [], {"job.vk.io/pre-exec": "export A=1"})
    assert "export A" not in text


@pytest.mark.parametrize(
    ("image", "root", "expected"),
    [("i:1", "docker://", "docker://i:1"), ("/x.sif", "docker://", "/x.sif"), ("oras://i", "docker://", "oras://i")],
)
def test_image_root_is_put_before_plain_names_only(image, root, expected):
    assert job_script.image(image, {"slurm-job.vk.io/image-root": root}) == expected


def test_hostile_arguments_stay_one_word_each():
    words = ("sh", "-c", "echo 'a' \"b\" $(id); `id`\nnext")
    line = job_script.ContainerLine("main", False, "i", words, True, (), Path("/d/env"))
    assert tuple(shlex.split(job_script.command_line(Path("/rt"), line, {}))[-3:]) == words


@pytest.mark.parametrize(("wanted", "mode"), [({}, 0o644), ({"defaultMode": 0o600}, 0o600)])
def test_secret_files_have_the_mode_of_their_volume(tmp_path, wanted, mode):
    pod = _pod(volumes=[{"name": "v", "secret": {"secretName": "s", **wanted}}, {"name": "e", "emptyDir": {}}])
    volumes.write(pod, volumes.fetch(pod, _lookup), tmp_path)
    path = tmp_path / "secrets" / "v" / "key"
    assert path.read_bytes() == b"value"
    assert path.stat().st_mode & 0o777 == mode
    assert path.parent.stat().st_mode & 0o077 == 0, "others have no way to it"
    assert (tmp_path / "emptyDirs" / "e").is_dir()


def test_volume_of_an_unknown_kind_costs_all_mounts(tmp_path):
    pod = _pod(volumes=[{"name": "e", "emptyDir": {}}, {"name": "p", "persistentVolumeClaim": {"claimName": "x"}}])
    mounts = [{"name": "e", "mountPath": "/e"}, {"name": "p", "mountPath": "/p"}]
    assert volumes.binds(pod, {"volumeMounts": mounts}, {}, tmp_path) == []
    assert [bind.target for bind in volumes.binds(pod, {"volumeMounts": mounts[:1]}, {}, tmp_path)] == ["/e"]


def test_absent_volume_source_is_missing_unless_optional():
    with pytest.raises(volumes.MissingError):
        volumes.fetch(_pod(volumes=[{"name": "v", "configMap": {"name": "absent"}}]), _lookup)
    optional = _pod(volumes=[{"name": "v", "configMap": {"name": "absent", "optional": True}}])
    assert volumes.fetch(optional, _lookup) == {"v": {}}


def _status(tmp_path, state, *, wait_status=0, code=None, faults=None):
    plugin = SlurmPlugin(tmp_path, OneJob(), Path("/rt"), faults=faults or InterLinkFaults())
    plugin.create(Creation(_pod(), {}, {}))
    if code is not None:
        (tmp_path / f"ns-{UID}" / "run-main.status").write_text(str(code))
    return plugin.status(UID, {"7": BatchJob("7", state, wait_status=wait_status)})


@pytest.mark.parametrize(
    ("state", "wait_status", "code", "phase", "exit_code"),
    [
        pytest.param("PD", 0, None, "Pending", None, id="queued"),
        pytest.param("R", 0, 0, "Running", None, id="one-container-done"),
        pytest.param("CD", 0, 0, "Succeeded", 0, id="done"),
        pytest.param("F", 768, 3, "Failed", 3, id="failed"),
        pytest.param("F", 1280, None, "Failed", 80, id="init-failed-mangled"),
        pytest.param("CA", 0, None, "Succeeded", 0, id="cancelled-while-pending"),
        pytest.param("CA", 15, None, "Failed", 15, id="cancelled-while-running"),
        pytest.param("CF", 0, None, "Succeeded", 0, id="configuring"),
        pytest.param("TO", 15, None, "Failed", 15, id="timeout"),
        pytest.param("XX", 0, None, "Succeeded", 0, id="word-nobody-knows"),
    ],
)
def test_states_lead_to_the_phases_upstream_reports(tmp_path, state, wait_status, code, phase, exit_code):
    changes = pod_status(_pod(), _status(tmp_path, state, wait_status=wait_status, code=code))
    assert changes["phase"] == phase
    terminated = changes["containerStatuses"][0]["state"].get("terminated", {})
    assert terminated.get("exitCode") == exit_code


def test_only_the_message_tells_a_timeout(tmp_path):
    changes = pod_status(_pod(), _status(tmp_path, "TO", wait_status=15))
    terminated = changes["containerStatuses"][0]["state"]["terminated"]
    assert terminated["message"] == "SLURM job reached its time limit and was terminated"
    assert terminated["reason"] == changes["reason"] == "Error: 15"


def test_quirks_can_be_switched_off(tmp_path):
    faults = InterLinkFaults(cancelled_succeeds=False, mangled_codes=False)
    reply = _status(tmp_path, "CA", faults=faults)
    assert [one.exit_code for one in reply.containers] == [1]


def test_no_containers_mean_success(tmp_path):
    reply = _status(tmp_path, "R", faults=InterLinkFaults(empty_containers=True))
    assert pod_status(_pod(), reply)["phase"] == "Succeeded"


def test_unknown_pod_changes_nothing(tmp_path):
    assert pod_status(_pod(), StatusReply(UID, (ContainerReply("main"),))) == {}


def test_cache_answers_with_the_pod_that_was_asked_for_first(tmp_path):
    plugin = SlurmPlugin(tmp_path, OneJob(), Path("/rt"), faults=InterLinkFaults(status_cache=60.0))
    plugin.create(Creation(_pod(), {}, {}))
    jobs = {"7": BatchJob("7", "R")}
    assert plugin.status(UID, jobs).uid == UID
    assert plugin.status("another", jobs).uid == UID


def test_purged_job_is_judged_by_its_files(tmp_path):
    plugin = SlurmPlugin(tmp_path, OneJob(), Path("/rt"))
    plugin.create(Creation(_pod(), {}, {}))
    assert plugin.status(UID, {}) is None
    (tmp_path / f"ns-{UID}" / "run-main.status").write_text("4")
    assert [one.exit_code for one in plugin.status(UID, {}).containers] == [4]


def test_refused_job_leaves_no_directory(tmp_path):
    plugin = SlurmPlugin(tmp_path, OneJob("sbatch: error: no"), Path("/rt"))
    with pytest.raises(RejectedError, match="no"):
        plugin.create(Creation(_pod(), {}, {}))
    assert list(tmp_path.iterdir()) == []


def test_deleting_cancels_and_removes_everything(tmp_path):
    batch = OneJob()
    plugin = SlurmPlugin(tmp_path, batch, Path("/rt"))
    plugin.create(Creation(_pod(), {}, {}))
    plugin.delete(UID)
    plugin.delete(UID)
    assert batch.cancelled == ["7"]
    assert list(tmp_path.iterdir()) == []


def test_log_of_an_init_container_is_the_job_log_only(tmp_path):
    faults = InterLinkFaults()
    plugin = SlurmPlugin(tmp_path, OneJob(), Path("/rt"), faults=faults)
    plugin.create(Creation(_pod(), {}, {}))
    assert plugin.log_files(UID, "first").body.name == "run-first.out"
    faults.set(hide_init_logs=False)
    assert plugin.log_files(UID, "first").body.name == "init-first.out"
