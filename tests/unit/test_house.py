# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

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


@cache
def _text(path: Path) -> str:
    return path.read_text()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(_text(path))


@cache
def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


EVERYWHERE = [*MODULES, *TESTBED_MODULES]


def test_modules_have_one_subject():
    lengths = {_name(path): len(_text(path).splitlines()) for path in EVERYWHERE}
    too_long = {name: length for name, length in lengths.items() if length > LONGEST_MODULE}
    assert too_long == {}, "make each a package of the same name"


def test_modules_carry_the_licence_and_say_what_they_are():
    heads = {path: _text(path).partition("\n")[0] for path in EVERYWHERE}
    assert [_name(path) for path, head in heads.items() if head != "# SPDX-License-Identifier: Apache-2.0"] == []
    assert [_name(path) for path in EVERYWHERE if not ast.get_docstring(_tree(path))] == []


#: Methods that httpx wants twice of an authentication or a transport for both.
HTTPX = ("close", "sync_auth_flow")


def test_no_call_is_written_twice_for_sync_and_async():
    twice = {}
    for path in sorted((PACKAGE / "hooks").rglob("*.py")):
        names = {each.name for each in _functions(path)}
        twice[_name(path)] = {n for n in names if f"a{n}" in names or f"a_{n}" in names} - {"run", *HTTPX}
    assert {name: found for name, found in twice.items() if found} == {}


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def _is_entry_point(path: Path) -> bool:
    return path.is_relative_to(PACKAGE) and path.relative_to(PACKAGE).parts[0] in ENTRY_POINTS


def test_functions_that_users_do_not_call_have_few_arguments():
    counts = {
        (_name(path), each.name): len(_arguments(each))
        for path in EVERYWHERE
        if not _is_entry_point(path)
        for each in _functions(path)
    }
    assert {name: count for name, count in counts.items() if count > MOST_ARGUMENTS} == {}


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


def test_private_names_of_airflow_are_imported_in_one_place():
    private = re.compile(rf"airflow\.({'|'.join(map(re.escape, PRIVATE))})\b")
    elsewhere = [path for path in MODULES if not path.name.startswith("_airflow")]
    imported = [(_name(path), name) for path in elsewhere for name in _imported_at_run_time(_tree(path))]
    assert len(imported) > len(elsewhere)
    assert [(path, name) for path, name in imported if private.match(name)] == []


def test_smallest_dag_of_the_readme_is_the_tested_file():
    marked = re.search(
        r"# \[START smallest\]\n(.*?)# \[END smallest\]", (ROOT / "dags/count_words.py").read_text(), re.S
    )
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert marked
    assert shown
    assert shown[1].strip() == marked[1].strip()


def test_what_several_test_trees_share_is_no_test_module_of_one():
    imported = re.compile(r"^ *from (tests\.(\w+)(?:\.\w+)*\.test_\w+) import", re.MULTILINE)
    taken = {
        f"{_name(path)}: {found[1]}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for found in imported.finditer(_text(path))
        if found[2] != path.relative_to(ROOT).parts[1]
    }
    assert taken == set(), "move what is shared to tests/support"
