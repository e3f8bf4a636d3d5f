# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

import pytest

import airflow_provider_oscar

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_oscar"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_MODULE = 600
MOST_ARGUMENTS = 16


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_has_one_subject(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= LONGEST_MODULE, "make it a package of the same name"
    assert lines[0] == "# SPDX-License-Identifier: Apache-2.0"
    assert ast.get_docstring(ast.parse(path.read_text())), "say what the module is"


@pytest.mark.parametrize("path", sorted((PACKAGE / "hooks").rglob("*.py")), ids=_name)
def test_no_call_is_written_twice_for_sync_and_async(path):
    names = {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name for name in names if f"a{name}" in names or f"a_{name}" in names} - {"run"} == set()


def test_newest_changelog_heading_is_the_version():
    headings = re.findall(r"^## \[?([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == airflow_provider_oscar.__version__


def test_every_locked_dependency_of_the_package_is_pinned():
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(ROOT / "setup.cfg")
    wanted = {re.split(r"[<>=\[]", line)[0] for line in metadata["options"]["install_requires"].split()}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / "airflow-3.3.txt").read_text(), re.MULTILINE))
    assert wanted <= locked


def test_private_names_of_airflow_are_imported_in_one_module():
    private = re.compile(
        r"^\s*(from|import) airflow\.(sdk\.execution_time|sdk\.definitions|api_fastapi|assets|models|jobs)\b", re.M
    )
    found = {_name(path) for path in MODULES if path.name != "_airflow.py" and private.search(path.read_text())}
    assert found == set()


def test_smallest_dag_of_the_readme_is_the_tested_file():
    marked = re.search(
        r"# \[START smallest\]\n(.*?)# \[END smallest\]", (ROOT / "dags/count_words.py").read_text(), re.S
    )
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert marked
    assert shown
    assert shown[1].strip() == marked[1].strip()
