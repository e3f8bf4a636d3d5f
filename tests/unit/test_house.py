# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_provider_oscar

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_oscar"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTBED_MODULES = sorted((ROOT / "testbed" / "oscar_testbed").rglob("*.py"))
LONGEST_MODULE = 400
#: Of a function that is not what users write into their DAGs.
MOST_ARGUMENTS = 12
#: Rooms of classes and functions that are: each of their arguments is a choice of the user's.
ENTRY_POINTS = ("operators", "sensors", "triggers", "decorators", "ingest")
#: What Airflow makes no promise for; imported in ``_airflow*.py`` only, which a test holds against the installed one.
PRIVATE = (
    "api_fastapi", "assets", "jobs", "models", "sdk.bases.decorator", "sdk.definitions", "sdk.execution_time",
    "serialization", "triggers.shared_stream", "utils",
)  # fmt: skip


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*MODULES, *TESTBED_MODULES], ids=_name)
def test_module_has_one_subject(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= LONGEST_MODULE, "make it a package of the same name"
    assert lines[0] == "# SPDX-License-Identifier: Apache-2.0"
    assert ast.get_docstring(ast.parse(path.read_text())), "say what the module is"


#: Methods that httpx wants twice of an authentication or a transport for both.
HTTPX = ("close", "sync_auth_flow")


@pytest.mark.parametrize("path", sorted((PACKAGE / "hooks").rglob("*.py")), ids=_name)
def test_no_call_is_written_twice_for_sync_and_async(path):
    names = {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name for name in names if f"a{name}" in names or f"a_{name}" in names} - {"run", *HTTPX} == set()


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


@pytest.mark.parametrize("path", [*MODULES, *TESTBED_MODULES], ids=_name)
def test_functions_that_users_do_not_call_have_few_arguments(path):
    if path.is_relative_to(PACKAGE) and path.relative_to(PACKAGE).parts[0] in ENTRY_POINTS:
        return
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert {each.name: len(_arguments(each)) for each in functions if len(_arguments(each)) > MOST_ARGUMENTS} == {}


def _imported_at_run_time(tree: ast.AST) -> Iterator[str]:
    """Modules that are imported, but for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        yield from _imported_at_run_time(node)


def test_newest_changelog_heading_is_the_version():
    headings = re.findall(r"^## \[?([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == airflow_provider_oscar.__version__


def test_every_locked_dependency_of_the_package_is_pinned():
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(ROOT / "setup.cfg")
    wanted = {re.split(r"[<>=\[]", line)[0] for line in metadata["options"]["install_requires"].split()}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / "airflow-3.3.txt").read_text(), re.MULTILINE))
    assert wanted <= locked


@pytest.mark.parametrize("path", [path for path in MODULES if not path.name.startswith("_airflow")], ids=_name)
def test_private_names_of_airflow_are_imported_in_one_place(path):
    names = "|".join(map(re.escape, PRIVATE))
    found = list(_imported_at_run_time(ast.parse(path.read_text())))
    assert [name for name in found if re.match(rf"airflow\.({names})\b", name)] == []


def test_smallest_dag_of_the_readme_is_the_tested_file():
    marked = re.search(
        r"# \[START smallest\]\n(.*?)# \[END smallest\]", (ROOT / "dags/count_words.py").read_text(), re.S
    )
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert marked
    assert shown
    assert shown[1].strip() == marked[1].strip()
