# SPDX-License-Identifier: Apache-2.0
"""Imports stand at the top of a module, but for those that save every DAG file, worker or command something."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import airflow_provider_oscar

PACKAGE = Path(airflow_provider_oscar.__file__).parent
NAME = PACKAGE.name
#: What ``from airflow.sdk import DAG`` does not load, and takes tenths of a second or need not be installed.
SLOW = (
    "airflow.api_fastapi", "airflow.assets", "airflow.models", "airflow.providers", "airflow.serialization",
    "airflow.timetables", "boto3", "botocore", "confluent_kafka", "fastapi", "kubernetes", "pyarrow", "regex",
    "urllib3", "webdav4",
)  # fmt: skip
#: Of ours, that are worth an import in a function; one takes about a millisecond.
MANY = 10
#: What Airflow loads in each process that parses a DAG file, runs a task or is a command, beside the public names.
EVERYWHERE = ("plugins.oscar", "plugins.marked", "ingest.listeners", "cli", "fs", "rucio_fs")
#: The supervisor is Python's standard library alone, and starts beside each command.
ALONE = f"{NAME}.supervisor."


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in PACKAGE.rglob("*.py") if "example_dags" not in path.parts}


def _imports(node: ast.AST, *, in_function: bool = False) -> Iterator[tuple[bool, str, int]]:
    """Yield each import at run time: whether it is in a function, the module, the line."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from ((in_function, alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                yield in_function, whole if whole in MODULES else str(child.module), child.lineno
        inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _imports(child, in_function=inside)


@cache
def _of(module: str) -> list[tuple[bool, str, int]]:
    return list(_imports(ast.parse(MODULES[module].read_text()))) if module in MODULES else []


@cache
def _loaded_with(module: str) -> frozenset[str]:
    """Return a module and all that is loaded with it, packages included."""
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [name.rpartition(".")[0]] if "." in name else []
            todo += [imported for in_function, imported, _ in _of(name) if not in_function]
    return frozenset(found)


def _is_slow(module: str) -> bool:
    return any(module == slow or module.startswith(f"{slow}.") for slow in SLOW)


def test_an_import_in_a_function_saves_something():
    roots = {f"{NAME}.{name}" for name in (*EVERYWHERE, *airflow_provider_oscar._MODULES.values())}
    command_table = _loaded_with(f"{NAME}.cli")
    loaded_everywhere = set().union(*(_loaded_with(root) for root in roots))
    useless, useful = [], 0
    for module in sorted(MODULES):
        for in_function, imported, line in _of(module):
            if not in_function or module.startswith(ALONE):
                continue
            saved = _loaded_with(imported) - _loaded_with(module)
            slow = any(map(_is_slow, saved))
            many = sum(name in MODULES for name in saved) >= MANY
            # The table of commands is made at each command of Airflow's.
            other_room = module in command_table and imported.startswith((f"{NAME}.hooks.", f"{NAME}.jobs."))
            # Beside slow libraries of others, it is only worth it in what is loaded everywhere.
            if (slow and imported not in MODULES) or (module in loaded_everywhere and (slow or many)) or other_room:
                useful += 1
            else:
                useless.append(f"{module}:{line} imports {imported}")
    assert useful > 30
    assert useless == [], "move these to the top of their modules"


def test_dag_files_workers_and_commands_load_neither_the_database_nor_kubernetes_and_the_command_table_no_hook():
    program = (
        "import sys\n"
        "from airflow_provider_oscar.cli import get_cli_commands\n"
        "get_cli_commands()\n"
        "clients = ('boto3', 'webdav4', 'kubernetes', 'starlette', 'oscar_testbed', 'airflow_provider_oscar.hooks')\n"
        "print(sorted(name for name in sys.modules if name.startswith(clients)))\n"
        "import airflow_provider_oscar as package\n"
        "for name in package.__all__: getattr(package, name)\n"
        "from airflow_provider_oscar.plugins.oscar import OscarPlugin\n"
        "OscarPlugin().listeners, OscarPlugin().timetables\n"
        "ours, models = 'airflow_provider_oscar._airflow_', ('airflow.models.dag', 'airflow.models.asset')\n"
        "bad = (ours, *models, 'kubernetes.', 'boto3', 'botocore', 'webdav4')\n"
        "print(sorted(name for name in sys.modules if name.startswith(bad) and name != 'airflow.models.dagbundle'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["[]", "[]"]
