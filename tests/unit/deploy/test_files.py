# SPDX-License-Identifier: Apache-2.0
"""The files people deploy from: readable, consistent with each other and with Airflow's own settings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from airflow.configuration import conf

from tests.support import chart

ROOT = Path(__file__).parents[3]
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
VALUES = yaml.safe_load((ROOT / "deploy" / "helm-values.yaml").read_text())
IMAGE = ROOT / "docker" / "airflow"
DOCKERFILE = (IMAGE / "Dockerfile").read_text()
#: What the schema of the official chart says of each value that is set; `python -m tests.support.chart` records it.
CHART = json.loads(Path(__file__).with_name("chart.json").read_text())
AIRFLOW = {
    name: service
    for name, service in COMPOSE["services"].items()
    if "AIRFLOW__CORE__EXECUTOR" in service.get("environment", {})
}


def options_of(section: str) -> set[str]:
    description = conf.configuration_description.get(section, {})
    return set(description.get("options", {}))


def test_every_part_of_airflow_runs_once_at_least_and_two_triggerers_watch():
    commands = {service["command"][0] for service in AIRFLOW.values()}
    assert commands == {"db", "api-server", "scheduler", "dag-processor", "triggerer", "celery"}
    assert COMPOSE["services"]["triggerer"]["deploy"]["replicas"] == 2
    assert VALUES["triggerer"]["replicas"] == VALUES["scheduler"]["replicas"] == 2


def test_no_triggerer_is_bound_to_queues():
    assert "--queues" not in json.dumps([service["command"] for service in AIRFLOW.values()])


@pytest.mark.parametrize("service", AIRFLOW.values(), ids=AIRFLOW)
def test_settings_are_airflows_own(service):
    for name in service["environment"]:
        found = re.fullmatch(r"AIRFLOW__([A-Z_]+?)__([A-Z_]+)", name)
        if found and found[1] != "CELERY":
            assert found[2].lower() in options_of(found[1].lower()), name


def test_options_of_the_chart_are_airflows_own():
    for section, options in VALUES["config"].items():
        assert set(options) <= options_of(section), section


def test_every_value_is_one_of_the_chart_and_none_has_been_renamed():
    assert {path: kind for path, kind in CHART["values"].items() if kind in ("unknown", "renamed")} == {}
    assert set(CHART["values"]) == set(chart.paths(VALUES)), "run: python -m tests.support.chart DIRECTORY"


def test_the_chart_reads_connections_from_a_backend_that_is_installed():
    module, _, name = VALUES["config"]["secrets"]["backend"].rpartition(".")
    assert hasattr(import_module(module), name)


def test_every_secret_comes_from_outside():
    text = (ROOT / "deploy" / "compose.yaml").read_text()
    needed = set(re.findall(r"\$\{([A-Z_0-9]+):\?", text))
    assert needed == {
        "FERNET_KEY",
        "POSTGRES_PASSWORD",
        "REDIS_PASSWORD",
        "JWT_SECRET",
        "API_SECRET_KEY",
        "S3_ACCESS_KEY",
        "S3_SECRET_KEY",
    }
    example = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy" / "compose.env.example").read_text().splitlines()
        if not line.startswith("#")
    )
    assert needed <= set(example)
    assert not any(example[name] for name in needed)


def test_volumes_and_dependencies_are_declared():
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source.startswith(("$", ".")) or source in COMPOSE["volumes"], (name, volume)
        assert set(service.get("depends_on", ())) <= set(COMPOSE["services"])


def test_the_image_runs_as_the_user_the_chart_expects_and_installs_from_the_lock():
    assert "USER 50000" in DOCKERFILE
    assert VALUES["securityContexts"]["pod"]["runAsUser"] == 50000
    installs = [line for line in DOCKERFILE.splitlines() if "pip install" in line]
    assert len(installs) == 2
    assert all("-r /build/requirements.txt" in line or "--no-deps" in line for line in installs)
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / each).exists() for each in copied.split())


def versions(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", path.read_text(), re.MULTILINE))


def test_the_image_has_the_versions_that_the_tests_ran_with():
    image, tested = versions(IMAGE / "requirements.txt"), versions(ROOT / "requirements" / "airflow-3.3.txt")
    differing = {name for name in image.keys() & tested.keys() if image[name] != tested[name]}
    assert differing == set()
    executors = versions(ROOT / "requirements" / "executors.txt")
    assert {name: image[name] for name in ("celery", "redis", "asyncpg")} == {
        name: executors[name] for name in ("celery", "redis", "asyncpg")
    }
    assert {"apache-airflow-providers-fab", "psycopg2-binary", "statsd"} <= set(image)


@pytest.mark.parametrize(
    ("words", "run"),
    [
        (["scheduler"], "airflow scheduler"),
        (["db", "migrate"], "airflow db migrate"),
        (["bash", "-c", "exec airflow triggerer"], "airflow triggerer"),
        (["airflow", "jobs", "check"], "airflow jobs check"),
        ([], "airflow "),
    ],
)
def test_the_entry_point_takes_the_commands_of_compose_and_of_the_chart(tmp_path, words, run):
    program = tmp_path / "airflow"
    program.write_text('#!/bin/sh\necho airflow "$*"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([IMAGE / "entrypoint", *words], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == run.strip()


def test_logs_that_are_old_are_deleted_and_no_other_file(tmp_path):
    logs = tmp_path / "logs" / "dag"
    logs.mkdir(parents=True)
    for name, age in (("old.log", 16), ("new.log", 14), ("old.txt", 16)):
        (logs / name).write_text("x")
        os.utime(logs / name, (time.time() - age * 86400,) * 2)
    environment = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__LOG_RETENTION_DAYS": "15"}
    subprocess.run([IMAGE / "clean-logs", "--once"], env=environment, check=True)
    assert sorted(path.name for path in logs.iterdir()) == ["new.log", "old.txt"]
