# SPDX-License-Identifier: Apache-2.0
"""Whether the source of a function is enough to run it elsewhere; what is not is said in the DAG file.

Only the text of the function travels. What it uses of the file around it (modules imported at the top, constants,
other functions, variables of an enclosing function) is not there where it runs, which would show after hours in a
queue, as a NameError.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import inspect
import symtable
from collections.abc import Callable, Container, Iterator
from types import FunctionType, ModuleType

from airflow_provider_oscar.core.errors import DefinitionError, quoted

#: Names that every module has.
_GIVEN = {*dir(builtins), "__name__", "__file__", "__builtins__"}


def plain_function(function: Callable[..., object], display_name: str) -> FunctionType:
    """Return the function.

    :param function: what is to run elsewhere.
    :param display_name: task, for messages.
    :raises DefinitionError: if it is not a function with a name, or one whose value cannot be returned.
    """
    if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
        raise DefinitionError(
            f"{display_name}: {quoted(function)} has no source that could be sent; give a function that is defined "
            "with def (no lambda, method, partial or callable object)"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"{display_name}: function {function.__name__!r} is a generator, and what it yields stays where it runs; "
            "return a list, or write files to TMP_OUTPUT_DIR"
        )
    return function


def has_future_annotations(function: FunctionType) -> bool:
    """Whether the file of the function has ``from __future__ import annotations``."""
    return bool(function.__code__.co_flags & __future__.annotations.compiler_flag)


def without_decorator(source: str, names: Container[str]) -> str:
    """Return the definition of a function without the decorator that made it a task.

    :param source: the definition.
    :param names: of the decorator, as it may be written after the names of modules.
    """
    try:
        (definition, *_) = ast.parse(source).body
    except (SyntaxError, ValueError):
        return source  # said elsewhere, for the Python of the image
    lines = source.splitlines(keepends=True)
    for each in reversed(getattr(definition, "decorator_list", [])):
        words = ast.unparse(each.func if isinstance(each, ast.Call) else each).split(".")
        if any(".".join(words[at:]) in names for at in range(len(words))):
            del lines[each.lineno - 1 : each.end_lineno]
    return "".join(lines)


def check_names(function: FunctionType, source: str, display_name: str) -> None:
    """Refuse a function that uses names of the file around it.

    :param function: the function.
    :param source: its definition as it is sent.
    :param display_name: task, for messages.
    :raises DefinitionError: naming them, with what works instead.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return  # said elsewhere, for the Python of the image
    if has_future_annotations(function):
        _drop_annotations(tree)
    table = symtable.symtable(ast.unparse(tree), "<function>", "exec")
    at_once = {each.get_name() for each in table.get_symbols() if each.is_referenced()}
    defined = {each.get_name() for each in table.get_symbols() if each.is_assigned() or each.is_imported()}
    later, assigned = set(), set(defined)
    for scope in _scopes(table):
        for each in scope.get_symbols():
            if each.is_global() and each.is_assigned():
                assigned.add(each.get_name())
            elif each.is_global() and each.is_referenced():
                later.add(each.get_name())
    around = {**function.__globals__, **dict.fromkeys(function.__code__.co_freevars)}
    # What decorators, defaults and annotations use is looked up at once; the rest may stand where nothing comes by.
    missing = (at_once - defined - _GIVEN) | {name for name in later - assigned - _GIVEN if name in around}
    if missing:
        modules = sorted(name for name in missing if isinstance(around.get(name), ModuleType))
        remedies = [f"import {', '.join(modules)} within it"] if modules else []
        if len(missing) > len(modules):
            remedies.append(
                "define the others within it or pass values as arguments"
                if modules
                else "define them within it, or pass values as arguments"
            )
        raise DefinitionError(
            f"{display_name}: function {function.__name__!r} uses {', '.join(sorted(missing))} of the file around it, "
            f"which is not there where it runs; {', and '.join(remedies)}"
        )


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _scopes(child)


def _drop_annotations(tree: ast.AST) -> None:
    """Leave out what nobody evaluates."""
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None:
                setattr(node, name, ast.Constant(None))
