# SPDX-License-Identifier: Apache-2.0
"""The values for the official chart, rendered by Helm: every container runs what our image has.

Needs ``helm`` and the unpacked chart, whose directory ``HELM_CHART`` names; skipped by name without them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import chart

ROOT = Path(__file__).parents[3]
EXECUTORS = {
    "CeleryExecutor": [],
    "KubernetesExecutor": ["--set", "executor=KubernetesExecutor,redis.enabled=false"],
}
#: Programs of the image that commands and probes may begin with.
OURS = re.compile(r"^(exec |[A-Z_]+=\S+ )*(/entrypoint|airflow|python)\b")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart, with its notes as a ConfigMap, which ``helm template`` would leave out."""
    given = os.environ.get("HELM_CHART", "")
    if not given or shutil.which("helm") is None:
        pytest.skip("HELM_CHART names no unpacked chart, or helm is not installed")
    copy = Path(shutil.copytree(given, tmp_path_factory.mktemp("chart") / "airflow"))
    notes = (copy / "templates" / "NOTES.txt").read_text()
    (copy / "templates" / "notes.yaml").write_text(
        '{{ define "our.notes" }}' + notes + "{{ end }}\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata:\n"
        '  notes: {{ include "our.notes" . | toJson }}\n'
    )
    return copy


@pytest.fixture(scope="module", params=EXECUTORS)
def rendered(request: pytest.FixtureRequest, official: Path) -> list[dict[str, Any]]:
    """What would be applied to the cluster."""
    command = ["helm", "template", "airflow", str(official), "-n", "airflow", "-f", str(chart.VALUES)]
    done = subprocess.run([*command, *EXECUTORS[request.param]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def pods(rendered: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the pods of our image, by the name of what makes them; also the executor's template."""
    for each in rendered:
        if each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]
        elif each["kind"] == "ConfigMap" and "pod_template_file.yaml" in each.get("data", {}):
            yield "pod template", yaml.safe_load(each["data"]["pod_template_file.yaml"])["spec"]


def ours(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for container in (*pod["containers"], *(pod.get("initContainers") or ())):
        if container["image"].startswith("registry.example.org/"):
            yield container


def test_the_record_of_the_chart_is_of_this_one(official):
    assert chart.record(official)["values"] == json.loads(chart.RECORD.read_text())["values"]


def test_no_value_is_deprecated(rendered):
    (notes,) = (each["data"]["notes"] for each in rendered if each["metadata"]["name"] == "notes")
    assert "Thank you for installing" in notes
    assert re.findall(r"`[\w.]+` has been renamed", notes) == []


def test_commands_and_probes_run_what_the_image_has(rendered):
    seen = 0
    for name, pod in pods(rendered):
        for container in ours(pod):
            if container.get("args") == ["bash", "/clean-logs"]:
                continue
            lines = [container.get("args") or []]
            lines += [
                container[probe]["exec"]["command"]
                for probe in ("livenessProbe", "startupProbe", "readinessProbe")
                if "exec" in container.get(probe, {})
            ]
            for words in lines:
                if not words:
                    continue
                program = words[2] if words[:2] in (["bash", "-c"], ["sh", "-c"]) else " ".join(words)
                program = program.replace("\\\n", " ").strip()
                assert OURS.match(re.sub(r"\s+", " ", program)), (name, container["name"], program)
                seen += 1
    assert seen > 10


def test_triggerers_and_workers_have_the_account_that_may_start_pods(rendered):
    accounts = {name: pod.get("serviceAccountName") for name, pod in pods(rendered)}
    for name in ("airflow-triggerer", *({"airflow-worker", "pod template"} & accounts.keys())):
        assert accounts[name] == "airflow-oscar"
    assert {"airflow-worker", "pod template"} & accounts.keys()


def test_triggerers_take_every_watcher(rendered):
    (triggerer,) = (
        each
        for each in rendered
        if each["metadata"]["name"] == "airflow-triggerer" and "spec" in each and each["kind"] == "StatefulSet"
    )
    assert triggerer["spec"]["replicas"] == 2
    assert "--queues" not in str(triggerer)
