# SPDX-License-Identifier: Apache-2.0
"""What commands share: options of pairs, answers on standard output, an error as one line and exit code 1."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError


def reports_errors(function: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Show errors of the provider as one line and exit code 1 instead of a traceback."""

    @wraps(function)
    def wrapped(options: argparse.Namespace) -> None:
        try:
            function(options)
        except (OscarProviderError, OSError) as error:
            raise SystemExit(f"error: {error}") from error

    return wrapped


def print_rows(rows: Sequence[Mapping[str, object]], columns: Sequence[str], form: str) -> None:
    """Print rows in one of Airflow's forms; names are whole unless a terminal is too narrow for them.

    :param rows: what is printed.
    :param columns: of a table, in order.
    :param form: ``table``, ``plain``, ``json`` or ``yaml``.
    """
    if form == "json":
        print(json.dumps(list(rows), indent=2))
    elif form == "yaml":
        import yaml

        print(yaml.safe_dump(list(rows), sort_keys=False), end="")
    elif form == "plain":
        lines = [tuple(columns), *(tuple(str(row[name]) for name in columns) for row in rows)]
        widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    else:
        _print_table(rows, columns)


def print_done(name: str, what: str, form: str) -> None:
    """Print what was done to one thing: a sentence for people, a row for programs.

    :param name: of the thing.
    :param what: was done.
    :param form: ``table``, ``plain``, ``json`` or ``yaml``.
    """
    if form in ("table", "plain"):
        print(f"{name}: {what}" if what else name)
    else:
        print_rows([{"name": name, "result": what or "done"}], ("name", "result"), form)


def _print_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=not sys.stdout.isatty())
    for row in rows:
        table.add_row(*(Text(str(row[name])) for name in columns))
    width = (
        None
        if sys.stdout.isatty()
        else sum(3 + max((len(str(row[c])) for row in rows), default=0) + len(c) for c in columns) + 1
    )
    Console(width=width).print(table)


def print_document(document: object, form: str) -> None:
    """Print one document.

    :param document: of JSON values.
    :param form: ``json``; YAML for all others.
    """
    if form == "json":
        print(json.dumps(document, indent=2))
    else:
        import yaml

        print(yaml.safe_dump(document, sort_keys=False), end="")


def read_pairs(words: Sequence[str] | None, option: str) -> dict[str, str]:
    """Read the values ``NAME=VALUE`` of an option that may be given several times.

    :param words: its values, None for none.
    :param option: its name, for messages.
    :raises DefinitionError: if one has another form.
    """
    found: dict[str, str] = {}
    for word in words or ():
        name, equal, value = word.partition("=")
        if not name or not equal:
            raise DefinitionError(f"{option} {word!r} is not valid; expected NAME=VALUE")
        found[name] = value
    return found
