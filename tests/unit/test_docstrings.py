# SPDX-License-Identifier: Apache-2.0
"""What users call documents each of its parameters, in the form that ``help()`` and the generated reference show."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "airflow_provider_oscar"
ROOMS = (
    "operators", "triggers", "sensors", "decorators", "hooks", "jobs", "watch", "ingest", "placement", "core",
    "plugins", "cli",
)  # fmt: skip
_PARAM = re.compile(r":param (?:[\w\[\], |]+ )?\*{0,2}(\w+):")


class Classes:
    """The classes of the package by name, so that a parameter may be documented at the base that takes it."""

    def __init__(self) -> None:
        self.known: dict[str, ast.ClassDef] = {}
        for path in PACKAGE.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    self.known[node.name] = node

    def documented(self, node: ast.ClassDef, seen: frozenset[str] = frozenset()) -> set[str]:
        """Return the parameters that a class and its bases document."""
        found = set(_PARAM.findall(ast.get_docstring(node) or ""))
        for base in node.bases:
            name = base.value if isinstance(base, ast.Subscript) else base
            known = self.known.get(name.id) if isinstance(name, ast.Name) else None
            if known is not None and known.name not in seen:
                found |= self.documented(known, seen | {node.name})
        return found


classes = cache(Classes)  # not while tests are collected, which each process does


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [each.arg for each in arguments if each.arg not in ("self", "cls") and not each.arg.startswith("_")]


def missing(room: str) -> Iterator[str]:
    """Name each parameter of a public class that is not documented, and each public function without a docstring."""
    for path in sorted((PACKAGE / room).rglob("*.py")):
        if path.name.startswith("_") and path.name != "__init__.py":
            continue
        where = f"{path.relative_to(PACKAGE)}"
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                known = classes().documented(node)
                made = (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
                for function in made:
                    known |= set(_PARAM.findall(ast.get_docstring(function) or ""))
                    yield from (f"{where}: {node.name}({name})" for name in parameters(function) if name not in known)
            elif (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and not node.name.startswith("_")
                and ast.get_docstring(node) is None
                and not any(isinstance(each, ast.Name) and each.id == "overload" for each in node.decorator_list)
            ):
                yield f"{where}: {node.name}"


@pytest.mark.parametrize("room", ROOMS)
def test_every_parameter_of_a_public_class_is_documented(room):
    assert list(missing(room)) == []


def test_a_parameter_that_is_not_documented_is_found(tmp_path):
    node = ast.parse(
        'class A:\n    """Text.\n\n    :param a: one.\n    """\n    def __init__(self, a, *, b): ...\n'
    ).body[0]
    assert isinstance(node, ast.ClassDef)
    known = Classes.documented(classes(), node)
    made = node.body[1]
    assert isinstance(made, ast.FunctionDef)
    assert [name for name in parameters(made) if name not in known] == ["b"]
