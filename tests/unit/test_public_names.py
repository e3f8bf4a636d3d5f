# SPDX-License-Identifier: Apache-2.0
"""What DAG authors import from the package itself: complete, sorted, lazy, and seen by type checkers."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseEventTrigger

import airflow_provider_oscar
from airflow_provider_oscar import decorators, operators, sensors, triggers
from airflow_provider_oscar.base_arguments import _hints
from airflow_provider_oscar.core.checks import is_own

ROOT = Path(airflow_provider_oscar.__file__).parent
#: What the public classes have in common; users name a subclass.
BASES = {
    "FunctionJobOperator",
    "JobOperator",
    "NewObjectSensor",
    "NewObjectTrigger",
    "PlacementOperator",
    "PodJobOperator",
}


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


@pytest.mark.parametrize("name", [each for each in airflow_provider_oscar.__all__ if each.endswith("Operator")])
def test_the_values_that_an_operator_takes_are_among_them(name: str) -> None:
    constructor = inspect.unwrap(getattr(airflow_provider_oscar, name).__init__)
    hints = _hints(constructor).values()
    kinds = {kind for hint in hints for kind in (hint, *get_args(hint)) if isinstance(kind, type)}
    values = {kind.__name__ for kind in kinds if is_own(kind) and not getattr(kind, "_is_protocol", False)}
    assert values <= set(airflow_provider_oscar.__all__)


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
