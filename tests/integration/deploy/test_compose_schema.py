# SPDX-License-Identifier: Apache-2.0
"""The compose file against a schema of the Compose Specification, which Docker's former Compose brings on PyPI."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[3]
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The schema, from the package index; skipped by name where there is none."""
    directory = tmp_path_factory.mktemp("compose")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "docker-compose==1.29.2"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"the package index has no docker-compose here: {done.stderr.strip()[-200:]}")
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as found:
        read: dict[str, object] = json.loads(found.read("compose/config/compose_spec.json"))
    return read


def faults(schema: dict[str, object], compose: dict[str, object]) -> list[str]:
    validator = jsonschema.validators.validator_for(schema)(schema)
    # The name of the project came into the specification after this schema.
    document = {name: value for name, value in compose.items() if name != "name"}
    return [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(document)]


def test_the_compose_file_is_of_the_specification(schema):
    assert faults(schema, COMPOSE) == []


def test_a_wrong_compose_file_would_be_found(schema):
    wrong = {**COMPOSE, "services": {**COMPOSE["services"], "redis": {"image": "redis", "restarts": "always"}}}
    assert len(faults(schema, wrong)) == 1
