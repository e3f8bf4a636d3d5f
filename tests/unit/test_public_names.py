# SPDX-License-Identifier: Apache-2.0
"""What DAG authors import from the package itself: complete, sorted, lazy, and seen by type checkers."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseEventTrigger
from mypy import api

import airflow_provider_oscar
from airflow_provider_oscar import decorators, operators, sensors, triggers

ROOT = Path(airflow_provider_oscar.__file__).parent
#: What the public classes have in common; users name a subclass.
BASES = {"FunctionJobOperator", "JobOperator", "NewObjectSensor", "NewObjectTrigger", "PodJobOperator"}


def test_names_are_sorted_and_each_is_what_its_module_calls_so() -> None:
    assert airflow_provider_oscar.__all__ == sorted(set(airflow_provider_oscar.__all__))
    for name in airflow_provider_oscar.__all__:
        assert getattr(airflow_provider_oscar, name).__name__ == name
    assert set(airflow_provider_oscar.__all__) <= set(dir(airflow_provider_oscar))
    with pytest.raises(AttributeError, match="has no attribute 'OscarJobOperater'"):
        _ = airflow_provider_oscar.OscarJobOperater  # type: ignore[attr-defined]


def test_every_operator_sensor_watcher_and_decorator_is_among_them() -> None:
    found = set()
    for package in (operators, sensors, triggers, decorators):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(module.name)).items():
                if name.startswith("_") or getattr(value, "__module__", "") != module.name:
                    continue
                is_class = isinstance(value, type) and issubclass(value, BaseOperator | BaseEventTrigger)
                if is_class or (package is decorators and name.endswith("_task")):
                    found.add(name)
    assert found - BASES <= set(airflow_provider_oscar.__all__)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(airflow_provider_oscar.__all__) == set(airflow_provider_oscar._MODULES)


def test_the_package_itself_imports_neither_airflow_nor_its_own_modules() -> None:
    program = (
        "import sys, airflow_provider_oscar\n"
        "print([name for name in sys.modules if name.startswith(('airflow.', 'airflow_provider_oscar.'))])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


GOOD = """
from datetime import datetime, timedelta
from airflow_provider_oscar import DCacheNewObjectTrigger, ObjectFilter, S3NewObjectSensor, S3NewObjectTrigger

S3NewObjectTrigger(asset_name="a", bucket="b", poll_interval=timedelta(seconds=5), filter=ObjectFilter(suffix=".h5"))
S3NewObjectTrigger(asset_name="a", bucket="b", start=datetime(2026, 1, 1), algorithm="cursor")
DCacheNewObjectTrigger(asset_name="a", path="/in", notifications="sse")
S3NewObjectSensor(task_id="t", bucket="b", batch=True, mode="reschedule", deferrable=False)
"""
BAD = {
    'S3NewObjectTrigger(asset_name="a", bukcet="b")': "bukcet",
    'S3NewObjectTrigger(asset_name="a", bucket="b", poll_interval="soon")': "poll_interval",
    'S3NewObjectTrigger(asset_name="a", bucket=5)': "bucket",
    'S3NewObjectTrigger(asset_name="a", bucket="b", algorithm="guess")': "algorithm",
    'DCacheNewObjectTrigger(asset_name="a", path="/in", notifications="pigeon")': "notifications",
    'DCacheNewObjectTrigger(asset_name="a", path="/in", recursive="yes")': "recursive",
    'S3NewObjectSensor(task_id="t", bucket="b", batch="yes")': "batch",
    'S3NewObjectTrigger(asset_name="a", bucket="b", filter=ObjectFilter(sufix=".h5"))': "sufix",
}


@pytest.mark.timeout(600)  # the first run has to read Airflow
def test_a_misspelt_or_ill_typed_argument_is_an_error_of_the_type_checker(tmp_path: Path) -> None:
    dag = tmp_path / "dag.py"
    dag.write_text(GOOD + "\n".join(BAD) + "\n")
    # With the options of the repository, so that what was checked already is not checked again.
    shown, _, _ = api.run(["--config-file", str(ROOT.parent / "pyproject.toml"), "--no-color", str(dag)])
    first = GOOD.count("\n") + 1
    for number, (line, word) in enumerate(BAD.items(), start=first):
        assert any(f":{number}: error:" in each and word in each for each in shown.splitlines()), f"{line}\n{shown}"
    assert not any(int(each.split(":")[1]) < first for each in shown.splitlines() if ": error:" in each), shown
